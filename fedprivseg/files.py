"""Files that are there whole or not at all: written as a draft beside their place, then put there in one step.

What must also outlive a power cut, or stay secret while it is written, `policy.disk` writes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedprivseg.errors import FolderError


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


def require_writable(folder: Path) -> None:
    """Find out, by a file without a name, whether files can be written in `folder`: permissions do not tell on a disk that is
    mounted read-only. Raises OSError if not."""
    with tempfile.TemporaryFile(dir=folder):
        pass


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
