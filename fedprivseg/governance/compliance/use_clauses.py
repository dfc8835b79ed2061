"""Checks of the clauses on de-identification, limits of use and audit: by what the ledgers say of every release and refusal."""

from __future__ import annotations

from fedprivseg.governance.compliance.evidence import Evidence
from fedprivseg.governance.compliance.verdict import Verdict, broken, kept, not_applicable
from fedprivseg.governance.policy.technique_table import Recommendation


def audited(evidence: Evidence) -> Verdict:
    """Every ledger verifies, and is what the other side was shown of it."""
    where = [evidence.relative(site.folder.ledger) for site in evidence.sites if not site.fault]
    if evidence.ledger_faults:
        fix = "Keep the files as evidence and compare them with a backup."
        return broken(" ".join(evidence.ledger_faults), where, fix)
    why = "Every release, refusal, intake and error stands in a ledger that verifies, and no two contradict each other."
    return kept(why, where)


def limits_of_use(evidence: Evidence) -> Verdict:
    """Whatever left or was refused, under a rule."""
    decided = [*evidence.lines("refusal"), *evidence.lines("release")]
    if not decided:
        return not_applicable("Nothing was to leave.")
    if bare := [site.at(line) for site, line in decided if not line.facts.get("rule") or not line.facts.get("clause")]:
        return broken("Lines of the gate name no rule or no clause.", bare, "Find out who wrote them.")
    refused, allowed = evidence.where("refusal"), evidence.where("release")
    why = f"{len(allowed)} payloads left under a rule and {len(refused)} were refused; each line names its rule and clause."
    return kept(why, refused[:3] or allowed[:3])


def graded(evidence: Evidence) -> Verdict:
    """What left was graded, and left under nothing that Table 2 advises against.

    With each release the gate wrote down the techniques, and what the table says of them under the grading that stood in the
    site's policy at that time.
    """
    bare: dict[tuple[str, str], str] = {}
    against: dict[tuple[str, str], str] = {}
    fine: dict[tuple[str, str], str] = {}
    for site, line in evidence.lines("release"):
        kind, where = str(line.facts["kind"]), site.at(line)
        advice = line.facts.get("technique_advice")
        if not isinstance(advice, list | tuple):
            bare.setdefault((kind, site.name), where)
            continue
        unadvised = any(str(each).endswith(f": {Recommendation.NOT_RECOMMENDED}") for each in advice)
        under = f"{_listed(line.facts.get('techniques'))} ({_listed(advice)})"
        (against if unadvised else fine).setdefault((kind, under), where)
    if bare:
        sites = ", ".join(sorted({site for _, site in bare}))
        kinds = ", ".join(sorted({kind for kind, _ in bare}))
        fix = "Grade each kind that leaves under [[strategy]] in the site's policy."
        why = f"{sites} released {kinds} without grading utility and confidentiality."
        return broken(why, list(bare.values()), fix)
    if against:
        fix = 'Take another technique; unadvised = "refuse" in the site\'s policy keeps such payloads at the site.'
        return broken(f"Table 2 advises against what left: {_under(against)}.", list(against.values()), fix)
    if not fine:
        return not_applicable("Nothing was sent.")
    return kept(f"Table 2 advises against nothing that left: {_under(fine)}.", list(fine.values()))


def _under(found: dict[tuple[str, str], str]) -> str:
    return "; ".join(f"{kind} under {how}" for kind, how in sorted(found))


def _listed(names: object) -> str:
    return ", ".join(map(str, names)) if isinstance(names, list | tuple) and names else "no technique"
