"""How a run begins from a public start: the server sends it to every site, which keeps it.

Networks then start from what phantoms taught instead of from random weights: encoders, U-Nets and nnU-Nets alike, of every
method, so that what is compared is the way of sharing. No patient is in it. The sites get it from the server, as they get every
model: weights trained twice are equal on one kind of processor only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
from pydantic import Field

from fedprivseg.core.expected import Array, Expected
from fedprivseg.core.kinds import PUBLIC_START, STATUS
from fedprivseg.core.records import Order, Payload
from fedprivseg.methods.method import Action, Declaration, Federation, Method, Parameters, Site

START = "start"
"""The public start in a site's vault."""


class StartParameters(Parameters):
    """Where the networks of a method begin."""

    start: Literal["random", "phantom"] = Field(
        "random", description="random weights; phantom: weights trained on phantoms, the same for every run and site"
    )
    start_subjects: int = Field(160, ge=2, description="phantom patients that they were trained on")
    start_steps: int = Field(800, ge=1, description="optimiser steps of each network there")
    start_rate: float = Field(3e-3, gt=0, description="its largest learning rate there")


def begin(method: Method, site: Site, order: Order) -> Payload:
    """Keep the public start that the order brings."""
    assert order.answer is not None, "the order brings the start"
    site.vault.save(START, order.answer.arrays)
    return Payload(STATUS, site.name, "train", {"begun": np.ones(1, np.uint8)})


BEGIN: Mapping[str, Action] = MappingProxyType({"begin": begin})
"""The action of a site."""

BEGINS: Mapping[str, Declaration] = MappingProxyType(
    {"begin": Expected(STATUS, "train", {"begun": Array("uint8", (1,), 1, 1)})}
)
"""What answers it."""


def begin_all(method: Method, federation: Federation, sites: Sequence[str] | None = None) -> None:
    """Send the public start to every site (or `sites`), if the method's networks begin with one."""
    p = method.parameters
    if not isinstance(p, StartParameters) or p.start == "random":
        return
    start = federation.start()
    with federation.stage("send the public start"):
        method.ask(
            federation,
            "begin",
            answers={site: federation.answer(PUBLIC_START, site, start, 0) for site in federation.sites},
            sites=sites,
        )
