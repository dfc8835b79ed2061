"""Ditto: every site keeps a personal network that is held near the federation's (Li et al., ICML 2021, algorithm 1).

The shared network is trained as in FedAvg. Beside it a site takes as many steps again on its personal weights v, with
lambda (v - w_received) added to the gradient; v never leaves, and is what the site segments with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, final

from pydantic import Field

from fedprivseg.core.records import Order, Payload
from fedprivseg.methods.averaging import ProximalTerm
from fedprivseg.methods.client_update import LocalRule
from fedprivseg.methods.flower_strategy import ANY_NUMBER, FlowerStrategy
from fedprivseg.methods.method import Action, Declaration, Site, measured_declared
from fedprivseg.methods.round_state import recall, remember
from fedprivseg.methods.rounds import Aggregation, Rounds, glance, train, trained
from fedprivseg.methods.training import RoundsParameters, augmentation, build, glanced_declared, segment, unpacked

if TYPE_CHECKING:
    from torch import nn

PERSONAL = "personal"


def train_both(method: Ditto, site: Site, order: Order) -> Payload:
    """A round of the shared network, then as many steps of the personal one; only the shared one is sent."""
    from fedprivseg.nets.baseline import load_weights, weights_of
    from fedprivseg.nets.local_training import train_round

    payload = train(method, site, order)
    p, slices, number = method.parameters, site.training(), order.number
    received, _ = unpacked(order)
    net = build(method.parameters, site)
    load_weights(net, received)
    pull = ProximalTerm(net, p.proximity)
    load_weights(net, recall(site, PERSONAL, number))
    train_round(
        net,
        slices.images,
        slices.masks,
        method.work(number, len(slices.images)),
        site.seed,
        (site.name, "personal", number),
        augment=augmentation(p),
        correction=pull,
        device=site.device,
        progress=lambda _, done, total: site.progress(f"personal round {number}", done, total),
    )
    remember(site, PERSONAL, number, weights_of(net))
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
    load_weights(net, recall(site, PERSONAL, method.parameters.rounds + 1) or unpacked(order)[0])
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
    actions: ClassVar[Mapping[str, Action]] = {"train": train_both, "glance": glance, "measure": measure_personal}
    declares: ClassVar[Mapping[str, Declaration]] = {
        "train": trained,
        "glance": glanced_declared,
        "measure": measured_declared,
    }

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's FedAvg of the shared network."""
        from flwr.serverapp import strategy as flower

        return FlowerStrategy(flower.FedAvg(**ANY_NUMBER))

    def local(self) -> LocalRule:
        """Plain steps."""
        return LocalRule()
