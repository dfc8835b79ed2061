"""What a site reaches alone: the floor that a way of segmenting together has to beat to be worth joining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np
from pydantic import Field

from fedprivseg.core.expected import MOST_LOSS, Array, Expected
from fedprivseg.core.kinds import METRIC, STATUS, WEIGHTS, KindSpec
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import CrossSite, CurvePoint, Grid, Order, Payload
from fedprivseg.core.task import Scope
from fedprivseg.methods.begin import BEGIN, BEGINS, begin_all
from fedprivseg.methods.client_update import take_steps
from fedprivseg.methods.effort import UNET_S, Effort, training_s
from fedprivseg.methods.method import Action, Declaration, Federation, Method, Site, measured_declared, trainers
from fedprivseg.methods.public_start import PublicStart
from fedprivseg.methods.round_state import load_state, save_state
from fedprivseg.methods.training import (
    NET,
    StepsParameters,
    build,
    marks,
    mean_dices,
    numbered,
    outline,
    planned,
    prefixed,
    public_segmentation,
    segment,
    travelling,
    unpacked,
    validated,
    validation,
)

if TYPE_CHECKING:
    from torch import nn

    from fedprivseg.nets.baseline import Weights

ALONE = "alone"
"""The state of a site that trains alone: its weights, loss and number after a round."""

_LOSS, _ROUND = "loss", "round"


class LocalOnlyParameters(StepsParameters):
    """As for FedAvg, so that both take the same steps."""

    cross_site: bool = Field(True, description="whether each site's network is also measured at every other site")


def train_alone(method: LocalOnly, site: Site, order: Order) -> Payload:
    """Round `order.number` of this site, from where its own last round ended."""
    from fedprivseg.nets.baseline import load_weights, weights_of

    p, number = method.parameters, order.number
    kept = load_state(site, ALONE, number + 1)
    if not kept or int(kept[_ROUND][0]) != number:  # else an earlier attempt did this round
        net = build(p, site)
        load_weights(net, _weights(load_state(site, ALONE, number)))
        work = planned(p, (number - 1) * p.local_steps, p.local_steps, p.rounds * p.local_steps)
        loss = take_steps(p, site, net, work, (site.name, "round", number), f"round {number}")
        kept = {**weights_of(net), _LOSS: np.array([loss]), _ROUND: np.array([number])}
        save_state(site, ALONE, number, kept)
    return numbered(STATUS, site, "train", {"loss": kept[_LOSS]}, number)


def validate_alone(method: LocalOnly, site: Site, order: Order) -> Payload:
    """Score the site's own network on its own test slices, for the learning curve."""
    return validation(_own(method, site), site, order.number, method.parameters.half)


def measure_alone(method: LocalOnly, site: Site, order: Order) -> Payload:
    """Segment the test slices with the site's own network and measure them."""
    return site.measure(segment(_own(method, site), site, site.testing(), method.parameters))


def send_weights(method: LocalOnly, site: Site, order: Order) -> Payload:
    """The site's own network, to be measured elsewhere."""
    weights = _weights(load_state(site, ALONE, method.parameters.rounds + 1))
    return numbered(WEIGHTS, site, "measure", prefixed(NET, weights), order.number, _ALONE)


_ALONE = ("trained alone",)

TRAINED = Expected(STATUS, "train", {_LOSS: Array("float64", (1,), 0, MOST_LOSS)})
"""What `train_alone` sends."""


def sent_weights(method: LocalOnly, scope: Scope, order: Order) -> Expected:
    """What `send_weights` sends."""
    return Expected(WEIGHTS, "measure", travelling(outline(method.parameters, scope)), _ALONE)


def measure_foreign(method: LocalOnly, site: Site, order: Order) -> Payload:
    """Measure another site's network on this site's test subjects; its predictions are not kept."""
    from fedprivseg.nets.baseline import load_weights

    net = build(method.parameters, site)
    load_weights(net, unpacked(order)[0])
    scores = segment(net, site, site.testing(), method.parameters)
    return numbered(METRIC, site, "measure", site.measure(scores, keep=False).arrays, order.number, _FOREIGN)


_FOREIGN = ("measure", "network of another site")


def foreign_declared(method: LocalOnly, scope: Scope, order: Order) -> Expected:
    """What `measure_foreign` sends. It says so: of two networks the measures may be the same."""
    return replace(measured_declared(method, scope, order), history=_FOREIGN)


@final
class LocalOnly(Method):
    """Each site trains alone; every network is measured at home and at every other site."""

    name = "local-only"
    title = "Local training only"
    paper = "reference line; Sheller et al., Scientific Reports 10:12598, 2020, compares with it"
    exports = frozenset({WEIGHTS, METRIC, STATUS})
    parameters_type = LocalOnlyParameters
    parameters: LocalOnlyParameters
    actions: ClassVar[Mapping[str, Action]] = {
        **BEGIN,
        "train_alone": train_alone,
        "validate_alone": validate_alone,
        "measure_alone": measure_alone,
        "send_weights": send_weights,
        "measure_foreign": measure_foreign,
    }
    declares: ClassVar[Mapping[str, Declaration]] = {
        **BEGINS,
        "train_alone": TRAINED,
        "validate_alone": validated,
        "measure_alone": measured_declared,
        "send_weights": sent_weights,
        "measure_foreign": foreign_declared,
    }

    @property
    def declared(self) -> frozenset[KindSpec]:
        """Nothing but scores and counts, unless networks are measured at other sites."""
        return self.exports if self.parameters.cross_site else self.exports - {WEIGHTS}

    def effort(self, grid: Grid, slices: int) -> Effort | None:
        """Steps of the U-Net at every site; other nets were not measured."""
        p = self.parameters
        if p.net != "unet":
            return None
        return Effort(training_s(UNET_S, p.rounds * p.local_steps, p.batch, grid), 0.0)

    @property
    def needs_labels(self) -> bool:
        """See `Method`: without a public start, and without masks, a site has nothing."""
        return self.parameters.start == "random"

    def public_start(self, scope: Scope) -> PublicStart | None:
        """See `Method`."""
        return public_segmentation(self.parameters, scope)

    def conduct(self, federation: Federation) -> dict[str, Payload]:
        """Train alone, measure at home; then carry each network to every other site."""
        p = self.parameters
        begin_all(self, federation)
        with federation.stage("train alone"):
            for number in range(1, p.rounds + 1):
                replies = self.ask(federation, "train_alone", number=number, sites=trainers(federation))
                federation.progress("train alone", number, p.rounds)
                dices: dict[str, float] = {}
                if number in marks(p):
                    dices = mean_dices(self.ask(federation, "validate_alone", number=number))
                for site, reply in replies.items():
                    loss = float(reply.arrays[_LOSS][0])
                    federation.record(CurvePoint(number, site, loss, dices.get(site), federation.sent(site)))
        with federation.stage("measure"):
            measured = self.ask(federation, "measure_alone")
        if p.cross_site:
            with federation.stage("measure at other sites"):
                self._cross(federation, measured)
        return measured

    def _cross(self, federation: Federation, measured: Mapping[str, Payload]) -> None:
        """Fill the cross-site matrix: rows where a network was trained, columns where it was measured."""
        nets = self.ask(federation, "send_weights", sites=trainers(federation))
        for number, (origin, net) in enumerate(nets.items()):
            sent = {
                site: federation.answer(WEIGHTS, site, net.arrays, number)
                for site in federation.sites
                if site != origin
            }
            found = self.ask(federation, "measure_foreign", number=number, answers=sent, sites=list(sent))
            for site, payload in {**found, origin: measured[origin]}.items():
                known = payload.arrays["dice_known"].astype(bool)
                if known.any():
                    mean = float(payload.arrays["dice"][known].mean())
                    federation.record(CrossSite(trained_at=origin, measured_at=site, dice=mean))

    def predict(self, site: Site, models: ModelStore, images: np.ndarray) -> np.ndarray:
        """Class scores (N, 4, H, W) for slices (N, H, W) float32 in 0..1, with the site's own network."""
        return segment(_own(self, site), site, images, self.parameters)


def _weights(kept: Weights) -> dict[str, np.ndarray]:
    return {name: value for name, value in kept.items() if name not in (_LOSS, _ROUND)}


def _own(method: LocalOnly, site: Site) -> nn.Module:
    from fedprivseg.nets.baseline import load_weights

    net = build(method.parameters, site)
    load_weights(net, _weights(load_state(site, ALONE, method.parameters.rounds + 1)))
    return net
