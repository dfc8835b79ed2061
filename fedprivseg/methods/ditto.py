"""Ditto: every site keeps a personal network that is held near the federation's (Li et al., ICML 2021, algorithm 1).

The shared network is trained as in FedAvg. Beside it a site takes as many steps again on its personal weights v, with
lambda (v - w_received) added to the gradient; v never leaves, and is what the site segments with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, final

from pydantic import Field

from fedprivseg.core.records import Order, Payload
from fedprivseg.methods.client_update import take_steps
from fedprivseg.methods.method import Action, Declaration, Site
from fedprivseg.methods.proximal_term import proximal_term
from fedprivseg.methods.round_state import load_state, save_state
from fedprivseg.methods.rounds import ACTIONS, DECLARES, Rounds, train
from fedprivseg.methods.training import RoundsParameters, build, segment, unpacked

if TYPE_CHECKING:
    from torch import nn

PERSONAL = "personal"
"""The state of a site's own weights."""


def train_both(method: Ditto, site: Site, order: Order) -> Payload:
    """A round of the shared network, then as many steps of the personal one; only the shared one is sent."""
    from fedprivseg.nets.baseline import load_weights, weights_of

    payload = train(method, site, order)
    number = order.number
    net = build(method.parameters, site)
    load_weights(net, unpacked(order)[0])
    near_received = proximal_term(net, method.parameters.proximity)
    load_weights(net, load_state(site, PERSONAL, number))
    work = method.work(number, len(site.training().images))
    names, stage = (site.name, "personal", number), f"personal round {number}"
    take_steps(method.parameters, site, net, work, names, stage, near_received)
    save_state(site, PERSONAL, number, weights_of(net))
    return payload


def measure_personal(method: Ditto, site: Site, order: Order) -> Payload:
    """Segment and measure with the personal network; a site that was never chosen has only the shared one."""
    from fedprivseg.nets.baseline import weights_of

    net = _personal(method, site, order)
    site.vault.save("final", weights_of(net))
    return site.measure(segment(net, site, site.testing(), method.parameters))


def _personal(method: Ditto, site: Site, order: Order) -> nn.Module:
    from fedprivseg.nets.baseline import load_weights

    net = build(method.parameters, site)
    load_weights(net, load_state(site, PERSONAL, method.parameters.rounds + 1) or unpacked(order)[0])
    return net


class DittoParameters(RoundsParameters):
    """proximity: see Ditto."""

    proximity: float = Field(
        0.1, ge=0, description="lambda: how strongly personal weights are held near the shared ones"
    )


@final
class Ditto(Rounds):
    """A personal network at each site beside the averaged one."""

    name = "ditto"
    title = "Ditto"
    paper = "Li et al., ICML 2021, algorithm 1"
    parameters_type = DittoParameters
    parameters: DittoParameters
    actions: ClassVar[Mapping[str, Action]] = {**ACTIONS, "train": train_both, "measure": measure_personal}
    declares: ClassVar[Mapping[str, Declaration]] = DECLARES
