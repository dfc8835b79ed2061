"""What a scenario says of how long its server waits for answers, how often it asks, and how few sites are enough."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from fedprivseg.core.model import Frozen

ATTEMPTS = 3
"""How often an order is sent before its site counts as failed, unless the scenario says otherwise."""

EVERY = "all"
"""The name under which a scenario speaks of all actions."""


class StageConfig(Frozen):
    """How the server waits for what answers one action, such as ``[stages.fit_encoders]``, or every one, ``[stages.all]``. What
    is not set is as for all, and what is not set there is as the scenario has it: its ``deadline_s``, its ``quorum``."""

    deadline_s: float | None = Field(
        default=None, gt=0, description="longest wait for one answer of a site, all attempts together, in seconds"
    )
    quorum: int | None = Field(
        default=None, ge=1, description="fewest sites that must still take part when this stage has ended"
    )
    stragglers_s: float | None = Field(
        default=None,
        ge=0,
        description="seconds that the last sites get when as many as the quorum have answered; then they are left behind. "
        "Not set: they are waited for until the deadline",
    )
    attempts: int | None = Field(
        default=None, ge=1, le=100, description=f"how often an order is sent to a site that dies; {ATTEMPTS} if not set"
    )
    resend_s: float | None = Field(
        default=None, gt=0, description="seconds after which an order without an answer is sent again; not set: never"
    )


@dataclass(frozen=True)
class Terms:
    """On which terms the server waits for one action; see `StageConfig`."""

    deadline_s: float
    quorum: int
    stragglers_s: float | None = None
    attempts: int = ATTEMPTS
    resend_s: float | None = None
