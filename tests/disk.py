"""A folder as on a disk that is mounted read-only, also for root: Python's audit events tell of every attempt to write."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.utime",
}
_shut: list[Path] = []
_hooked: list[bool] = []


def _refuse(event, args):
    if not _shut or not (event in _CHANGES or (event == "open" and args[2] is not None and args[2] & _WRITES)):
        return
    for name in args:
        if isinstance(name, str | os.PathLike) and any(Path(name).resolve().is_relative_to(each) for each in _shut):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(name))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Inside the block nothing in `folder` can be written, renamed or removed by this process's Python code."""
    if not _hooked:  # a hook stays until the process ends, so one will do
        sys.addaudithook(_refuse)
        _hooked.append(True)
    _shut.append(folder.resolve())
    try:
        yield
    finally:
        _shut.remove(folder.resolve())
