"""Writing to a site's disk so that a kill or a power cut leaves a file whole, and removing what must not stay.

T/SCGS 313008-2024 clauses 5.4.1, 5.4.2-a (control of storage), 5.8-a (nothing of what was destroyed comes back).
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFT = ".draft"
"""Ends the name of a file that is not yet whole."""


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Write `parts` to `path` (mode 0600) in one step: a reader sees the old file or the new one, also after a power cut.

    The draft beside it (``.<name>.*.draft``) is removed on any exception; a killed process leaves it. Raises OSError.
    """
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", suffix=DRAFT, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk: without it a power cut may bring back a file that was removed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def overwrite(descriptor: int) -> None:
    """Write random bytes once over all of an open file and bring them to the disk; its length stays. Raises OSError.

    On a magnetic disk that writes in place one pass is enough (NIST SP 800-88 r1, section 2.4). On flash, on copy-on-write
    and on log-structured file systems the old blocks may survive elsewhere: there it proves nothing.
    """
    left = os.fstat(descriptor).st_size
    os.lseek(descriptor, 0, os.SEEK_SET)
    while left > 0:
        left -= os.write(descriptor, os.urandom(min(left, 1 << 20)))
    os.fsync(descriptor)


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a file or folder (``flock``), alone or shared with others; only those who ask for it respect it.

    Raises OSError: BlockingIOError if it is held otherwise and `wait` is false.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def unusable(what: str, verb: str, fault: OSError) -> str:
    """The message for a file that could not be `verb`; the folder is a site's own affair and stays out of it."""
    return (
        f"{what} could not be {verb} ({fault.strerror or type(fault).__name__}). "
        "Check that its folder exists, belongs to this account and has space left."
    )
