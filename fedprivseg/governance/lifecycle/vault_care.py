"""A site's vault in the course of its life: its key, its check, its backup and recovery, and what the hospital takes out of it.

T/SCGS 313008-2024 clauses 5.4.1, 5.4.2-a (control of storage), 5.4.2-b (integrity), 5.4.2-c (backup and recovery, verified).
Every act is a line of the site's ledger.

A backup is all of the site's folder but the key of its vault, sealed under that key: whoever finds it can do nothing with it,
and whoever loses the key can neither. Keep a copy of the key, and keep it elsewhere.

Whoever restores goes back in time. The ledger in the backup is shorter than the one that was lost; the server, which was shown
the later heads, then contradicts it (`ledger verify`). A backup that was made before a withdrawal of consent
or before the destruction of what the site held is not restored.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from fedprivseg.core.errors import FedprivsegError, RequestError
from fedprivseg.core.files import write_secret
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.access.staff import OPENED, data_manager
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.ledger import open_ledger
from fedprivseg.governance.lifecycle.archive import verify_archive
from fedprivseg.governance.lifecycle.backup import Backup, backup, restore_backup, verify_backup
from fedprivseg.governance.lifecycle.bundle import digest_of, disk, parts_of, pieces
from fedprivseg.governance.lifecycle.withdrawal import read_withdrawals
from fedprivseg.governance.sitefolder.notes import NOTES, PARTICIPANTS, Notes
from fedprivseg.governance.sitefolder.notifications import told
from fedprivseg.governance.sitefolder.vault import ARCHIVES, SEALING_KEY, Vault, is_sealed, prediction_name, sealing_key
from fedprivseg.imaging.splits import COHORT
from fedprivseg.imaging.volumes import write_mask


@dataclass(frozen=True)
class Checked:
    """One file of a sealed site. name: relative to the site's folder. fault: why it does not open, or that it lies open; empty
    if all is well."""

    name: str
    fault: str


def make_key(run: Path, site: str, passphrase: str | None = None) -> SealingKey:
    """A new sealing key for a site that has none, sealed under `passphrase` if that is given.

    Raises FolderError and RequestError if there is no such run or site, if there is a key, or sealed files without one: a new
    key would not open these.
    """
    home = RunFolder(run).site_named(site).path
    if not (home / SEALING_KEY).exists() and (left := [*(home / "vault").glob("*.sealed"), *home.glob("*.sealed")]):
        raise RequestError(
            f"{site} has {len(left)} sealed files and no {SEALING_KEY}: only the key that was lost opens them. Put that key "
            "back, or move the files away first."
        )
    if not home.exists():
        raise RequestError(f"the folder of {site} is not there. Restore it from a backup: `fedprivseg vault restore`.")
    book = open_ledger(home, site)
    key = SealingKey.create(home / SEALING_KEY, passphrase)
    facts: dict[str, ledger.Fact] = {"clause": "5.4.2-a", "key": key.id, "what": "sealing key made"}
    book.append("storage", {**facts, "protection": "mode 0600" if passphrase is None else "passphrase, mode 0600"})
    return key


def back_up(run: Path, site: str, target: Path, passphrase: str | None = None) -> Backup:
    """Write a backup of the site's folder to the new file `target`, and read all of it again. Nobody may work at the site
    meanwhile. passphrase: see `sealing_key`.

    Raises FolderError, RequestError for the wrong run, site, key or target; ArchiveError if a file changes meanwhile.
    """
    home = RunFolder(run).site_named(site).path
    key = sealing_key(home, passphrase)
    book = open_ledger(home, site)
    record = backup(
        home,
        target,
        key,
        name=site,
        made=datetime.now(UTC),
        made_by=f"holder of key {book.public_hex[:16]}",
        leave_out=[SEALING_KEY],
        lines=len(ledger.read(book.path)),
    )
    try:
        verify_backup(target, key)
        book.append("backup", {**_facts(record, target), "what": "made and verified"})
    except BaseException:
        target.unlink()
        raise
    return record


def recover(source: Path, run: Path, site: str, key_file: Path, passphrase: str | None = None) -> Backup:
    """Bring the folder of a site back from the backup `source`, with the sealing key in `key_file`, which is put back too.

    All of the backup is checked before anything is written. Raises FolderError, RequestError for the wrong run, site, key, if
    there is a folder (nothing is restored over), or if consent was withdrawn or the data destroyed since; SealError,
    ArchiveError for a backup that is damaged or another key's.
    """
    home = RunFolder(run).site_named(site).path
    if home.exists() or home.is_symlink():
        raise RequestError(f"{site} has a folder in this run, and nothing is restored over. Move it away first.")
    key = SealingKey.load(key_file, passphrase)
    record = verify_backup(source, key)
    if record.name != site:
        raise RequestError(f"this is a backup of {record.name!r}, not of {site!r}. Choose the site's own.")
    withdrawn = [each.line for each in read_withdrawals(run) if each.site == site and each.line >= record.lines]
    if withdrawn or any(each > record.lines for each in told(run, site, "withdrawal")):
        raise RequestError(
            "this backup was made before consent was withdrawn at the site, and holds what was made of the data. Destroy it; "
            "restore one that was made later, or run the scenario anew."
        )
    if any(each > record.lines for each in told(run, site, "destruction")):
        raise RequestError(
            "this backup was made before what the site held was destroyed, and holds it. Destroy the backup too, and what is "
            "left of its key."
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    restore_backup(source, home, key)
    write_secret(home / SEALING_KEY, key_file.read_bytes())
    open_ledger(home, site).append("backup", {**_facts(record, source), "what": "restored"})
    return record


def check(run: Path, site: str, passphrase: str | None = None) -> tuple[Checked, ...]:
    """Whether every file that is to be sealed at a sealed site opens to its last byte, and none lies open.

    Raises FolderError, RequestError for the wrong run, site or key, and for a site whose policy keeps its vault plain.
    """
    home = RunFolder(run).site_named(site).path
    _refuse_plain(home, site)
    found = tuple(_checked(home, sealing_key(home, passphrase)))
    faults = sum(bool(each.fault) for each in found)
    facts: dict[str, ledger.Fact] = {"clause": "5.4.2-b", "faults": faults, "files": len(found), "what": "checked"}
    open_ledger(home, site).append("storage", facts)
    return found


def export(run: Path, site: str, target: Path, passphrase: str | None = None, *, who: str = "") -> int:
    """Open the predictions of a sealed site into the new folder `target` (0700), as ``<code>_<phase>.nii.gz`` on their own
    grids; returns how many. They name patients: the folder is for the hospital itself. who: the data manager who does it, by
    the id in ``staff.toml``, if the site has one.

    Raises FolderError, RequestError for the wrong run, site, key or target, and where there is nothing; SealError for a vault
    that was changed. Then nothing is there.
    """
    home = RunFolder(run).site_named(site).path
    _refuse_plain(home, site)
    role = data_manager(home, who, "open predictions")
    if target.exists() or target.is_symlink():
        raise RequestError(f"{target.name} exists already, and nothing is written over. Choose a new folder.")
    key = sealing_key(home, passphrase)
    notes, vault, book = Notes(home, key), Vault(home / "vault", key), open_ledger(home, site)
    people = COHORT.validate_json(notes.read(PARTICIPANTS)).test if notes.has(PARTICIPANTS) else ()
    files = {
        prediction_name(row, time): f"{one.code}_{time}.nii.gz" for row, one in enumerate(people) for time in one.frames
    }
    there = {name: file for name, file in files.items() if vault.has(name)}
    if not there:
        raise RequestError(f"{site} holds no predictions; run the scenario to its end first.")
    draft = target.with_name(f".{target.name}.draft")
    with disk(target.name, "written"):
        draft.mkdir(mode=0o700)
        try:
            for name, file in there.items():
                kept = vault.load(name)
                (part,) = parts_of(file)
                if "header" not in kept:
                    raise RequestError(
                        "the predictions were made by an earlier version, which kept no header of the images. Run the scenario "
                        "again into a new folder."
                    )
                write_mask(draft / part, kept["mask"], kept["header"].tobytes())
                (draft / part).chmod(0o600)
            book.append("access", _opened("predictions", len(there), who, role))
            os.replace(draft, target)
        except BaseException:
            shutil.rmtree(draft)
            raise
    return len(there)


def show(run: Path, site: str, note: str, passphrase: str | None = None, *, who: str = "") -> bytes:
    """What stands in a note of the site's program (`site.notes.NOTES`), opened. who: as for `export`.

    Raises FolderError, RequestError for the wrong run, site, key, person or note; SealError if the note was changed.
    """
    home = RunFolder(run).site_named(site).path
    if note not in NOTES:
        raise RequestError(f"a site has no note {note!r}; it may have: {', '.join(NOTES)}")
    role = data_manager(home, who, "open notes")
    notes = Notes(home, sealing_key(home, passphrase) if is_sealed(home) else None)
    if not notes.has(note):
        raise RequestError(f"{site} has no {note}: nothing of the kind was noted.")
    body = notes.read(note)
    open_ledger(home, site).append("access", _opened(note, 1, who, role))
    return body


def _opened(what: str, files: int, who: str, role: str) -> dict[str, ledger.Fact]:
    """What a ledger line says of sealed files that were opened, and by whom."""
    return {"by": who, "clause": "5.4.2-d", "files": files, "object": what, "role": role, "what": OPENED}


def _facts(record: Backup, path: Path) -> dict[str, ledger.Fact]:
    """What a ledger line says of a backup: no names of files."""
    return {
        "bytes": path.stat().st_size,
        "clause": "5.4.2-c",
        "files": len(record.members),
        "made": record.made.isoformat(),
        "sha256": digest_of(path),
    }


def _checked(home: Path, key: SealingKey) -> Iterator[Checked]:
    for path in sorted([*(home / "vault").glob("*"), *home.glob("*.sealed")]):
        name = path.relative_to(home).as_posix()
        if path.suffix == ".sealed":
            yield Checked(name, _fault(partial(_open, path, key)))
        elif path.name != "key.pem":
            yield Checked(name, "it lies open: it is not sealed")
    for name in NOTES:
        if (home / name).exists():
            yield Checked(name, "it lies open: it is not sealed")
    if left := sum(1 for _ in (home / "predictions").glob("*")):
        yield Checked("predictions", f"{left} files lie open: they are not sealed")
    for path in sorted((home / ARCHIVES).glob("*.archive")):
        yield Checked(path.relative_to(home).as_posix(), _fault(partial(verify_archive, path, key, path.stem)))


def _open(path: Path, key: SealingKey) -> None:
    for _ in key.open_stream(path.name, pieces(path)):
        pass


def _fault(opening: Callable[[], object]) -> str:
    """What `opening` raises, in words; empty if nothing."""
    try:
        opening()
    except (FedprivsegError, OSError) as fault:
        return str(fault)
    return ""


def _refuse_plain(home: Path, site: str) -> None:
    if not is_sealed(home):
        raise RequestError(
            f'the vault of {site} is plain, as its policy says: its files lie open. Set at_rest = "encrypted" in it.'
        )
