"""Encryption at rest at one site: its key, the check that everything opens, and what the hospital decrypts for itself.

T/SCGS 313008-2024 clauses 5.4.1, 5.4.2-a (control of storage), 5.4.2-b (integrity). Every act is a line of the site's ledger.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

from fedprivseg.core.errors import FedprivsegError, RequestError
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.access.staff import OPENED, data_manager
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.ledger import open_ledger
from fedprivseg.governance.lifecycle import inventory
from fedprivseg.governance.lifecycle.archive import verify_archive
from fedprivseg.governance.lifecycle.bundle import disk, parts_of, pieces
from fedprivseg.governance.sitefolder.notes import NOTES, PARTICIPANTS, Notes
from fedprivseg.governance.sitefolder.vault import Vault, is_sealed, prediction_name, sealing_key
from fedprivseg.imaging.splits import COHORT
from fedprivseg.imaging.volumes import write_mask

_PLAINTEXT = "it lies in plaintext: it is not encrypted"


@final
@dataclass(frozen=True)
class Checked:
    """One file of a site that encrypts.

    Attributes:
        name: relative to the site's folder.
        fault: why it does not open, or that it lies in plaintext; empty if all is well.
    """

    name: str
    fault: str


def make_key(run: Path, site: str, passphrase: str | None = None) -> SealingKey:
    """A new sealing key for a site that has none, encrypted under `passphrase` if that is given. Raises RequestError if the
    site has a key, or encrypted files without one: a new key would not open these."""
    folder = RunFolder(run).site_named(site)
    left = [*folder.vault.glob("*.sealed"), *folder.path.glob("*.sealed")]
    if left and not folder.sealing_key.exists():
        raise RequestError(
            f"{site} has {len(left)} encrypted files and no {folder.sealing_key.name}: only the key that was lost opens them. "
            "Put that key back, or move the files away first."
        )
    if not folder.path.exists():
        raise RequestError(f"the folder of {site} is not there. Restore it from a backup: `fedprivseg vault restore`.")
    book = open_ledger(folder.path, site)
    key = SealingKey.create(folder.sealing_key, passphrase)
    protection = "mode 0600" if passphrase is None else "passphrase, mode 0600"
    book.append("storage", {"clause": "5.4.2-a", "key": key.id, "protection": protection, "what": "sealing key made"})
    return key


def check(run: Path, site: str, passphrase: str | None = None) -> tuple[Checked, ...]:
    """Whether every file that is to be encrypted opens to its last byte, and none lies in plaintext. Raises RequestError for a
    site whose policy keeps its vault in plaintext."""
    folder = _encrypting(run, site)
    found = tuple(_checked(folder, sealing_key(folder.path, passphrase)))
    faults = sum(bool(each.fault) for each in found)
    facts: dict[str, Fact] = {"clause": "5.4.2-b", "faults": faults, "files": len(found), "what": "checked"}
    open_ledger(folder.path, site).append("storage", facts)
    return found


def export(run: Path, site: str, target: Path, passphrase: str | None = None, *, who: str = "") -> int:
    """Decrypt the predictions of a site, as ``<code>_<phase>.nii.gz`` on their own grids; how many. They name patients: the
    folder is for the hospital itself.

    Args:
        run: the run's folder.
        site: its name.
        target: a new folder (0700); on an exception it is not there.
        passphrase: of the site's key, see `sealing_key`.
        who: the data manager who does it, by the id in ``staff.toml``, if the site has one.

    Raises:
        RequestError: the wrong site, key, person or target, or there are none.
        SealError: the vault was changed.
    """
    folder = _encrypting(run, site)
    role = data_manager(folder.path, who, "open predictions")
    if target.exists() or target.is_symlink():
        raise RequestError(f"{target.name} exists already, and nothing is written over. Choose a new folder.")
    key = sealing_key(folder.path, passphrase)
    notes, vault, book = Notes(folder.path, key), Vault(folder.vault, key), open_ledger(folder.path, site)
    people = COHORT.validate_json(notes.read(PARTICIPANTS)).test if notes.has(PARTICIPANTS) else ()
    there = {
        f"{one.code}_{time}.nii.gz": name
        for row, one in enumerate(people)
        for time in one.frames
        if vault.has(name := prediction_name(row, time))
    }
    if not there:
        raise RequestError(f"{site} holds no predictions; run the scenario to its end first.")
    draft = target.with_name(f".{target.name}.draft")
    with disk(target.name, "written"):
        draft.mkdir(mode=0o700)
        try:
            for file, name in there.items():
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
    """What stands in a note of the site's program (one of `NOTES`), decrypted. Other arguments and errors as of `export`."""
    folder = RunFolder(run).site_named(site)
    if note not in NOTES:
        raise RequestError(f"a site has no note {note!r}; it may have: {', '.join(NOTES)}")
    role = data_manager(folder.path, who, "open notes")
    notes = Notes(folder.path, sealing_key(folder.path, passphrase) if is_sealed(folder.path) else None)
    if not notes.has(note):
        raise RequestError(f"{site} has no {note}: nothing of the kind was noted.")
    body = notes.read(note)
    open_ledger(folder.path, site).append("access", _opened(note, 1, who, role))
    return body


def _opened(what: str, files: int, who: str, role: str) -> dict[str, Fact]:
    """What a ledger line says of files that were decrypted, and by whom."""
    return {"by": who, "clause": "5.4.2-d", "files": files, "object": what, "role": role, "what": OPENED}


def _checked(folder: SiteFolder, key: SealingKey) -> Iterator[Checked]:
    for path in sorted([*folder.vault.glob("*"), *folder.path.glob("*.sealed")]):
        name = path.relative_to(folder.path).as_posix()
        if path.suffix == ".sealed":
            yield Checked(name, _fault(partial(_read, path, key)))
        elif path != folder.key:
            yield Checked(name, _PLAINTEXT)
    for path in inventory.lists(folder):
        if path.suffix != ".sealed":
            yield Checked(path.name, _PLAINTEXT)
    if left := len(inventory.predictions(folder)):
        yield Checked("predictions", f"{left} files lie in plaintext: they are not encrypted")
    for path in inventory.archives(folder):
        yield Checked(path.relative_to(folder.path).as_posix(), _fault(partial(verify_archive, path, key, path.stem)))


def _read(path: Path, key: SealingKey) -> None:
    for _ in key.open_stream(path.name, pieces(path)):
        pass


def _fault(opening: Callable[[], object]) -> str:
    """What `opening` raises, in words; empty if nothing."""
    try:
        opening()
    except (FedprivsegError, OSError) as fault:
        return str(fault)
    return ""


def _encrypting(run: Path, site: str) -> SiteFolder:
    """The folder of a site that encrypts at rest. Raises RequestError for another."""
    folder = RunFolder(run).site_named(site)
    if not is_sealed(folder.path):
        raise RequestError(
            f'the vault of {site} is plain, as its policy says: its files lie in plaintext. Set at_rest = "encrypted" in it.'
        )
    return folder
