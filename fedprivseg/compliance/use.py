"""How the clauses on audit and on limits of use (5.6.2-b, 5.6.2-d) are judged: by the ledgers."""

from __future__ import annotations

from fedprivseg.compliance.evidence import Evidence, Verdict, at


def audited(evidence: Evidence) -> Verdict:
    """5.6.2-d: every site's ledger holds."""
    faults = [f"{site.name}: {site.fault}" for site in evidence.sites if site.fault]
    where = [f"sites/{site.name}/ledger.jsonl" for site in evidence.sites]
    if faults:
        return "broken", " ".join(faults), where, "Keep the files as evidence and compare them with a backup."
    return "kept", "Every release, refusal, intake and error stands in a ledger that verifies.", where, ""


def limits_of_use(evidence: Evidence) -> Verdict:
    """5.6.2-b: whatever left or was refused, under a rule."""
    refused = [at(site, line) for site, line in evidence.lines("refusal")]
    allowed = [at(site, line) for site, line in evidence.lines("release")]
    why = f"{len(allowed)} payloads left under a rule and {len(refused)} were refused; each line names its rule and clause."
    return "kept", why, refused[:3] or allowed[:3], ""
