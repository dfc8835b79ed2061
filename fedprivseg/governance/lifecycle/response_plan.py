"""A site's response plan as a file, and whether it keeps what the data-use agreement promises (clause 5.3.2-a)."""

from __future__ import annotations

from pathlib import Path

from fedprivseg.core.config import read_toml, validated
from fedprivseg.governance.lifecycle.breach_drill import HIGHEST, Contact, ResponsePlan
from fedprivseg.governance.policy.agreement import BreachPlan

RESPONSE = "response.toml"
"""The file in a site's folder: one ``[[contacts]]`` table an office."""

ALL = (1, 2, 3, 4, 5)
PROMISED = BreachPlan(contact="data protection office of the site", hours=24, steps=("tell the contact of every site",))
"""What a simulated hospital does if it has no agreement that says otherwise."""


def read_plan(path: Path) -> ResponsePlan:
    """The plan in a TOML file. Raises ScenarioError if it is absent, does not parse or is no plan."""
    return validated(ResponsePlan, read_toml(path), path.name)


def default_plan(site: str, breach: BreachPlan | None) -> ResponsePlan:
    """A plain plan of offices, which keeps what `breach` promises: the office that the agreement names is told of everything in
    time, those who decide of what can identify, and the authority of what does."""
    promised = breach or PROMISED
    return ResponsePlan(
        contacts=(
            Contact(role="head of the study", reach=f"study office of {site}", hours=4, levels=(3, 4, HIGHEST)),
            Contact(role=promised.contact, reach=f"switchboard of {site}", hours=promised.hours, levels=ALL),
            Contact(role="hospital board", reach=f"board office of {site}", hours=24, levels=(4, HIGHEST)),
            Contact(role="supervisory authority", reach="its public reporting desk", hours=72, levels=(4, HIGHEST)),
        )
    )


def breaks(plan: ResponsePlan, breach: BreachPlan) -> tuple[str, ...]:
    """Where a plan does less than the agreement promises, in sentences."""
    known = next((contact for contact in plan.contacts if contact.role == breach.contact), None)
    if known is None:
        return (f"The agreement promises to tell the {breach.contact}, and the plan does not name it.",)
    found = []
    if known.hours > breach.hours:
        found.append(
            f"The agreement promises to tell the {breach.contact} within {breach.hours} hours; the plan says {known.hours:g}."
        )
    if missing := sorted(set(ALL) - set(known.levels)):
        listed = ", ".join(map(str, missing))
        found.append(
            f"The agreement promises to tell the {breach.contact} of any leak; the plan leaves out level {listed}."
        )
    return tuple(found)
