"""All training data in one place, raw: what all sites would reach together, if policy allowed it.

It is no way of segmenting together. What most policies forbid happens here: images and masks leave as they are, so every gate
refuses it unless the site's own policy says ``raw_sharing = "allowed"`` explicitly, and the scenario asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
from pydantic import Field

from fedprivseg.core.expected import Array, Expected
from fedprivseg.core.kinds import METRIC, RAW, STATUS
from fedprivseg.core.method_card import Sent
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import Grid, Order, Payload
from fedprivseg.core.task import Scope
from fedprivseg.methods.begin import BEGIN, BEGINS, begin_all
from fedprivseg.methods.effort import UNET_S, Effort, training_s
from fedprivseg.methods.method import Action, Codes, Declaration, Federation, Method, Site, measured_declared
from fedprivseg.methods.public_start import PublicStart
from fedprivseg.methods.rounds import measure
from fedprivseg.methods.shards import in_parts, part_of
from fedprivseg.methods.training import (
    MODEL,
    TunableParameters,
    augmentation,
    build,
    packed,
    planned,
    public_segmentation,
    segment_as_kept,
)


class PooledParameters(TunableParameters):
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
    return _raw_declared(
        method, "masks", Array("uint8", (None, scope.grid.height, scope.grid.width), 0, len(scope.task.structures))
    )


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
    parameters_type = PooledParameters
    parameters: PooledParameters
    actions: ClassVar[Mapping[str, Action]] = {
        **BEGIN,
        **{action.__name__: action for action in (send_images, send_masks, measure)},
    }
    declares: ClassVar[Mapping[str, Declaration]] = {
        **BEGINS,
        "send_images": sent_images,
        "send_masks": sent_masks,
        "measure": measured_declared,
    }
    sends = (Sent("send_images", "images", "train"), Sent("send_masks", "masks", "train"))

    def effort(self, grid: Grid, slices: int) -> Effort | None:
        """Steps of the U-Net at the server; other nets were not measured."""
        p = self.parameters
        return Effort(0.0, training_s(UNET_S, p.steps, p.batch, grid)) if p.net == "unet" else None

    def public_start(self, scope: Scope) -> PublicStart | None:
        """See `Method`."""
        return public_segmentation(self.parameters, scope)

    def conduct(self, federation: Federation) -> dict[str, Payload]:
        """Collect, train, and let every site measure with the one network."""
        begin_all(self, federation)
        with federation.stage("send raw data"):
            images, masks = self.collect(federation, "send_images"), self.collect(federation, "send_masks")
        with federation.stage("train pooled"):
            weights = self._weights(federation, images, masks)
        with federation.stage("measure"):
            return self.ask(federation, "measure", answers=packed(federation, weights, {}, 0))

    def predict(self, site: Site, models: ModelStore, images: np.ndarray) -> np.ndarray:
        """Class scores (N, 4, H, W) for slices (N, H, W) float32 in 0..1."""
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
