"""Files that are there whole or not at all: written as a draft beside their place, then put there in one step.

What must also outlive a power cut, or stay secret while it is written, `policy.disk` writes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedprivseg.core.errors import FolderError

_APPLE_DOUBLE = b"\x00\x05\x16\x07"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A draft to write to; at the end of the block it becomes `path`, on any exception it is removed. A killed process leaves
    it (``.<name>.draft``). Raises OSError."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        yield draft
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Put `text` at `path` (UTF-8, lines as they are). Raises OSError."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def obstacle(folder: Path) -> str:
    """Why no file can be written in `folder`, empty if one can. Tried with a file that has no name: permissions say nothing of
    a disk that is mounted read-only."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as fault:
        return fault.strerror or type(fault).__name__


def require_writable(run: Path) -> None:
    """Raises FolderError if a command that writes into the run folder `run` cannot; called before it takes its time."""
    if why := obstacle(run):
        raise FolderError(
            f"{run} cannot be written ({why}), and this command writes into it; copy the folder to a disk that can be written"
        )


def deliver(path: Path, content: str | bytes) -> Path:
    """Put what somebody asked for at `path`, in folders that are made if they lack; returns `path`. Text is UTF-8. Raises
    FolderError that says what to do if it cannot be written, or is no file: a device or a pipe would be replaced, not written
    to, and with it that of everybody else on the machine."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise FolderError(f"{path} is no file, and would be replaced by one; choose a file with --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as draft:
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as fault:
        raise FolderError(
            f"{path} cannot be written ({fault.strerror}); check the folder and the free space, or choose another with --out"
        ) from None
    return path


def is_companion(path: Path) -> bool:
    """Whether `path` is a file that macOS wrote beside another one (``._name``, AppleDouble) on a disk that is not its own. It
    holds no content of the other; whoever lists files passes over it. A file that cannot be read is none: whoever reads it
    says so."""
    if not path.name.startswith("._") or path.is_symlink() or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE
    except OSError:
        return False
