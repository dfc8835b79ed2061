"""Named arrays on the disk: a safetensors file that carries the SHA-256 of what it holds.

A format of raw numbers shows no damage by itself: a bit that changed in a network's weights gives another mask, and no error.
Files without the digest, of earlier releases, are read as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedprivseg.core.documents import REMEDY, content_of, damaged
from fedprivseg.core.files import whole

_NOTE = "fedprivseg"
"""The one key of the metadata: of several the order in the file is not fixed, and the same arrays must give the same bytes."""


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str] | None = None) -> None:
    """Put `arrays` at `path` (mode 0600), whole or not at all.

    arrays: by name, any shape, a dtype that safetensors knows. facts: texts that are kept with them. Raises OSError.
    """
    content = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    note = json.dumps({"facts": dict(facts or {}), "sha256": _digest(content, facts or {})}, sort_keys=True)
    with whole(path) as draft:
        save_file(content, draft, {_NOTE: note})
        draft.chmod(0o600)


def load_arrays(path: Path, remedy: str = REMEDY) -> dict[str, np.ndarray]:
    """The arrays at `path`. Raises FolderError that names the file and the remedy if it is missing, empty, cut short, or not as
    it was written."""
    return _read(path, remedy)[0]


def load_with_facts(path: Path, remedy: str = REMEDY) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays at `path`, and what is kept with them. Raises FolderError as `load_arrays`."""
    return _read(path, remedy)


def facts_of(path: Path, remedy: str = REMEDY) -> dict[str, str]:
    """What is kept with the arrays at `path`, which are not checked. Raises FolderError if it is no file of arrays."""
    content_of(path, remedy, most=1)
    try:
        with safe_open(path, framework="np") as file:
            return _told(file.metadata() or {})[0]
    except (SafetensorError, OSError, ValueError, TypeError, KeyError):
        raise damaged(path, "is cut short or was changed: it holds no arrays", remedy) from None


def _read(path: Path, remedy: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    content_of(path, remedy, most=1)
    try:
        with safe_open(path, framework="np") as file:
            facts, expected = _told(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError):
        raise damaged(path, "is cut short or was changed: it holds no arrays", remedy) from None
    if expected and expected != _digest(arrays, facts):
        raise damaged(path, "was changed after it was written: its SHA-256 is not that of its arrays", remedy)
    return arrays, facts


def _told(metadata: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """(facts, digest) of a file's metadata; an empty digest for a file of an earlier release, whose metadata are the facts."""
    if _NOTE not in metadata:
        return dict(metadata), ""
    note = json.loads(metadata[_NOTE])
    return {str(name): str(text) for name, text in note["facts"].items()}, str(note["sha256"])


def _digest(arrays: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> str:
    """SHA-256 over names, dtypes, shapes, bytes and facts."""
    found = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return found.hexdigest()
