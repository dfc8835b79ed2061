"""Archives of a site: what a study made there, taken out of daily use, compressed, sealed and kept for a stated term.

T/SCGS 313008-2024 clauses 5.7-a (class, level and term decided for each), 5.7-b (a term that ends), 5.7-c (only who may opens
one), 5.7-d (compressed and encrypted). Every act is a line of the site's ledger.

An archive holds what the vault and the notes of the site hold, opened, so that it can be compressed; it is sealed under the
site's key. Who holds that key can open it. Where the site has a ``staff.toml`` the key is not enough: a data manager of that
file must ask. The originals stay; `destruction` removes them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

from fedprivseg.core.errors import FedprivsegError, RequestError
from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.access.staff import data_manager
from fedprivseg.governance.ledger.format import SUBJECTS, Fact
from fedprivseg.governance.ledger.ledger import enrolled, open_ledger, read
from fedprivseg.governance.lifecycle.archive import Manifest, archive, read_manifest, restore, verify_archive
from fedprivseg.governance.lifecycle.bundle import Source, digest_of, pieces
from fedprivseg.governance.policy.levels import CLASSES
from fedprivseg.governance.policy.profile import read_policy
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import INTAKE, NOTES, Notes
from fedprivseg.governance.sitefolder.vault import ARCHIVES, POLICY, is_sealed, sealing_key

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class Listed:
    """One archive of a site. manifest: None if it does not open, with the `fault`. due: whether its term has ended."""

    name: str
    manifest: Manifest | None
    due: bool
    fault: str


def create(
    run: Path, site: str, name: str, *, keep_until: date | None = None, who: str = "", passphrase: str | None = None
) -> Manifest:
    """Archive what the site's vault, predictions and notes hold as `name`, and read all of it again.

    keep_until: the day on which its term ends; None for the longest term of the site's policy (``retention_days``). who: the
    data manager who does it, by the id in ``staff.toml``, if the site has one.

    Raises FolderError, RequestError for the wrong run, site, key, name, person or term, and where there is nothing to archive;
    SealError, ArchiveError if what is to be archived was changed. Then there is no archive.
    """
    home, key = _opened(run, site, who, passphrase)
    target = _place(home, name)
    scenario = read_scenario(run)
    if scenario.study.data not in CLASSES:
        raise RequestError(
            f"data of type {scenario.study.data!r} has no class in Table 1; types are: {', '.join(CLASSES)}"
        )
    notes = Notes(home, key)
    if not notes.has(INTAKE):
        raise RequestError(f"{site} took nobody in, so there is nothing to archive. Run the scenario first.")
    until = _term(home, _today(home), keep_until)
    book = open_ledger(home, site)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    archive(
        _contents(home, key, notes),
        target,
        key,
        name=name,
        data_class=CLASSES[scenario.study.data],
        level=json.loads(notes.read(INTAKE))["facts"]["level"],
        keep_until=until,
        made=datetime.now(UTC),
        made_by=who or f"holder of key {book.public_hex[:16]}",
    )
    try:
        manifest = verify_archive(target, key, name)
        sizes = {"bytes": target.stat().st_size, "content": sum(member.size for member in manifest.members)}
        facts = {**manifest.facts, **sizes, "by": manifest.made_by, "sha256": digest_of(target)}
        facts[SUBJECTS] = enrolled(read(book.path))
        book.append("archive", {**facts, "what": "made and verified"})
    except BaseException:
        target.unlink()
        raise
    return manifest


def listed(run: Path, site: str, *, who: str = "", passphrase: str | None = None) -> tuple[Listed, ...]:
    """The archives of a site by name; one that does not open is said to be such. Raises FolderError, RequestError for the wrong
    run, site, key or person."""
    home, key = _opened(run, site, who, passphrase)
    today, found = _today(home), []
    for path in sorted((home / ARCHIVES).glob("*.archive")):
        try:
            manifest = read_manifest(path, key, path.stem)
            found.append(Listed(path.stem, manifest, manifest.keep_until <= today, ""))
        except FedprivsegError as fault:
            found.append(Listed(path.stem, None, False, str(fault)))
    book = open_ledger(home, site)
    facts: dict[str, Fact] = {
        "by": who or f"holder of key {book.public_hex[:16]}",
        "clause": "5.7-c",
        "files": len(found),
    }
    book.append("archive", {**facts, "what": "listed"})
    return tuple(found)


def take_out(
    run: Path, site: str, name: str, target: Path, *, who: str = "", passphrase: str | None = None
) -> Manifest:
    """The files of the archive `name` in the new folder `target` (0700), verified, all of them or none.

    They are readable there. Raises FolderError, RequestError for the wrong run, site, key, name, person or target; SealError,
    ArchiveError for an archive that was changed.
    """
    home, key = _opened(run, site, who, passphrase)
    source = home / ARCHIVES / f"{name}.archive"
    names = sorted(path.stem for path in (home / ARCHIVES).glob("*.archive"))
    if name not in names:
        raise RequestError(f"{site} has no archive {name!r}; it has: {', '.join(names) or 'none'}")
    book = open_ledger(home, site)
    manifest = restore(source, target, key, name)
    facts = {**manifest.facts, "by": who or f"holder of key {book.public_hex[:16]}", "clause": "5.7-c"}
    try:
        book.append("archive", {**facts, "what": "restored"})
    except BaseException:
        shutil.rmtree(target)  # nobody is given what the ledger could not be told
        raise
    return manifest


def _opened(run: Path, site: str, who: str, passphrase: str | None) -> tuple[Path, SealingKey]:
    """The site's folder and key, for who may have them (5.7-c)."""
    home = RunFolder(run).site_named(site).path
    data_manager(home, who, "open archives")
    return home, sealing_key(home, passphrase)


def _place(home: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise RequestError(f"{name!r} is no name for an archive; allowed are a-z, 0-9 and '-', at most 64 of them")
    target = home / ARCHIVES / f"{name}.archive"
    if target.exists():
        raise RequestError(f"there is an archive {name!r} already, and nothing is written over. Choose another name.")
    return target


def _today(home: Path) -> date:
    return SiteConfiguration.read(home / "station.json").today or date.today()


def _term(home: Path, today: date, asked: date | None) -> date:
    """The day on which the archive's term ends: what was asked for, within the site's policy."""
    days = read_policy(home / POLICY).retention_days
    longest = None if days is None else today + timedelta(days=days)
    if asked is None and longest is None:
        raise RequestError("the site's policy states no term (retention_days); give one: --keep-until YYYY-MM-DD")
    until = asked or longest
    assert until is not None
    if until <= today or (longest is not None and until > longest):
        last = "" if longest is None else f" and by {longest} at the latest, as its policy says"
        raise RequestError(f"an archive's term ends after {today}{last}; given {until}")
    return until


def _contents(home: Path, key: SealingKey, notes: Notes) -> dict[str, Source]:
    """What goes into an archive, by name; sealed files opened as they are read."""
    ends = ".sealed" if is_sealed(home) else ".safetensors"
    found: dict[str, Source] = {}
    for path in sorted((home / "vault").glob(f"*{ends}")):
        found[f"{path.stem}.safetensors"] = _content(path, key)
    for path in sorted((home / "predictions").glob("*")):
        found[path.name] = path
    for name in NOTES:
        if notes.has(name):
            found[name] = _content(notes.path(name), key)
    return found


def _content(path: Path, key: SealingKey) -> Source:
    return partial(_unsealed, path, key) if path.suffix == ".sealed" else path


def _unsealed(path: Path, key: SealingKey) -> Iterator[bytes]:
    return key.open_stream(path.name, pieces(path))
