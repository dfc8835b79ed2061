"""Archives of a site: what a study made there, out of daily use, compressed, encrypted and kept for a stated term.

T/SCGS 313008-2024 clauses 5.7-a (class, level and term decided for each), 5.7-b (a term that ends), 5.7-c (only who may opens
one), 5.7-d (compressed and encrypted). The format is that of a bundle (`bundle`). Every act is a line of the site's ledger.

An archive belongs to one class and one level, so that its term and its destruction are one decision (5.7-a, 5.8-c). It holds
what the vault and the notes of the site hold, decrypted, so that it can be compressed; it is encrypted under the site's key.
Who holds that key can open it. Where the site has a ``staff.toml`` the key is not enough: a data manager of that file must ask.
The originals stay; `destruction` removes them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import final

from pydantic import Field

from fedprivseg.core.errors import FedprivsegError, RequestError
from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.core.validation import validated
from fedprivseg.crypto.identity import canonical
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.access.staff import data_manager
from fedprivseg.governance.ledger.format import SUBJECTS, Fact
from fedprivseg.governance.ledger.ledger import Ledger, enrolled, open_ledger, read
from fedprivseg.governance.lifecycle import bundle, inventory
from fedprivseg.governance.lifecycle.bundle import (
    Record,
    Source,
)
from fedprivseg.governance.policy.levels import CLASSES, DataClass
from fedprivseg.governance.policy.profile import read_policy
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import INTAKE, NOTES, Notes
from fedprivseg.governance.sitefolder.vault import ARCHIVES, is_sealed, sealing_key

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@final
class Manifest(Record):
    """What an archive says of itself.

    Attributes:
        name: under which alone it opens, so that none can be put in another's place.
        data_class: of what is in it.
        level: of what is in it.
        keep_until: the day on which its term ends.
    """

    name: str = Field(min_length=1)
    data_class: DataClass
    level: int = Field(ge=1, le=5, strict=True)
    keep_until: date

    @property
    def tree(self) -> tuple[str, ...]:
        """No folders: an archive is flat."""
        return ()

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What a ledger line says of the archive: no names of files."""
        return {
            "archive": self.name,
            "class": self.data_class.value,
            "clause": "5.7-d",
            "digest": hashlib.sha256(canonical(self.model_dump(mode="json"))).hexdigest(),
            "files": len(self.members),
            "keep_until": self.keep_until.isoformat(),
            "level": self.level,
        }


def archive(files: Mapping[str, Source], target: Path, key: SealingKey, **stated: object) -> Manifest:
    """Write an archive. The files stay where they are; each is read twice. On an exception there is no archive.

    Args:
        files: by the name that each has in the archive, without ``/``.
        target: a new file.
        key: it is encrypted under.
        stated: the fields of the manifest but its members.

    Raises:
        RequestError: a name or a file will not do, or the disk cannot be used.
        ArchiveError: a file changes meanwhile.
    """
    if any(len(bundle.requested_parts(label)) != 1 for label in files):
        raise RequestError("the names of files in an archive hold no '/'. Use a backup for a tree of folders.")
    manifest = validated(Manifest, {**stated, "members": bundle.examined(files)}, "the archive")
    bundle.write(target, key, _sealed_name(manifest.name), manifest, list(files.values()))
    return manifest


def read_manifest(source: Path, key: SealingKey, name: str) -> Manifest:
    """The manifest of the archive `name` in the file `source`; the rest is not read. Raises SealError, ArchiveError."""
    with bundle.disk("the archive", "read"):
        return bundle.opened(source, key, _sealed_name(name), Manifest)[0]


def verify_archive(source: Path, key: SealingKey, name: str) -> Manifest:
    """The manifest of the archive `name`, after every file in it was checked against it. Raises SealError, ArchiveError."""
    with bundle.disk("the archive", "read"):
        return bundle.verified(source, key, _sealed_name(name), Manifest)


def restore(source: Path, target: Path, key: SealingKey, name: str) -> Manifest:
    """The files of the archive `name` in the new folder `target`; see `bundle.restored`."""
    return bundle.restored(source, target, key, _sealed_name(name), Manifest)


def _sealed_name(name: str) -> str:
    return f"fedprivseg archive 1: {name}"


@final
@dataclass(frozen=True)
class Listed:
    """One archive of a site.

    Attributes:
        manifest: None if it does not open.
        due: whether its term has ended.
        fault: why it does not open.
    """

    name: str
    manifest: Manifest | None = None
    due: bool = False
    fault: str = ""


def create(
    run: Path, site: str, name: str, *, keep_until: date | None = None, who: str = "", passphrase: str | None = None
) -> Manifest:
    """Archive what the site's vault, predictions and notes hold, and read all of it again; on an exception there is no archive.

    Args:
        run: the run's folder.
        site: its name.
        name: of the archive.
        keep_until: the day on which its term ends; None for the longest term of the site's policy (``retention_days``).
        who: the data manager who does it, by the id in ``staff.toml``, if the site has one.
        passphrase: of the site's key, see `sealing_key`.

    Raises:
        FedprivsegError: the wrong site, key, name, person or term, nothing to archive, or a file that was changed.
    """
    folder, key = _admitted(run, site, who, passphrase)
    target = _place(folder, name)
    scenario = read_scenario(run)
    if scenario.study.data not in CLASSES:
        raise RequestError(
            f"data of type {scenario.study.data!r} has no class in Table 1; types are: {', '.join(CLASSES)}"
        )
    notes = Notes(folder.path, key)
    if not notes.has(INTAKE):
        raise RequestError(f"{site} enrolled nobody, so there is nothing to archive. Run the scenario first.")
    until = _term(folder, keep_until)
    book = open_ledger(folder.path, site)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    archive(
        _contents(folder, key, notes),
        target,
        key,
        name=name,
        data_class=CLASSES[scenario.study.data],
        level=json.loads(notes.read(INTAKE))["facts"]["level"],
        keep_until=until,
        made=datetime.now(UTC),
        made_by=_by(who, book),
    )
    try:
        manifest = verify_archive(target, key, name)
        facts: dict[str, Fact] = {
            **manifest.facts,
            "by": manifest.made_by,
            "bytes": target.stat().st_size,
            "content": sum(member.size for member in manifest.members),
            "sha256": bundle.digest_of(target),
            "what": "made and verified",
        }
        facts[SUBJECTS] = enrolled(read(book.path))
        book.append("archive", facts)
    except BaseException:
        target.unlink()
        raise
    return manifest


def listed(run: Path, site: str, *, who: str = "", passphrase: str | None = None) -> tuple[Listed, ...]:
    """The archives of a site by name; one that does not open is said to be such. Arguments and errors as of `create`."""
    folder, key = _admitted(run, site, who, passphrase)
    today, found = _today(folder), []
    for path in inventory.archives(folder):
        try:
            manifest = read_manifest(path, key, path.stem)
            found.append(Listed(path.stem, manifest, manifest.keep_until <= today))
        except FedprivsegError as fault:
            found.append(Listed(path.stem, fault=str(fault)))
    book = open_ledger(folder.path, site)
    book.append("archive", {"by": _by(who, book), "clause": "5.7-c", "files": len(found), "what": "listed"})
    return tuple(found)


def take_out(
    run: Path, site: str, name: str, target: Path, *, who: str = "", passphrase: str | None = None
) -> Manifest:
    """The files of an archive in the new folder `target` (0700), verified, all of them or none. They are readable there.
    Other arguments and errors as of `create`."""
    folder, key = _admitted(run, site, who, passphrase)
    there = {path.stem: path for path in inventory.archives(folder)}
    if name not in there:
        raise RequestError(f"{site} has no archive {name!r}; it has: {', '.join(there) or 'none'}")
    book = open_ledger(folder.path, site)
    manifest = restore(there[name], target, key, name)
    try:
        book.append("archive", {**manifest.facts, "by": _by(who, book), "clause": "5.7-c", "what": "restored"})
    except BaseException:
        shutil.rmtree(target)  # nobody is given what the ledger could not be told
        raise
    return manifest


def _admitted(run: Path, site: str, who: str, passphrase: str | None) -> tuple[SiteFolder, SealingKey]:
    """The site's folder and key, for who may have them (5.7-c)."""
    folder = RunFolder(run).site_named(site)
    data_manager(folder.path, who, "open archives")
    return folder, sealing_key(folder.path, passphrase)


def _by(who: str, book: Ledger) -> str:
    return who or f"holder of key {book.public_hex[:16]}"


def _place(folder: SiteFolder, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise RequestError(f"{name!r} is no name for an archive; allowed are a-z, 0-9 and '-', at most 64 of them")
    target = folder.path / ARCHIVES / f"{name}.archive"
    if target.exists():
        raise RequestError(f"there is an archive {name!r} already, and nothing is written over. Choose another name.")
    return target


def _today(folder: SiteFolder) -> date:
    return SiteConfiguration.read(folder.configuration).today or date.today()


def _term(folder: SiteFolder, asked: date | None) -> date:
    """The day on which the archive's term ends: what was asked for, within the site's policy."""
    today, days = _today(folder), read_policy(folder.policy).retention_days
    longest = None if days is None else today + timedelta(days=days)
    until = asked or longest
    if until is None:
        raise RequestError("the site's policy states no term (retention_days); give one: --keep-until YYYY-MM-DD")
    if until <= today or (longest is not None and until > longest):
        last = "" if longest is None else f" and by {longest} at the latest, as its policy says"
        raise RequestError(f"an archive's term ends after {today}{last}; given {until}")
    return until


def _contents(folder: SiteFolder, key: SealingKey, notes: Notes) -> dict[str, Source]:
    """What goes into an archive, by name; encrypted files are decrypted as they are read."""
    ends = ".sealed" if is_sealed(folder.path) else ".safetensors"
    found: dict[str, Source] = {
        f"{path.stem}.safetensors": _content(path, key) for path in inventory.vault_files(folder) if path.suffix == ends
    }
    found |= {path.name: path for path in inventory.predictions(folder)}
    return found | {name: _content(notes.path(name), key) for name in NOTES if notes.has(name)}


def _content(path: Path, key: SealingKey) -> Source:
    return partial(_decrypted, path, key) if path.suffix == ".sealed" else path


def _decrypted(path: Path, key: SealingKey) -> Iterator[bytes]:
    return key.open_stream(path.name, bundle.pieces(path))
