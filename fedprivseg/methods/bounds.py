"""Reference lines: what a site reaches alone, and what all would reach with their data in one place.

Neither is a way of segmenting together. Local-only is the floor that a method has to beat to be worth joining; pooled is
what most policies forbid: its images and masks leave as they are, so every gate refuses it unless the site's own policy
says ``raw_sharing = "allowed"`` in so many words, and the scenario asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from pydantic import Field

from fedprivseg.core.expected import MOST_LOSS, Array, Expected
from fedprivseg.core.kinds import METRIC, RAW, STATUS, WEIGHTS
from fedprivseg.core.method_card import Sent
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import CrossSite, CurvePoint, Grid, Order, Payload
from fedprivseg.core.task import Scope
from fedprivseg.methods.effort import UNET_S, Effort, training_s
from fedprivseg.methods.method import (
    Action,
    Codes,
    Declaration,
    Federation,
    Method,
    Site,
    in_parts,
    measured_declared,
    part_of,
)
from fedprivseg.methods.round_state import recall, remember
from fedprivseg.methods.rounds import measure
from fedprivseg.methods.training import (
    MODEL,
    NET,
    StepsParameters,
    TrainingParameters,
    augmentation,
    build,
    glanced,
    glanced_declared,
    marks,
    mean_dices,
    numbered,
    outline,
    packed,
    planned,
    segment,
    segment_as_kept,
    travelling,
    unpacked,
)

if TYPE_CHECKING:
    from torch import nn

    from fedprivseg.nets.baseline import Weights

ALONE = "alone"
"""The memory of a site that trains alone: its weights, loss and number after a round."""

_LOSS, _ROUND = "loss", "round"


class LocalOnlyParameters(StepsParameters):
    """As for FedAvg, so that both take the same steps."""

    cross_site: bool = Field(True, description="whether each site's network is also measured at every other site")


def train_alone(method: LocalOnly, site: Site, order: Order) -> Payload:
    """Round `order.number` of this site, from where its own last round ended."""
    from fedprivseg.nets.baseline import load_weights, weights_of
    from fedprivseg.nets.local_training import train_round

    p, slices, number = method.parameters, site.training(), order.number
    kept = recall(site, ALONE, number + 1)
    if not kept or int(kept[_ROUND][0]) != number:  # else an earlier attempt did this round
        before = recall(site, ALONE, number)
        net = build(p, site)
        load_weights(net, _weights(before))
        loss = train_round(
            net,
            slices.images,
            slices.masks,
            planned(p, (number - 1) * p.local_steps, p.local_steps, p.rounds * p.local_steps),
            site.seed,
            (site.name, "round", number),
            augment=augmentation(p),
            device=site.device,
            progress=lambda _, done, total: site.progress(f"round {number}", done, total),
        )
        kept = {**weights_of(net), _LOSS: np.array([loss]), _ROUND: np.array([number])}
        remember(site, ALONE, number, kept)
    return numbered(STATUS, site, "train", {"loss": kept[_LOSS]}, number)


def glance_alone(method: LocalOnly, site: Site, order: Order) -> Payload:
    """Score the site's own network on its own test slices, for the learning curve."""
    return glanced(_own(method, site), site, order.number, method.parameters.half)


def measure_alone(method: LocalOnly, site: Site, order: Order) -> Payload:
    """Segment the test slices with the site's own network and measure them."""
    return site.measure(segment(_own(method, site), site, site.testing(), method.parameters))


def send_weights(method: LocalOnly, site: Site, order: Order) -> Payload:
    """The site's own network, to be measured elsewhere."""
    weights = _weights(recall(site, ALONE, method.parameters.rounds + 1))
    arrays = {NET + name: value for name, value in weights.items()}
    return numbered(WEIGHTS, site, "measure", arrays, order.number, _ALONE)


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
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    parameters_type = LocalOnlyParameters
    parameters: LocalOnlyParameters
    actions: ClassVar[Mapping[str, Action]] = {
        action.__name__: action for action in (train_alone, glance_alone, measure_alone, send_weights, measure_foreign)
    }
    declares: ClassVar[Mapping[str, Declaration]] = {
        "train_alone": TRAINED,
        "glance_alone": glanced_declared,
        "measure_alone": measured_declared,
        "send_weights": sent_weights,
        "measure_foreign": foreign_declared,
    }

    def effort(self, grid: Grid, slices: int) -> Effort | None:
        """Steps of the U-Net at every site; other nets were not measured."""
        p = self.parameters
        if p.net != "unet":
            return None
        return Effort(training_s(UNET_S, p.rounds * p.local_steps, p.batch, grid), 0.0)

    def conduct(self, federation: Federation) -> dict[str, Payload]:
        """Train alone, measure at home; then carry each network to every other site."""
        p = self.parameters
        with federation.stage("train alone"):
            for number in range(1, p.rounds + 1):
                replies = self.ask(federation, "train_alone", number=number)
                federation.progress("train alone", number, p.rounds)
                dices: dict[str, float] = {}
                if number in marks(p):
                    dices = mean_dices(self.ask(federation, "glance_alone", number=number))
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
        nets = self.ask(federation, "send_weights")
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
        """Class scores (N, C, H, W) for slices (N, H, W) float32 in 0..1, with the site's own network."""
        return segment(_own(self, site), site, images, self.parameters)


class PooledParameters(TrainingParameters):
    """As for FedAvg; steps: those of all its sites together."""

    steps: int = Field(1500, ge=1, description="optimiser steps on the pooled slices")
    shard_slices: int = Field(256, ge=1, description="most slices in one shard")


def send_images(method: Pooled, site: Site, order: Order) -> Payload:
    """One shard of the training slices as they are: (n, H, W) float32."""
    return _raw(method, site, order, "images", site.training().images)


def send_masks(method: Pooled, site: Site, order: Order) -> Payload:
    """One shard of their masks: (n, H, W) uint8."""
    return _raw(method, site, order, "masks", site.training().masks)


def _raw(method: Pooled, site: Site, order: Order, name: str, slices: np.ndarray) -> Payload:
    _, places, shards = part_of(order.number, len(slices), method.parameters.shard_slices)
    return Payload(RAW, site.name, "train", {name: slices[places]}, level=4, shard=order.number, shards=shards)


def sent_images(method: Pooled, scope: Scope, order: Order) -> Expected:
    """What `send_images` sends."""
    return _raw_declared(method, "images", Array("float32", (None, scope.grid.height, scope.grid.width), 0, 1))


def sent_masks(method: Pooled, scope: Scope, order: Order) -> Expected:
    """What `send_masks` sends."""
    form = Array("uint8", (None, scope.grid.height, scope.grid.width), 0, len(scope.task.structures))
    return _raw_declared(method, "masks", form)


def _raw_declared(method: Pooled, name: str, form: Array) -> Expected:
    every = in_parts("train", 1, method.parameters.shard_slices)
    return Expected(RAW, "train", {name: form}, views=1, check=every)


@final
class Pooled(Method):
    """All training data in one place, raw: what policy forbids, for comparison."""

    name = "pooled"
    title = "Pooled data"
    paper = "reference line; Sheller et al., Scientific Reports 10:12598, 2020, compares with it"
    exports = frozenset({RAW, METRIC, STATUS})
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    parameters_type = PooledParameters
    parameters: PooledParameters
    actions: ClassVar[Mapping[str, Action]] = {action.__name__: action for action in (send_images, send_masks, measure)}
    declares: ClassVar[Mapping[str, Declaration]] = {
        "send_images": sent_images,
        "send_masks": sent_masks,
        "measure": measured_declared,
    }
    sends = (Sent("send_images", "images", "train"), Sent("send_masks", "masks", "train"))

    def effort(self, grid: Grid, slices: int) -> Effort | None:
        """Steps of the U-Net at the server; other nets were not measured."""
        p = self.parameters
        return Effort(0.0, training_s(UNET_S, p.steps, p.batch, grid)) if p.net == "unet" else None

    def conduct(self, federation: Federation) -> dict[str, Payload]:
        """Collect, train, and let every site measure with the one network."""
        with federation.stage("send raw data"):
            images, masks = self.collect(federation, "send_images"), self.collect(federation, "send_masks")
        with federation.stage("train pooled"):
            weights = self._weights(federation, images, masks)
        with federation.stage("measure"):
            return self.ask(federation, "measure", answers=packed(federation, weights, {}, 0))

    def predict(self, site: Site, models: ModelStore, images: np.ndarray) -> np.ndarray:
        """Class scores (N, C, H, W) for slices (N, H, W) float32 in 0..1."""
        return segment_as_kept(site, images, self.parameters)

    def _weights(
        self, federation: Federation, images: Mapping[str, Codes], masks: Mapping[str, Codes]
    ) -> dict[str, np.ndarray]:
        """The network's weights, trained or found again as an earlier attempt left them."""
        from fedprivseg.nets.baseline import weights_of
        from fedprivseg.nets.local_training import train_round

        if (kept := federation.load_model(MODEL)) is None:
            net, p = build(self.parameters, federation), self.parameters
            train_round(
                net,
                np.concatenate([_all(images[site]) for site in federation.sites]),
                np.concatenate([_all(masks[site]) for site in federation.sites]),
                planned(p, 0, p.steps, p.steps),
                federation.seed,
                ("server", "pooled"),
                augment=augmentation(p),
                device=federation.device,
                progress=lambda _, done, total: federation.progress("train pooled", done, total),
            )
            kept = weights_of(net), {}
            federation.save_model(MODEL, *kept)
        return kept[0]


def _all(rows: Codes) -> np.ndarray:
    return rows.rows(np.arange(len(rows)))


def _weights(kept: Weights) -> dict[str, np.ndarray]:
    return {name: value for name, value in kept.items() if name not in (_LOSS, _ROUND)}


def _own(method: LocalOnly, site: Site) -> nn.Module:
    from fedprivseg.nets.baseline import load_weights

    net = build(method.parameters, site)
    load_weights(net, _weights(recall(site, ALONE, method.parameters.rounds + 1)))
    return net
