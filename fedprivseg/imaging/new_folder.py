"""A folder that is there as a whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedprivseg.core.errors import FolderError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that only its owner reads, renamed to `target` at the end; gone if anything fails.

    Raises FolderError if `target` exists, or if anything cannot be written.
    """
    if target.exists() or target.is_symlink():
        raise FolderError(f"the folder {target.name!r} exists already; name a new one, or move the old one away first.")
    try:
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as fault:
        raise FolderError(_unwritable(fault)) from None
    try:
        yield part
        part.rename(target)
    except OSError as fault:
        raise FolderError(_unwritable(fault)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unwritable(fault: OSError) -> str:
    return (
        f"the new folder cannot be written ({fault.strerror or type(fault).__name__}); the folder above it must exist and be "
        "writable and the disk must have room."
    )
