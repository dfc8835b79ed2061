"""What training in rounds has spent of its differential privacy: the site's account of it, and what stands in the result."""

from __future__ import annotations

from dataclasses import replace

from fedprivseg.core.expected import MOST_BUDGET, Array, Expected
from fedprivseg.core.kinds import STATUS
from fedprivseg.core.records import Budget, Order, Payload
from fedprivseg.methods.aggregation import Aggregation
from fedprivseg.methods.client_update import Learner, spent
from fedprivseg.methods.method import Federation, Method, Site
from fedprivseg.methods.training import LocalDP, numbered


def account(method: Learner, site: Site, order: Order) -> Payload:
    """What this site's training has spent of its differential privacy."""
    return numbered(STATUS, site, "measure", spent(method, site), order.number)


SPENT = Expected(
    STATUS,
    "measure",
    {
        name: Array("float64", (1,), 0, most)
        for name, most in {"epsilon": MOST_BUDGET, "delta": 1, "noise": MOST_BUDGET}.items()
    },
)
"""What `account` sends."""


def record_central(federation: Federation, aggregation: Aggregation) -> None:
    """Record what the server spent, the same for every site, if its aggregation spends."""
    if (central := aggregation.spent()) is not None:
        for site in federation.sites:
            federation.record(replace(central, site=site))


def record_local(method: Method, federation: Federation, dp: LocalDP, norm: str) -> None:
    """Record what the sites spent by DP-SGD, and what is not promised. norm: of the method's parameters."""
    if dp.epsilon == "inf":
        for site in federation.sites:
            federation.record(Budget(site, "DP-SGD's steps without noise", dp.unit, None, dp.delta, 0.0))
            federation.note(site, "epsilon is infinite: nothing is promised, this run is a control")
    else:
        for site, payload in method.ask(federation, "account").items():
            values = {name: float(value[0]) for name, value in payload.arrays.items()}
            federation.record(Budget(site=site, mechanism="DP-SGD at the site", unit=dp.unit, **values))
    for site in federation.sites:
        units = federation.facts(site)["slices_train" if dp.unit == "slice" else "subjects_train"]
        if dp.epsilon != "inf" and dp.delta * units >= 1:
            federation.note(
                site,
                f"delta {dp.delta:g} is not below 1 / {units}: the promise may fail for one {dp.unit} of {units}",
            )
        if norm == "batch":
            federation.note(site, "GroupNorm stands in the place of batch norm, which DP-SGD cannot bound")
