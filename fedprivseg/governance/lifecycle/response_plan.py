"""A site's response plan for a leak: who is notified by when, and whether it keeps what the agreement promises (5.3.2-a)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from fedprivseg.core.model import Frozen
from fedprivseg.core.toml_text import read_toml
from fedprivseg.core.validation import validated
from fedprivseg.governance.policy.agreement import BreachPlan

RESPONSE = "response.toml"
"""The file in a site's folder: one ``[[contacts]]`` table an office."""

ALL = (1, 2, 3, 4, 5)
HIGHEST = 5
PROMISED = BreachPlan(contact="data protection office of the site", hours=24, steps=("tell the contact of every site",))
"""What a simulated hospital does if it has no agreement that says otherwise."""


class Contact(Frozen):
    """Who is notified of a leak.

    Attributes:
        role: such as ``data protection officer``.
        reach: an office's number or address, no person's.
        hours: within how many after discovery.
        levels: of which sensitivity (5.5).
    """

    role: str = Field(min_length=3)
    reach: str = Field(min_length=3)
    hours: Annotated[float, Field(gt=0, le=8760)]
    levels: tuple[int, ...] = Field(min_length=1)

    @field_validator("levels")
    @classmethod
    def _known(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if not set(levels) <= set(ALL):
            raise ValueError("levels are 1, 2, 3, 4 and 5")
        return tuple(sorted(set(levels)))


class ResponsePlan(Frozen):
    """A site's plan for a leak: each role once, and somebody for the highest level, or it is no plan."""

    contacts: tuple[Contact, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> ResponsePlan:
        roles = [contact.role for contact in self.contacts]
        if len(set(roles)) < len(roles):
            raise ValueError("a role stands twice in the plan; give its earliest deadline and all of its levels in one")
        if not any(HIGHEST in contact.levels for contact in self.contacts):
            raise ValueError(f"nobody in the plan is notified of a leak of level {HIGHEST}")
        return self


def read_plan(path: Path) -> ResponsePlan:
    """The plan in a TOML file. Raises ScenarioError if it is absent, does not parse or is no plan."""
    return validated(ResponsePlan, read_toml(path), path.name)


def default_plan(site: str, breach: BreachPlan | None) -> ResponsePlan:
    """A plain plan of offices, which keeps what `breach` promises: the office that the agreement names is notified of
    everything in time, those who decide of what can identify, and the authority of what does."""
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
        return (f"The agreement promises to notify the {breach.contact}, and the plan does not name it.",)
    found = []
    if known.hours > breach.hours:
        found.append(
            f"The agreement promises to notify the {breach.contact} within {breach.hours} hours; the plan says {known.hours:g}."
        )
    if missing := sorted(set(ALL) - set(known.levels)):
        listed = ", ".join(map(str, missing))
        found.append(
            f"The agreement promises to notify the {breach.contact} of any leak; the plan leaves out level {listed}."
        )
    return tuple(found)
