"""How the clauses on audit and on limits of use (5.6.2-b, 5.6.2-d) are judged: by the ledgers."""

from __future__ import annotations

from fedprivseg.governance.compliance.evidence import Evidence, Verdict, at


def audited(evidence: Evidence) -> Verdict:
    """5.6.2-d: every ledger holds, and is what the other side was shown of it."""
    where = [f"sites/{site.name}/ledger.jsonl" for site in evidence.sites if not site.fault]
    if evidence.doubts:
        why = " ".join(evidence.doubts)
        return "broken", why, where, "Keep the files as evidence and compare them with a backup."
    why = "Every release, refusal, intake and error stands in a ledger that verifies, and no two contradict each other."
    return "kept", why, where, ""


def limits_of_use(evidence: Evidence) -> Verdict:
    """5.6.2-b: whatever left or was refused, under a rule."""
    decided = [*evidence.lines("refusal"), *evidence.lines("release")]
    if not decided:
        return "not applicable", "Nothing was to leave.", [], ""
    if bare := [at(site, line) for site, line in decided if not line.facts.get("rule") or not line.facts.get("clause")]:
        return "broken", "Lines of the gate name no rule or no clause.", bare, "Find out who wrote them."
    refused = [at(site, line) for site, line in evidence.lines("refusal")]
    allowed = [at(site, line) for site, line in evidence.lines("release")]
    why = f"{len(allowed)} payloads left under a rule and {len(refused)} were refused; each line names its rule and clause."
    return "kept", why, refused[:3] or allowed[:3], ""
