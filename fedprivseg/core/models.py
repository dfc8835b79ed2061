"""The models that a server keeps, and the register that says which they are.

Whoever deletes what was made of somebody's data, or says what became of it, reads the register. A model that is not in it
cannot be loaded either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np

from fedprivseg.core.arrays import load_with_facts, save_arrays
from fedprivseg.core.documents import damaged, read_json
from fedprivseg.core.files import write_text

MODELS = "models.json"
"""The register, in the server's folder: a list of names."""

_BEFORE = ("mapping", "model")
"""What servers kept before there was a register."""


@final
class ModelStore:
    """The models in a server's folder.

    Attributes:
        folder: the server's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str] | None = None) -> None:
        """Keep a model under `name`; one of that name is replaced. It is registered before it is there.

        Args:
            name: of letters, digits and hyphens.
            arrays: its arrays by name.
            facts: texts that are kept with them.

        Raises:
            OSError: it cannot be written.
        """
        known = self.names()
        if name not in known or not (self.folder / MODELS).exists():
            write_text(self.folder / MODELS, json.dumps(sorted({*known, name})))
        save_arrays(self.path(name), arrays, facts)

    def load(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        """The arrays and facts of a model, None if there is none of that name. Raises FolderError if it is damaged."""
        path = self.path(name)
        return load_with_facts(path) if name in self.names() and path.exists() else None

    def names(self) -> tuple[str, ...]:
        """The registered names, sorted. Raises FolderError if the register is damaged."""
        path = self.folder / MODELS
        if not path.exists():
            return tuple(name for name in _BEFORE if self.path(name).exists())
        found = read_json(path)
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise damaged(path, "was changed: it lists no models")
        return tuple(sorted(found))

    def paths(self) -> list[Path]:
        """The files of registered models that are there, sorted."""
        return sorted(path for path in map(self.path, self.names()) if path.exists())

    def path(self, name: str) -> Path:
        """Where a model of that name lies."""
        return self.folder / f"{name}.safetensors"
