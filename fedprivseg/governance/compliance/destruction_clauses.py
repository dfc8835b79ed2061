"""Checks of the clauses on destruction: by ledger lines, certificates, and files.

A certificate counts only if it verifies, the ledger names it, and nothing that it is about can be read again
(`lifecycle.destruction.proof`). What was deleted on a patient's withdrawal counts by its ledger line and by what is left of it.
"""

from __future__ import annotations

from fedprivseg.governance.compliance.evidence import Evidence, SiteEvidence
from fedprivseg.governance.compliance.verdict import Verdict, broken, kept, not_applicable, outside_software
from fedprivseg.governance.lifecycle.destruction.certificate import Certificate
from fedprivseg.governance.lifecycle.destruction.medium import PROVES_NOTHING
from fedprivseg.governance.lifecycle.destruction.order import requirement
from fedprivseg.governance.lifecycle.destruction.proof import approved_by_another
from fedprivseg.governance.policy.policy_context import CONSENT_ENDED

_NOTHING = not_applicable("Nothing was to be destroyed in this run.")
_AGAIN = "Execute it again: fedprivseg destroy execute, or fedprivseg withdraw."


def effective(evidence: Evidence) -> Verdict:
    """Deletion is managed, and nothing can be recovered."""
    withdrawn = evidence.where("withdrawal")
    where = [*_files(evidence), *withdrawn]
    if faults := _faults(evidence):
        return broken(" ".join(faults), where, _AGAIN)
    if evidence.overdue:
        fix = "Destroy it: fedprivseg retention names what is due, fedprivseg destroy begins."
        return broken(f"Kept beyond its term: {'; '.join(evidence.overdue)}.", (), fix)
    if expired := _expired(evidence):
        why = "Consent of somebody who was enrolled has expired or was revoked, and derived artefacts are still held."
        return broken(why, expired, "Execute the withdrawal: fedprivseg withdraw RUN SITE SUBJECT.")
    if not _certificates(evidence) and not withdrawn:
        return _NOTHING
    why = "What was to go is gone: no file of the site or the server holds it, and no key that is left opens it."
    return kept(why, where)


def approved(evidence: Evidence) -> Verdict:
    """Ordered and approved by two people."""
    certificates = _certificates(evidence)
    alone = [f"{site.name}: {each.id}" for site, each in certificates if not approved_by_another(each, site.lines)]
    if alone:
        why = f"The ledger shows no approval by somebody else: {', '.join(alone)}."
        fix = "Have destructions approved by somebody else: fedprivseg destroy approve."
        return broken(why, _files(evidence), fix)
    if certificates:
        where = [
            site.at(line)
            for site, each in certificates
            for line in site.of("destruction")
            if line.facts.get("certificate") == each.facts["certificate"]
        ]
        return kept("Each was ordered by one and approved by another, both in the site's ledger.", where)
    return _withdrawals(evidence, "Ordered by the patients who withdrew; what goes is fixed.")


def by_level(evidence: Evidence) -> Verdict:
    """The method follows class and level."""
    certificates = _certificates(evidence)
    if not certificates:
        return _NOTHING
    weak = [
        f"{site.name}: {each.id} by {each.method} at level {each.level}"
        for site, each in certificates
        if each.method not in requirement(each.data_class, each.level).methods
    ]
    if weak:
        return broken(f"The method is too weak: {'; '.join(weak)}.", _files(evidence), "Order a stronger method.")
    done = sorted({f"{each.method} ({each.data_class}, level {each.level})" for _, each in certificates})
    return kept(f"By {'; '.join(done)}, as class and level ask.", _files(evidence))


def at_network(evidence: Evidence) -> Verdict:
    """What lies elsewhere than at the site."""
    certificates = _certificates(evidence)
    if left := [site.name for site, _ in certificates if evidence.run.server.shards(site.name)]:
        return broken(f"The server still has shards of {', '.join(left)}.", _files(evidence), _AGAIN)
    if count := sum(item.what == "shard" for _, each in certificates for item in each.items):
        why = (
            f"{count} files are gone at the server, found by SHA-256 and overwritten; that it kept no copy is its word."
        )
        return kept(why, _files(evidence))
    return _withdrawals(evidence, "The server's shards of those who withdrew are deleted.")


def at_media(evidence: Evidence) -> Verdict:
    """Flash, disk, tape, disc."""
    certificates = _certificates(evidence)
    if not certificates:
        return _NOTHING
    loose = sorted({site.name for site, each in certificates if any(PROVES_NOTHING in limit for limit in each.limits)})
    if loose:
        why = (
            f"At {', '.join(loose)} overwriting proves nothing; to destroy the medium is for people, and the certificate "
            "says what was arranged."
        )
        return outside_software(why, _files(evidence))
    why = "Overwritten in place, or encrypted under a key that was: each certificate names the medium."
    return kept(why, _files(evidence))


def irreversible(evidence: Evidence) -> Verdict:
    """Content and copies, irreversibly, proved by a certificate."""
    if faults := _faults(evidence):
        return broken(" ".join(faults), [*_files(evidence), *evidence.where("withdrawal")], _AGAIN)
    certificates = _certificates(evidence)
    elsewhere = [f"{site.name}: {copy}" for site, each in certificates for copy in each.elsewhere]
    if elsewhere:
        why = f"Copies out of reach are listed, and are for people to destroy: {'; '.join(elsewhere)}."
        return outside_software(why, _files(evidence))
    if certificates:
        return kept("Every certificate verifies, and its ledger line stands.", _files(evidence))
    return _withdrawals(evidence, "Derived artefacts of those who withdrew are deleted, and made again without them.")


def _certificates(evidence: Evidence) -> list[tuple[SiteEvidence, Certificate]]:
    """Those that verify."""
    return [(site, proof.certificate) for site, proof in evidence.destructions if proof.certificate is not None]


def _faults(evidence: Evidence) -> list[str]:
    """What does not hold, and what is left of subjects who withdrew."""
    return [*(fault for _, proof in evidence.destructions for fault in proof.faults), *evidence.left_traces]


def _files(evidence: Evidence) -> list[str]:
    """The certificates' files."""
    paths = [site.folder.path / f"{proof.id}.certificate.json" for site, proof in evidence.destructions]
    return [evidence.relative(path) for path in paths if path.exists()]


def _withdrawals(evidence: Evidence, why: str) -> Verdict:
    """The verdict where nothing was destroyed by order, but perhaps deleted on withdrawal."""
    withdrawn = evidence.where("withdrawal")
    return kept(why, withdrawn) if withdrawn else _NOTHING


def _expired(evidence: Evidence) -> list[str]:
    """Where a gate refused since consent of somebody enrolled had expired or was revoked, and nothing was done about it yet."""
    done = {site.name for site, _ in _certificates(evidence)}
    found: dict[str, str] = {}
    for site in evidence.sites:
        for line in site.lines:
            if line.event == "withdrawal":
                found.pop(site.name, None)
            elif line.event == "refusal" and line.facts.get("rule") == CONSENT_ENDED and site.name not in done:
                found.setdefault(site.name, site.at(line))
    return list(found.values())
