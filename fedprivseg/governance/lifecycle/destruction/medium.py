"""What can be told of the medium on which a file lies, and whether overwriting reaches the file's blocks (5.8-e).

Overwriting proves nothing on flash memory, and nothing on file systems that write elsewhere (copy-on-write, log-structured,
journals of data, networks): old blocks stay until they are used again.
"""

from __future__ import annotations

import os
from pathlib import Path

PROVES_NOTHING = "overwriting proves nothing"
"""Ends the reason of a medium whose blocks overwriting may not reach."""

IN_PLACE = frozenset({"ext2", "ext3", "ext4", "vfat"})
"""File systems that write a file's blocks where they are. Not xfs: blocks that files share are written elsewhere."""


def medium_of(path: Path) -> str:
    """What can be told of the medium of the file at `path`, after Linux's ``mountinfo`` and ``queue/rotational``. It ends with
    `PROVES_NOTHING` unless overwriting is known to reach the file's blocks. What lies below, such as snapshots or the disk of a
    virtual machine's host, does not show. Raises OSError."""
    number = path.lstat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    mounts = Path("/proc/self/mountinfo")
    home = Path(f"/sys/dev/block/{device}").resolve()
    states = [place / "queue" / "rotational" for place in (home, home.parent)]  # of a disk, and of a partition's disk
    rotational = next((state.read_text(encoding="ascii").strip() for state in states if state.is_file()), "")
    return judge_medium(mounts.read_text(encoding="utf-8") if mounts.is_file() else "", device, rotational)


def judge_medium(mountinfo: str, device: str, rotational: str) -> str:
    """What follows from the text of ``mountinfo``, a device as ``major:minor``, and ``1`` or ``0`` for rotating or not."""
    filesystem, options = "", ""
    for line in mountinfo.splitlines():
        left, dash, right = line.partition(" - ")
        if dash and left.split()[2] == device:
            filesystem, options = right.split()[0], right.split()[-1]
    if filesystem not in IN_PLACE:
        reason = f"the file system ({filesystem or 'unknown'}) may write elsewhere than over the old blocks"
    elif "data=journal" in options.split(","):
        reason = f"{filesystem} keeps data in its journal too"
    elif rotational == "1":
        return f"{filesystem} on what says it is a rotating disk writes over the old blocks"
    else:
        reason = "the medium is flash memory" if rotational == "0" else "the medium is flash, or it could not be told"
    return f"{reason}: {PROVES_NOTHING}"
