"""Checks of the clauses on storage and archives: by a site's files and its ledger.

A backup or an archive counts when the site's ledger says that it was made and verified. Where the files still lie at the site
they are compared with that line.
"""

from __future__ import annotations

import stat
from datetime import date
from pathlib import Path

from fedprivseg.crypto.sealed_files import MAGIC
from fedprivseg.governance.compliance.evidence import Evidence, SiteEvidence
from fedprivseg.governance.compliance.verdict import Verdict, broken, kept, not_applicable
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle.bundle import digest_of
from fedprivseg.governance.lifecycle.inventory import archives, lists, vault_files
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.vault import ARCHIVES

_DATA = ("enrolment", "release", "withdrawal")
"""Events after which a backup is older than what the site has."""

_ENCRYPT = 'Set at_rest = "encrypted" in the policy, and run the scenario again.'
_NOTHING = not_applicable("Nothing was archived in this run.")


def storage_controlled(evidence: Evidence) -> Verdict:
    """What is stored is encrypted, and nobody but the site's account can reach it."""
    where = _vaults(evidence)
    if plain := _plaintext_at(evidence):
        why = f"Files that name or show patients lie in plaintext on the disk of {', '.join(plain)}."
        return broken(why, where, _ENCRYPT)
    shared = []
    for site in evidence.sites:
        folder = site.folder
        if any(map(_shared, (folder.path, folder.sealing_key, folder.vault, *folder.vault.glob("*")))):
            shared.append(site.name)
    if shared:
        why = f"Other accounts of the machine can reach the folder, the vault or its key at {', '.join(shared)}."
        return broken(why, where, "Set files to mode 0600 and folders to 0700, and change what may have been read.")
    return kept("What a site stores is encrypted, and its own account alone can reach it.", where)


def storage_policy(evidence: Evidence) -> Verdict:
    """Each site states how it stores, and for how long."""
    if without := evidence.without_policy:
        why = f"{', '.join(without)} state no rules of storage that can be read."
        return broken(why, evidence.policies, "Write a policy.toml.")
    why = "Each site's policy states whether its vault is encrypted, and its program keeps to it."
    return kept(why, evidence.policies)


def integrity(evidence: Evidence) -> Verdict:
    """Every encrypted file is authenticated, and the last check of each site found no fault."""
    if plain := _plaintext_at(evidence):
        why = f"Files lie in plaintext on the disk of {', '.join(plain)}: a change would not be noticed."
        return broken(why, _vaults(evidence), _ENCRYPT)
    checks = [(site, line) for site in evidence.sites if (line := site.last("storage", "checked")) is not None]
    if bad := [site.at(line) for site, line in checks if line.facts.get("faults")]:
        fix = "Keep them as evidence and restore the site: fedprivseg vault restore."
        return broken("The last check of a vault found files that do not open.", bad, fix)
    why = "Every array and note at a site is encrypted (AES-256-GCM); one changed byte is noticed."
    return kept(why, [site.at(line) for site, line in checks] or _vaults(evidence))


def backed_up(evidence: Evidence) -> Verdict:
    """Each site that holds data has a verified backup of it, no older than the data."""
    holders = [site for site in evidence.sites if site.of("enrolment")]
    if not holders:
        return not_applicable("No site enrolled anybody.")
    lacking, stale, where = [], [], []
    for site in holders:
        last = site.last("backup", "made and verified")
        if last is None:
            lacking.append(site.name)
            continue
        where.append(site.at(last))
        if any(line.index > last.index and line.event in _DATA for line in site.lines):
            stale.append(site.name)
    fix = "Back each site up, by a timer: fedprivseg vault backup."
    if lacking:
        return broken(f"No verified backup at {', '.join(lacking)}.", where, fix)
    if stale:
        return broken(f"The last backup at {', '.join(stale)} is older than what the site holds.", where, fix)
    why = "Each site has a backup that was read to its end after it was made, and holds all that the site does."
    return kept(why, where)


def archive_policy(evidence: Evidence) -> Verdict:
    """Each archive has a class, a level and a term that the site's policy allows."""
    made = _archived(evidence)
    if not made:
        return _NOTHING
    unstated = [site.at(line) for site, line in made if not {"class", "level", "keep_until"} <= set(line.facts)]
    if unstated:
        fix = "Archive again: fedprivseg archive create."
        return broken("Archives without class, level or term.", unstated, fix)
    return kept("Each archive states class, level and the end of its term, within the site's policy.", _at(made))


def archive_procedure(evidence: Evidence) -> Verdict:
    """By life cycle; no archive is kept beyond its term."""
    made = _archived(evidence)
    if not made:
        return _NOTHING
    late = [
        site.at(line)
        for site, line in made
        if _place(site, line).exists() and date.fromisoformat(str(line.facts["keep_until"])) <= _today(site)
    ]
    if late:
        return broken("Archives are kept beyond their term.", late, "Destroy them, and all their copies.")
    return kept("No archive is kept beyond its term.", _at(made))


def archive_closed(evidence: Evidence) -> Verdict:
    """No access for the unauthorised."""
    made = _archived(evidence)
    if not made:
        return _NOTHING
    files = [path for site in evidence.sites for path in (site.folder.path / ARCHIVES, *archives(site.folder))]
    if shared := [evidence.relative(path) for path in files if _shared(path)]:
        why = "Other accounts of the machine can reach archives."
        return broken(why, shared, "Set files to mode 0600 and folders to 0700.")
    why = "Only the site's own account reaches them, only its key opens them, and the ledger says who opened them."
    return kept(why, _at(made))


def archive_encrypted(evidence: Evidence) -> Verdict:
    """Compressed and encrypted; each is what the ledger says that was written."""
    made = _archived(evidence)
    if not made:
        return _NOTHING
    if bad := [site.at(line) for site, line in made if not _intact(evidence, site, line)]:
        why = "An archive is gone, or is not what was written and verified."
        return broken(why, bad, "Keep what is there as evidence and restore the archive from a backup.")
    stored, content = (sum(int(str(line.facts.get(fact, 0))) for _, line in made) for fact in ("bytes", "content"))
    return kept(f"Each is encrypted (AES-256-GCM) and was read to its end; {content} bytes take {stored}.", _at(made))


def _archived(evidence: Evidence) -> list[tuple[SiteEvidence, Line]]:
    """The lines of archives that were made."""
    return [(site, line) for site, line in evidence.lines("archive") if line.facts.get("what") == "made and verified"]


def _at(lines: list[tuple[SiteEvidence, Line]]) -> list[str]:
    return [site.at(line) for site, line in lines]


def _place(site: SiteEvidence, line: Line) -> Path:
    return site.folder.path / ARCHIVES / f"{line.facts['archive']}.archive"


def _intact(evidence: Evidence, site: SiteEvidence, line: Line) -> bool:
    """Whether the archive is as it was written, or a later line says that it was deleted on a withdrawal, or destroyed."""
    path = _place(site, line)
    if path.exists():
        with path.open("rb") as file:
            encrypted = file.read(len(MAGIC)) == MAGIC
        return encrypted and digest_of(path) == line.facts.get("sha256")
    name = evidence.relative(path)
    later = [each for each in site.lines if each.index > line.index]
    withdrawn = any(each.event == "withdrawal" and name in str(each.facts.get("at_sites", [])) for each in later)
    return withdrawn or any(each.event == "destruction" and name in str(each.facts) for each in later)


def _vaults(evidence: Evidence) -> list[str]:
    return [evidence.relative(site.folder.vault) for site in evidence.sites if site.folder.vault.exists()]


def _plaintext_at(evidence: Evidence) -> list[str]:
    """The sites on whose disk arrays, predictions or notes of patients lie in plaintext."""
    return [
        site.name
        for site in evidence.sites
        if any(path.suffix == ".safetensors" for path in vault_files(site.folder))
        or any(site.folder.predictions.glob("*"))
        or any(path.suffix != ".sealed" for path in lists(site.folder))
    ]


def _shared(path: Path) -> bool:
    return path.exists() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _today(site: SiteEvidence) -> date:
    return SiteConfiguration.read(site.folder.configuration).today or date.today()
