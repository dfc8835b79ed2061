"""One site's disk: keys, encoders and state live here and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class Vault:
    """Named sets of arrays under `folder`, each one safetensors file, written atomically with mode 0600."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, name: str) -> Path:
        """The file of `name`. Raises ValueError for a name that is not ``a-z 0-9 -``."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no vault name; allowed are a-z, 0-9 and '-', at most 64 of them")
        return self.folder / f"{name}.safetensors"

    def has(self, name: str) -> bool:
        """Whether `name` was saved."""
        return self.path(name).exists()

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep `arrays` under `name`: either all of it is there afterwards, or what was there before."""
        path = self.path(name)
        draft = path.with_suffix(".draft")
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, draft)
        os.chmod(draft, 0o600)
        os.replace(draft, path)

    def load(self, name: str) -> dict[str, np.ndarray]:
        """What was saved under `name`. Raises FileNotFoundError if nothing was."""
        return load_file(self.path(name))
