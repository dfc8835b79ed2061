"""How the clauses on storage (5.4) and archives (5.7) of T/SCGS 313008-2024 are judged: on a site's files and on its ledger.

A backup or an archive counts when the site's ledger says that it was made and verified. Where the files still lie at the site
they are held against that line.
"""

from __future__ import annotations

import stat
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from fedprivseg.crypto.sealed_files import MAGIC
from fedprivseg.governance.lifecycle.bundle import digest_of
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import NOTES
from fedprivseg.governance.sitefolder.vault import ARCHIVES, POLICY, SEALING_KEY

if TYPE_CHECKING:
    from fedprivseg.governance.compliance.evidence import Evidence, Papers, Verdict
    from fedprivseg.governance.ledger.line import Line

_DATA = ("enrolment", "release", "withdrawal")
"""Events after which a backup is not of what the site has."""


def storage_controlled(evidence: Evidence) -> Verdict:
    """5.4.1: what is stored is sealed, and nobody but the site's account can reach it."""
    where = [f"sites/{site.name}/vault" for site in evidence.sites if (site.home / "vault").exists()]
    if plain := _open_at(evidence):
        why = f"Files that name or show patients lie open on the disk of {', '.join(plain)}."
        return "broken", why, where, 'Set at_rest = "encrypted" in the policy, and run the scenario anew.'
    shared = [
        site.name
        for site in evidence.sites
        if any(
            _shared(path)
            for path in (site.home, site.home / SEALING_KEY, site.home / "vault", *(site.home / "vault").glob("*"))
        )
    ]
    if shared:
        why = f"Other accounts of the machine can reach the folder, the vault or its key at {', '.join(shared)}."
        return "broken", why, where, "Set files to mode 0600 and folders to 0700, and change what may have been read."
    return "kept", "What a site stores is sealed, and its own account alone can reach it.", where, ""


def storage_policy(evidence: Evidence) -> Verdict:
    """5.4.2-a: each site states how it stores, and for how long."""
    without = [site.name for site in evidence.sites if site.policy is None]
    where = [f"sites/{site.name}/{POLICY}" for site in evidence.sites if site.policy is not None]
    if without:
        why = f"{', '.join(without)} state no rules of storage that can be read."
        return "broken", why, where, f"Write a {POLICY}."
    return "kept", "Each site's policy states whether its vault is encrypted, and its program keeps to it.", where, ""


def integrity(evidence: Evidence) -> Verdict:
    """5.4.2-b: every sealed file is authenticated, and the last check of each site found no fault."""
    where = [f"sites/{site.name}/vault" for site in evidence.sites if (site.home / "vault").exists()]
    if plain := _open_at(evidence):
        why = f"Files lie open on the disk of {', '.join(plain)}: a change would not be noticed."
        return "broken", why, where, 'Set at_rest = "encrypted" in the policy, and run the scenario anew.'
    last = {site.name: _last(site, "storage", "checked") for site in evidence.sites}
    bad = [f"{name}:{line.index}" for name, line in last.items() if line is not None and line.facts.get("faults")]
    if bad:
        why = "The last check of a vault found files that do not open."
        return "broken", why, bad, "Keep them as evidence and restore the site: fedprivseg vault restore."
    done = [f"{name}:{line.index}" for name, line in last.items() if line is not None]
    return (
        "kept",
        "Every array and note at a site is sealed (AES-256-GCM); one changed byte is noticed.",
        done or where,
        "",
    )


def backed_up(evidence: Evidence) -> Verdict:
    """5.4.2-c: each site that holds data has a verified backup of it, no older than the data."""
    holders = [site for site in evidence.sites if site.of("enrolment")]
    if not holders:
        return "not applicable", "No site took anybody in.", [], ""
    lacking, stale, where = [], [], []
    for site in holders:
        last = _last(site, "backup", "made and verified")
        if last is None:
            lacking.append(site.name)
            continue
        where.append(f"{site.name}:{last.index}")
        if any(line.index > last.index and line.event in _DATA for line in site.lines):
            stale.append(site.name)
    mend = "Back each site up, by a timer: fedprivseg vault backup."
    if lacking:
        return "broken", f"No verified backup at {', '.join(lacking)}.", where, mend
    if stale:
        return "broken", f"The last backup at {', '.join(stale)} is older than what the site holds.", where, mend
    return (
        "kept",
        "Each site has a backup that was read to its end after it was made, and holds all that the site does.",
        where,
        "",
    )


def archive_policy(evidence: Evidence) -> Verdict:
    """5.7-a: each archive has a class, a level and a term that the site's policy allows."""
    lines, where = _archived(evidence)
    if not lines:
        return _NOTHING
    unstated = [
        f"{site.name}:{line.index}" for site, line in lines if not {"class", "level", "keep_until"} <= set(line.facts)
    ]
    if unstated:
        return "broken", "Archives without class, level or term.", unstated, "Archive anew: fedprivseg archive create."
    return "kept", "Each archive states class, level and the end of its term, within the site's policy.", where, ""


def archive_procedure(evidence: Evidence) -> Verdict:
    """5.7-b: by life cycle; no archive is kept beyond its term."""
    lines, where = _archived(evidence)
    if not lines:
        return _NOTHING
    late = [
        f"{site.name}:{line.index}"
        for site, line in lines
        if _place(site, line).exists() and date.fromisoformat(str(line.facts["keep_until"])) <= _today(site)
    ]
    if late:
        return "broken", "Archives are kept beyond their term.", late, "Destroy them, and all their copies."
    return "kept", "No archive is kept beyond its term.", where, ""


def archive_closed(evidence: Evidence) -> Verdict:
    """5.7-c: no access for the unauthorised."""
    lines, where = _archived(evidence)
    if not lines:
        return _NOTHING
    files = [path for site in evidence.sites for path in (site.home / ARCHIVES, *(site.home / ARCHIVES).glob("*"))]
    if shared := [str(path.relative_to(evidence.run)) for path in files if _shared(path)]:
        why = "Other accounts of the machine can reach archives."
        return "broken", why, shared, "Set files to mode 0600 and folders to 0700."
    why = "Only the site's own account reaches them, only its key opens them, and the ledger says by whom they were opened."
    return "kept", why, where, ""


def archive_sealed(evidence: Evidence) -> Verdict:
    """5.7-d: compressed and encrypted; each is what the ledger says that was written."""
    lines, where = _archived(evidence)
    if not lines:
        return _NOTHING
    bad = []
    for site, line in lines:
        path = _place(site, line)
        if path.exists():
            if not _sealed(path) or digest_of(path) != line.facts.get("sha256"):
                bad.append(f"{site.name}:{line.index}")
        elif not _removed(evidence, site, line):
            bad.append(f"{site.name}:{line.index}")
    if bad:
        why = "An archive is gone, or is not what was written and verified."
        return "broken", why, bad, "Keep what is there as evidence and restore the archive from a backup."
    stored = sum(int(str(line.facts.get("bytes", 0))) for _, line in lines)
    content = sum(int(str(line.facts.get("content", 0))) for _, line in lines)
    why = f"Each is sealed (AES-256-GCM) and was read to its end; {content} bytes take {stored}."
    return "kept", why, where, ""


_NOTHING: Verdict = ("not applicable", "Nothing was archived in this run.", [], "")


def _archived(evidence: Evidence) -> tuple[list[tuple[Papers, Line]], list[str]]:
    """The lines of archives that were made, and where they stand."""
    lines = [(site, line) for site, line in evidence.lines("archive") if line.facts.get("what") == "made and verified"]
    return lines, [f"{site.name}:{line.index}" for site, line in lines]


def _place(site: Papers, line: Line) -> Path:
    return site.home / ARCHIVES / f"{line.facts['archive']}.archive"


def _removed(evidence: Evidence, site: Papers, line: Line) -> bool:
    """Whether the ledger says, later, that the archive was removed with a subject's consent, or destroyed."""
    name = str(_place(site, line).relative_to(evidence.run))
    gone = [later for later in site.of("withdrawal") if later.index > line.index]
    if any(name in later.facts.get("at_sites", []) for later in gone):  # type: ignore[operator]
        return True
    return any(later.index > line.index and name in str(later.facts) for later in site.of("destruction"))


def _last(site: Papers, event: str, what: str) -> Line | None:
    return next((line for line in reversed(site.of(event)) if line.facts.get("what") == what), None)


def _open_at(evidence: Evidence) -> list[str]:
    """The sites on whose disk arrays, predictions or notes of patients lie open."""
    return [
        site.name
        for site in evidence.sites
        if any((site.home / "vault").glob("*.safetensors"))
        or any((site.home / "predictions").glob("*"))
        or any((site.home / note).exists() for note in NOTES)
    ]


def _shared(path: Path) -> bool:
    return path.exists() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _sealed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _today(site: Papers) -> date:
    return SiteConfiguration.read(site.home / "station.json").today or date.today()
