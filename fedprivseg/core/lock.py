"""One writer at a time in a run's folder.

The lock is the operating system's (``flock`` on the file ``.lock``): it is gone with the process that held it, however that
ended, so that no lock is ever left to be removed by hand. The file says who works there. Who only reads takes no lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedprivseg.core.errors import FolderError

LOCK = ".lock"
"""The file in a run's folder; it is there while somebody works in the folder, or was killed there."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Work in the run's folder `folder`, which exists, as the only process and thread that writes there.

    Raises FolderError if somebody else works there (it says which process), or if the folder cannot be locked.
    """
    path = folder / LOCK
    try:
        descriptor = _taken(path)
    except BlockingIOError:
        raise _in_use(folder) from None
    except OSError as fault:
        raise FolderError(
            f"{folder} cannot be locked ({fault.strerror or type(fault).__name__}); it must be a folder that this account can "
            "write, on a file system that knows locks"
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
        yield
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def check_free(folder: Path) -> None:
    """Raise FolderError if somebody works in the run's folder `folder` now. Writes nothing; the folder need not be there."""
    path = folder / LOCK
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # no lock, no folder, or none of ours: whoever wants to work there finds out
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(folder) from None
    finally:
        os.close(descriptor)


def worker(folder: Path) -> int | None:
    """The process that works in the run's folder `folder`, as far as the lock's file says and this machine knows; None for
    nobody. Takes no lock, not for a moment, so that whoever comes to work is not in the way of somebody who looks."""
    try:
        process = int((folder / LOCK).read_text(encoding="ascii"))
        os.kill(process, 0)
    except PermissionError:  # it is there, and somebody else's
        return process
    except (OSError, ValueError, OverflowError):
        return None
    return process


def _taken(path: Path) -> int:
    """The descriptor of the locked file. Raises OSError, BlockingIOError if it is held."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever held it removed the file meanwhile: the lock of another file says nothing


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _in_use(folder: Path) -> FolderError:
    """The error that says who works there, as far as that process has said so yet."""
    try:
        process = (folder / LOCK).read_text(encoding="ascii")
    except (OSError, ValueError):
        process = ""
    whose = f" by process {process}" if process.isdecimal() else ""
    return FolderError(
        f"{folder} is in use{whose}: one process at a time works in a run's folder. Wait until it has ended, or work in "
        "another folder."
    )


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
