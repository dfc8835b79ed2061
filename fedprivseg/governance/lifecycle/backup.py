"""Backups of a site: its whole folder, compressed and encrypted, that can be restored and is verified (clause 5.4.2-c).

The format is that of a bundle (`bundle`). A backup is all of the site's folder but the key of its vault, encrypted under that
key: whoever finds it can do nothing with it, and whoever loses the key can neither. Keep a copy of the key, and keep it
elsewhere.

Whoever restores goes back in time. The ledger in the backup is shorter than the one that was lost; the server, which was shown
later checkpoints, then contradicts it (`ledger verify`). A backup that was made before a withdrawal of consent or before the
destruction of what the site held is not restored.
"""

from __future__ import annotations

import stat
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from pydantic import Field, field_validator

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_secret
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.core.validation import validated
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.ledger import open_ledger, read
from fedprivseg.governance.lifecycle import bundle
from fedprivseg.governance.lifecycle.bundle import (
    Record,
)
from fedprivseg.governance.lifecycle.withdrawal import read_withdrawals
from fedprivseg.governance.sitefolder.notifications import told
from fedprivseg.governance.sitefolder.vault import sealing_key

_BACKUP = "fedprivseg backup 1"


@final
class Backup(Record):
    """What a backup says of itself.

    Attributes:
        name: whose it is.
        folders: all of the tree, parents first.
        lines: how many lines the ledger in it has, so that what was decided later can be told.
    """

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
            bundle.parts_of(name)
        return names


def backup(folder: Path, target: Path, key: SealingKey, *, leave_out: Collection[str] = (), **stated: object) -> Backup:
    """Write everything under a folder. Contents and folders are kept, modes, times and owners are not. Nobody may write
    meanwhile: a file that changes is noticed, a set of files that changes is not.

    Args:
        folder: what is backed up.
        target: a new file, elsewhere.
        key: it is encrypted under.
        leave_out: files and folders, relative to `folder`, that stay out. The key file belongs here: a copy of it in a backup
            would keep a key that is destroyed later.
        stated: the fields of the record but its folders and members.

    Raises:
        RequestError: there are links and other things that are neither file nor folder, a name in `leave_out` does not exist,
            or the disk cannot be used.
        ArchiveError: a file changes.
    """
    folders, files = _tree(folder, leave_out)
    if target.resolve().is_relative_to(folder.resolve()):
        raise RequestError("the backup would lie in the folder that it is of. Write it to another medium.")
    content = {**stated, "folders": tuple(folders), "members": bundle.examined(files)}
    record = validated(Backup, content, "the backup")
    bundle.write(target, key, _BACKUP, record, list(files.values()))
    return record


def verify_backup(source: Path, key: SealingKey) -> Backup:
    """What the backup says of itself, after all of it was read and checked. Compare ``made`` with when the last one was due:
    an older backup in the place of a newer one is whole too. Raises SealError, ArchiveError."""
    with bundle.disk("the backup", "read"):
        return bundle.verified(source, key, _BACKUP, Backup)


def restore_backup(source: Path, target: Path, key: SealingKey) -> Backup:
    """The tree of the backup as the new folder `target`; see `bundle.restored`."""
    return bundle.restored(source, target, key, _BACKUP, Backup)


def back_up(run: Path, site: str, target: Path, passphrase: str | None = None) -> Backup:
    """Write a backup of a site's folder, and read all of it again. Nobody may work at the site meanwhile.

    Args:
        run: the run's folder.
        site: its name.
        target: a new file.
        passphrase: of the site's key, see `sealing_key`.

    Raises:
        RequestError, ArchiveError: as of `backup`.
    """
    folder = RunFolder(run).site_named(site)
    key = sealing_key(folder.path, passphrase)
    book = open_ledger(folder.path, site)
    record = backup(
        folder.path,
        target,
        key,
        leave_out=[folder.sealing_key.name],
        name=site,
        made=datetime.now(UTC),
        made_by=f"holder of key {book.public_hex[:16]}",
        lines=len(read(book.path)),
    )
    try:
        verify_backup(target, key)
        book.append("backup", {**_facts(record, target), "what": "made and verified"})
    except BaseException:
        target.unlink()
        raise
    return record


def recover(source: Path, run: Path, site: str, key_file: Path, passphrase: str | None = None) -> Backup:
    """Bring the folder of a site back from a backup. All of it is checked before anything is written.

    Args:
        source: the backup.
        run: the run's folder.
        site: its name.
        key_file: the sealing key, which is put back too.
        passphrase: of that key, see `sealing_key`.

    Raises:
        RequestError: the wrong site or key, there is a folder (nothing is restored over), or consent was withdrawn or the data
            destroyed since.
        SealError, ArchiveError: the backup is damaged, or another key's.
    """
    folder = RunFolder(run).site_named(site)
    if folder.path.exists() or folder.path.is_symlink():
        raise RequestError(f"{site} has a folder in this run, and nothing is restored over. Move it away first.")
    key = SealingKey.load(key_file, passphrase)
    record = verify_backup(source, key)
    if record.name != site:
        raise RequestError(f"this is a backup of {record.name!r}, not of {site!r}. Choose the site's own.")
    withdrawn = any(each.site == site and each.line >= record.lines for each in read_withdrawals(run))
    if withdrawn or any(each > record.lines for each in told(run, site, "withdrawal")):
        raise RequestError(
            "this backup was made before consent was withdrawn at the site, and holds artefacts derived from the data. Destroy "
            "it; restore one that was made later, or run the scenario again."
        )
    if any(each > record.lines for each in told(run, site, "destruction")):
        raise RequestError(
            "this backup was made before what the site held was destroyed, and holds it. Destroy the backup too, and what is "
            "left of its key."
        )
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    restore_backup(source, folder.path, key)
    write_secret(folder.sealing_key, key_file.read_bytes())
    open_ledger(folder.path, site).append("backup", {**_facts(record, source), "what": "restored"})
    return record


def _facts(record: Backup, path: Path) -> dict[str, Fact]:
    """What a ledger line says of a backup: no names of files."""
    return {
        "bytes": path.stat().st_size,
        "clause": "5.4.2-c",
        "files": len(record.members),
        "made": record.made.isoformat(),
        "sha256": bundle.digest_of(path),
    }


def _tree(folder: Path, leave_out: Collection[str]) -> tuple[list[str], dict[str, Path]]:
    """Folders and files under `folder` by their names relative to it, sorted, without those in `leave_out`."""
    folders, files, unmet = [], {}, set(leave_out)
    with bundle.disk("the folder", "read"):
        if folder.is_symlink() or not folder.is_dir():
            raise RequestError("what is to be backed up is no folder. Give the folder itself, not a link to it.")
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            unmet.discard(name)
            if any(name == left or name.startswith(f"{left}/") for left in leave_out):
                continue
            bundle.requested_parts(name)
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
