"""How a run kept clause 5.2: whether what left was graded, and left under nothing that Table 2 advises against.

The ledgers say it: with each release, the gate wrote down the techniques and what the table says of them under the grading
that stood in the site's policy at that time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedprivseg.governance.policy.technique_table import Verdict

if TYPE_CHECKING:
    from fedprivseg.governance.compliance.evidence import Evidence, State


def graded(evidence: Evidence) -> tuple[State, str, list[str], str]:
    """5.2, from what every site's ledger says of what left."""
    bare: dict[tuple[str, str], str] = {}
    against: dict[tuple[str, str], str] = {}
    kept: dict[tuple[str, str], str] = {}
    for site, line in evidence.lines("release"):
        kind, where = str(line.facts["kind"]), f"{site.name}:{line.index}"
        said = line.facts.get("technique_advice")
        if not isinstance(said, list | tuple):
            bare.setdefault((kind, site.name), where)
        elif any(str(each).endswith(f": {Verdict.NOT_RECOMMENDED}") for each in said):
            against.setdefault((kind, f"{_listed(line.facts.get('techniques'))} ({_listed(said)})"), where)
        else:
            kept.setdefault((kind, f"{_listed(line.facts.get('techniques'))} ({_listed(said)})"), where)
    if bare:
        sites = ", ".join(sorted({site for _, site in bare}))
        kinds = ", ".join(sorted({kind for kind, _ in bare}))
        why = f"{sites} let out {kinds} without grading utility and confidentiality."
        return (
            "broken",
            why,
            list(bare.values()),
            "Grade each kind that leaves under [[strategy]] in the site's policy.",
        )
    if against:
        why = f"Table 2 advises against what left: {_under(against)}."
        mend = 'Take another technique; unadvised = "refuse" in the site\'s policy keeps such payloads at the site.'
        return "broken", why, list(against.values()), mend
    if not kept:
        return "not applicable", "Nothing was sent.", [], ""
    return "kept", f"Table 2 advises against nothing that left: {_under(kept)}.", list(kept.values()), ""


def _under(found: dict[tuple[str, str], str]) -> str:
    return "; ".join(f"{kind} under {how}" for kind, how in sorted(found))


def _listed(names: object) -> str:
    return ", ".join(map(str, names)) if isinstance(names, list | tuple) and names else "no technique"
