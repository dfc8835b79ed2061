"""The faults that a scenario simulates: what goes wrong, with whom, in which order. A deployed run has none."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fedprivseg.core.model import Frozen
from fedprivseg.core.validation import Name

SERVER = "server"
"""The party that is no site."""

NetworkFault = Literal[
    "kill", "error", "drop", "delay", "duplicate", "reorder", "truncate", "corrupt", "replay", "impersonation"
]
"""What happens to an order or its reply on the way, or to the program that should answer."""

SiteFault = Literal["nan", "oversize", "shape", "poison", "full-disk", "clock"]
"""What a site does or what happens to its machine."""

AT_SERVER = ("kill", "full-disk", "clock")
"""What can happen to the server."""


class FaultConfig(Frozen):
    """One fault, such as ``[[faults]] kind = "kill", party = "centre2", action = "train"``.

    Attributes:
        kind: what goes wrong.
        party: with whom: a site, or ``server``.
        action: in which order.
        number: of the order; None: whichever comes first.
        times: how often. A run that was killed and goes on does not suffer the same again.
        when: ``before`` the order is carried out, or ``after``, when its answer is under way: for kill and drop.
        seconds: how late a reply is, or how far a clock jumps.
        code: Flower's code of an error.
    """

    kind: NetworkFault | SiteFault
    party: Name
    action: str
    number: int | None = Field(default=None, ge=0)
    times: int = Field(default=1, ge=1, le=1000)
    when: Literal["before", "after"] = "before"
    seconds: float = 1.0
    code: int = Field(default=8, ge=0, le=8)

    @model_validator(mode="after")
    def _possible(self) -> FaultConfig:
        if self.party == SERVER and self.kind not in AT_SERVER:
            raise ValueError(f"the server has no fault {self.kind!r}; it can have: {', '.join(AT_SERVER)}")
        return self
