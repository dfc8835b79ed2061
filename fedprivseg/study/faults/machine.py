"""What happens to a machine: its disk is full, its clock jumps.

Python's audit events tell of every attempt to write, so a full disk is simulated without touching the code that writes: what
is there can be read, and nothing can be added.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_full: list[Path] = []
_hooked: list[bool] = []


def _refuse(event: str, args: tuple[object, ...]) -> None:
    if not _full or not (event == "os.mkdir" or (event == "open" and isinstance(args[2], int) and args[2] & _WRITES)):
        return
    name = args[0]
    if isinstance(name, str | os.PathLike) and any(Path(name).resolve().is_relative_to(each) for each in _full):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(name))


def fill_disk(folder: Path) -> None:
    """From now on nothing can be written in `folder` by this process; `free_disk` ends that."""
    if not _hooked:  # a hook stays until the process ends, so one will do
        sys.addaudithook(_refuse)
        _hooked.append(True)
    _full.append(folder.resolve())


def free_disk(folder: Path) -> None:
    """There is room in `folder` again."""
    if folder.resolve() in _full:
        _full.remove(folder.resolve())


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Inside the block nothing can be written in `folder` by this process."""
    fill_disk(folder)
    try:
        yield
    finally:
        free_disk(folder)


@contextmanager
def clock_jump(seconds: float) -> Iterator[None]:
    """Inside the block this process's time of day is off by so many seconds. The clock that measures durations is as it was."""
    right = time.time
    time.time = lambda: right() + seconds
    try:
        yield
    finally:
        time.time = right
