"""Backups: a whole folder, compressed and sealed, that can be restored and is verified (T/SCGS 313008-2024 clause 5.4.2-c).

The format is that of a bundle (`bundle`).
"""

from __future__ import annotations

import stat
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import final

from pydantic import Field, field_validator

from fedprivseg.core.config import validated
from fedprivseg.core.errors import RequestError
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.lifecycle.bundle import (
    Record,
    disk,
    examined,
    parts_of,
    requested_parts,
    restored,
    verified,
    write,
)

_BACKUP = "fedprivseg backup 1"


@final
class Backup(Record):
    """What a backup says of itself. name: whose it is. folders: all of the tree, parents first. made_by: a role or a pseudonym.
    lines: how many lines the ledger in it has, so that what was decided later can be told."""

    name: str = Field(min_length=1)
    folders: tuple[str, ...]
    lines: int = Field(default=0, ge=0)

    @property
    def tree(self) -> tuple[str, ...]:
        """The folders in it, parents first."""
        return self.folders

    @field_validator("folders")
    @classmethod
    def _safe(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            parts_of(name)
        return names


def backup(
    folder: Path,
    target: Path,
    key: SealingKey,
    *,
    name: str,
    made: datetime,
    made_by: str,
    leave_out: Collection[str] = (),
    lines: int = 0,
) -> Backup:
    """Write everything under `folder` to the new file `target`, sealed under `key` (clause 5.4.2-c).

    leave_out: files and folders, relative to `folder`, that stay out. The key file belongs here: a copy of it in a backup
    would keep a key that is destroyed later. Contents and folders are kept, modes, times and owners are not. Nobody may
    write meanwhile: a file that changes is noticed, a set of files that changes is not. Raises RequestError for links and
    other things that are neither file nor folder, for a name in `leave_out` that does not exist, and if the disk cannot be
    used; ArchiveError if a file changes.
    """
    folders, files = _tree(folder, leave_out)
    if target.resolve().is_relative_to(folder.resolve()):
        raise RequestError("the backup would lie in the folder that it is of. Write it to another medium.")
    content = {
        "name": name,
        "made": made,
        "made_by": made_by,
        "folders": tuple(folders),
        "members": examined(files),
        "lines": lines,
    }
    record = validated(Backup, content, "the backup")
    write(target, key, _BACKUP, record, list(files.values()))
    return record


def verify_backup(source: Path, key: SealingKey) -> Backup:
    """What the backup says of itself, after all of it was read and checked. Compare ``made`` with when the last one was due:
    an older backup in the place of a newer one is whole too. Raises SealError, ArchiveError."""
    with disk("the backup", "read"):
        return verified(source, key, _BACKUP, Backup)


def restore_backup(source: Path, target: Path, key: SealingKey) -> Backup:
    """The tree of the backup as the new folder `target`: all of it or nothing, as `restore`."""
    return restored(source, target, key, _BACKUP, Backup)


def _tree(folder: Path, leave_out: Collection[str]) -> tuple[list[str], dict[str, Path]]:
    """Folders and files under `folder` by their names relative to it, sorted, without those in `leave_out`."""
    folders, files, unmet = [], {}, set(leave_out)
    with disk("the folder", "read"):
        if folder.is_symlink() or not folder.is_dir():
            raise RequestError("what is to be backed up is no folder. Give the folder itself, not a link to it.")
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            unmet.discard(name)
            if any(name == left or name.startswith(f"{left}/") for left in leave_out):
                continue
            requested_parts(name)
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                folders.append(name)
            elif stat.S_ISREG(mode):
                files[name] = path
            else:
                raise RequestError(
                    "the folder holds a link or a device, and a backup holds files and folders. Remove it."
                )
    if unmet:
        raise RequestError(f"{len(unmet)} of the names to leave out do not exist in the folder. Correct them.")
    if not files:
        raise RequestError("the folder holds no files, so there is nothing to back up. Check that it is the right one.")
    return folders, files
