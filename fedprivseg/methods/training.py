"""What the methods that train a segmentation network share: parameters, the network, and what they send and receive.

Half of it belongs to the site, half to the server; both halves of a method import it, so that they agree on names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal, final

import numpy as np
from pydantic import BeforeValidator, Field

from fedprivseg.core.compute import Half
from fedprivseg.core.expected import MOST_WEIGHT, Array, Expected
from fedprivseg.core.kinds import METRIC, WEIGHTS, KindSpec
from fedprivseg.core.records import Order, Payload, Slices
from fedprivseg.core.task import Scope
from fedprivseg.methods.begin import StartParameters
from fedprivseg.methods.method import Federation, Method, Parameters, Place, Progress, Site
from fedprivseg.methods.public_start import PublicStart
from fedprivseg.nets.choices import VIEWS, NetName, Norm

if TYPE_CHECKING:
    from torch import nn

    from fedprivseg.nets.baseline import Weights
    from fedprivseg.nets.local_training import Augment, Work

NET, EXTRA = "net/", "extra/"
"""Prefixes of array names in a WEIGHTS payload: the network's own, and what an algorithm adds."""


class TrainingParameters(StartParameters):
    """How a network is trained and used. Values that the papers leave open were chosen on training subjects."""

    net: NetName = Field(
        "unet", description="unet, unet-wide, basic-unet (MONAI) or nnunet (MONAI's DynUNet, nnU-Net's plan)"
    )
    norm: Norm = Field("batch", description="batch: the network's own; group: GroupNorm in its place, no statistics")
    batch: int = Field(16, ge=2, description="slices a step")
    optimiser: Literal["sgd", "adamw"] = Field("sgd", description="sgd (Nesterov) or adamw")
    rate: float = Field(0.1, gt=0, description="learning rate of the run's first step; polynomial decay to 0")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum of sgd, from 0 again each round")
    decay: float = Field(3e-5, ge=0, description="weight decay")
    clip: float = Field(12.0, gt=0, description="largest norm of a step's gradient")
    augmentation: Literal["batched", "monai", "none"] = Field(
        "batched", description="batched: this package's own; monai: nnU-Net's, from MONAI's transforms; none"
    )
    half: Half = Field("auto", description="bfloat16 arithmetic; auto: where the hardware has instructions for it")
    test_views: int = Field(4, ge=1, le=len(VIEWS), description="mirrored and turned views averaged over a test slice")


class TunableParameters(TrainingParameters):
    """A network that is made for all sites, and what each does to it for itself."""

    tune_steps: int = Field(
        0, ge=0, description="steps that a site trains the last network on its own slices before it segments with it"
    )
    tune_rate: float = Field(1e-3, gt=0, description="their learning rate at first; AdamW, polynomial decay to 0")


class StepsParameters(TrainingParameters):
    """A run of so many rounds of so many steps."""

    rounds: int = Field(25, ge=1, description="rounds of the whole run")
    local_steps: int = Field(20, ge=1, description="optimiser steps of a site in a round")
    curve_points: int = Field(5, ge=0, description="rounds, evenly spaced, after which the global net is scored")


Epsilon = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["inf"],
    BeforeValidator(lambda value: "inf" if value == math.inf else value),
]
"""A budget, or "inf" (TOML's inf too), which JSON can hold."""


class LocalDP(Parameters):
    """Differential privacy of what a site sends: DP-SGD at the site (Abadi et al. 2016), see `nets.private_training`."""

    epsilon: Epsilon = Field(
        description='the budget of the whole run, for each unit of a site\'s data; "inf": the same steps without noise, a '
        "control that promises nothing"
    )
    delta: float = Field(1e-5, gt=0, lt=1, description="chance with which the promise may fail; below 1 / units")
    clip: float = Field(1.0, gt=0, description="largest norm of one unit's gradient")
    unit: Literal["slice", "patient"] = Field(
        "slice",
        description="what is protected; under unit slice, a patient of k slices is promised k times the epsilon only",
    )
    together: int = Field(4, ge=1, description="unit patient: slices drawn of each patient that a step draws")


class RoundsParameters(StepsParameters, TunableParameters):
    """What all methods that train in rounds share."""

    local_epochs: float | None = Field(
        None, gt=0, description="instead of local_steps: passes over a site's slices in a round, so that sites differ"
    )
    fraction: float = Field(1.0, gt=0, le=1, description="share of the sites that take part in a round, at least one")
    weighting: Literal["slices", "subjects", "equal"] = Field(
        "slices", description="a site's weight in the average: its training slices, its training subjects, or 1"
    )
    dp: LocalDP | None = Field(None, description="train under differential privacy; the net then has GroupNorm")


class SummableParameters(RoundsParameters):
    """For methods whose server needs no more than a weighted sum of the sites' weights."""

    summation: Literal["float", "fixed-point", "secure"] = Field(
        "float",
        description="float: as the strategy does it; fixed-point: exact integers; secure: the same, masked, so that the "
        "server sees only the sum (Bonawitz et al. 2017)",
    )
    threshold: int | None = Field(
        None, ge=2, description="secure: sites that must stay for the sum to be opened; None: two thirds, rounded up"
    )


def validated(method: Method, scope: Scope, order: Order) -> Expected:
    """What `validation` sends."""
    cells = (len(scope.task.structures),)
    return Expected(
        METRIC, "measure", {"dice": Array("float64", cells, 0.0, 1.0), "known": Array("uint8", cells, 0, 1)}
    )


MODEL = "model"
"""The name under which a server keeps the network that was averaged or trained."""

OPENED = "opened-sum"
"""The name under which it keeps the mean of the sites' weights that the secure sum of the first round opened to; ``sites`` says
how many were asked. It is what attacks on such a run have to go by."""


def packed(federation: Federation, arrays: Weights, extra: Weights, number: int) -> dict[str, Payload]:
    """Weights for every site."""
    body = prefixed(NET, arrays) | prefixed(EXTRA, extra)
    return {site: federation.answer(WEIGHTS, site, body, number) for site in federation.sites}


def unpacked(order: Order) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(arrays of the network, extras) in an order's answer. Raises ValueError if the order brings no weights."""
    if order.answer is None or order.answer.kind != WEIGHTS:
        raise ValueError(f"the order {order.action!r} needs weights, and brings none")
    return under(order.answer.arrays, NET), under(order.answer.arrays, EXTRA)


def prefixed(prefix: str, arrays: Weights) -> dict[str, np.ndarray]:
    """The arrays, `prefix` in front of their names."""
    return {prefix + name: value for name, value in arrays.items()}


def under(arrays: Weights, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


@final
class Under(Mapping[str, np.ndarray]):
    """The same without a look at the arrays: those of a payload may lie on the disk until they are looked at."""

    def __init__(self, arrays: Weights, prefix: str) -> None:
        self._arrays, self._prefix = arrays, prefix

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._prefix) for name in self._arrays if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(name.startswith(self._prefix) for name in self._arrays)


def flat(arrays: Weights) -> np.ndarray:
    """All values as one vector (n,), array after array in the order of their names."""
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


def unflat(values: np.ndarray, like: Weights) -> dict[str, np.ndarray]:
    """A vector (n,) as arrays of the names and shapes of `like`: the reverse of `flat`."""
    arrays, start = {}, 0
    for name in sorted(like):
        arrays[name] = values[start : start + like[name].size].reshape(like[name].shape)
        start += like[name].size
    return arrays


def validation(net: nn.Module, site: Site, number: int, half: Half) -> Payload:
    """Dice of `net` on the test slices, per structure: on the grid, all slices pooled, one view, nothing kept."""
    from fedprivseg.nets.fitting import scores

    images = site.testing()
    values = np.full(len(site.task.structures), np.nan)
    if len(images):
        values = site.validate(scores(net, images[:, None], site.device, half))
    known = np.isfinite(values)
    arrays = {"dice": np.where(known, values, 0.0), "known": known.astype(np.uint8)}
    return numbered(METRIC, site, "measure", arrays, number)


def mean_dices(replies: Mapping[str, Payload]) -> dict[str, float]:
    """Mean Dice of the structures of a validation, by site; sites without test slices are left out."""
    known = {site: reply.arrays["known"].astype(bool) for site, reply in replies.items()}
    return {
        site: float(reply.arrays["dice"][known[site]].mean()) for site, reply in replies.items() if known[site].any()
    }


def marks(parameters: StepsParameters) -> frozenset[int]:
    """The rounds after which nets are scored for the learning curve."""
    points = parameters.curve_points
    return frozenset(max(1, round(parameters.rounds * (mark + 1) / points)) for mark in range(points))


def build(parameters: TrainingParameters, where: Place) -> nn.Module:
    """The network before the first round: the same one, weight by weight, for the server and every site."""
    from fedprivseg.nets.baseline import load_weights

    net = _built(parameters, Scope(where.grid, where.task), where.seed)
    if parameters.start == "phantom":
        load_weights(net, under(where.start(), NET))
    return net


def public_segmentation(parameters: TrainingParameters, scope: Scope) -> PublicStart | None:
    """The public start of a segmentation network: its own architecture, trained on public slices."""
    p = parameters
    if p.start == "random":
        return None
    schedule = {"steps": p.start_steps, "batch": p.batch, "rate": p.start_rate, "half": p.half}
    recipe = {"network": [p.net, norm_of(p)], **schedule}

    def fit(slices: Slices, device: str, progress: Progress) -> dict[str, np.ndarray]:
        from fedprivseg.nets.baseline import weights_of
        from fedprivseg.nets.descent import Schedule
        from fedprivseg.nets.pretraining import PUBLIC_SEED, pretrain

        net = _built(p, scope, PUBLIC_SEED)
        pretrain(
            net,
            slices.images,
            slices.masks,
            Schedule(p.start_steps, p.batch, p.start_rate, half=p.half),
            PUBLIC_SEED,
            ("public start",),
            device=device,
            progress=lambda _, done, total: progress("train the public start", done, total),
        )
        return prefixed(NET, weights_of(net))

    return PublicStart(recipe, p.start_subjects, fit)


def outline(parameters: TrainingParameters, scope: Scope) -> nn.Module:
    """The network on the device ``meta``: names and shapes of its arrays without any value, and in no time."""
    import torch

    with torch.device("meta"):
        return _built(parameters, scope, 0)


def travelling(net: nn.Module, personalised: frozenset[str] = frozenset()) -> dict[str, Array]:
    """What a WEIGHTS payload holds of `net`, but for what is personalised: its arrays under the names that they travel by.
    Values lie within `MOST_WEIGHT`, and no variance below 0: every other site's net would take the root of it."""
    from fedprivseg.nets.baseline import shapes_of

    return {
        NET + name: Array("float32", shape, 0 if name.endswith("running_var") else -MOST_WEIGHT, MOST_WEIGHT)
        for name, shape in shapes_of(net).items()
        if name not in personalised
    }


def _built(parameters: TrainingParameters, scope: Scope, seed: int) -> nn.Module:
    from fedprivseg.nets.baseline import build_net

    side = min(scope.grid.height, scope.grid.width)
    return build_net(parameters.net, norm_of(parameters), side, len(scope.task.structures), seed, "initial weights")


def norm_of(parameters: TrainingParameters) -> Norm:
    """The normalisation of its network: under differential privacy always GroupNorm, since batch norm mixes slices and there is
    no bound on what one of them does."""
    private = isinstance(parameters, RoundsParameters) and parameters.dp is not None
    return "group" if private else parameters.norm


def weight_of(parameters: RoundsParameters, facts: Mapping[str, int]) -> int:
    """The weight of a site in an average, from its counts (`Federation.facts`)."""
    weights = {"slices": facts["slices_train"], "subjects": facts["subjects_train"], "equal": 1}
    return weights[parameters.weighting]


def planned(parameters: TrainingParameters, first: int, steps: int, total: int) -> Work:
    """`steps` steps from number `first` on, of a run of `total`."""
    from fedprivseg.nets.local_training import Work

    p = parameters
    return Work(first, steps, total, p.batch, p.optimiser, p.rate, p.momentum, p.decay, p.clip, p.half)


def augmentation(parameters: TrainingParameters) -> Augment | None:
    """How slices are augmented, or None."""
    from fedprivseg.nets.augment import Augmentation, augment
    from fedprivseg.nets.augment_monai import augment_like_nnunet

    if parameters.augmentation == "monai":
        return augment_like_nnunet
    if parameters.augmentation == "none":
        return None
    return lambda images, masks, draws: augment(images, masks, Augmentation(), draws)


def segment(net: nn.Module, site: Site, images: np.ndarray, parameters: TrainingParameters) -> np.ndarray:
    """Class scores (N, C, H, W) of slices (N, H, W), averaged over the views of test-time augmentation."""
    from fedprivseg.nets.fitting import scores
    from fedprivseg.nets.test_time import average_scores, view

    p = parameters
    if not len(images):
        return np.zeros((0, site.task.classes, *images.shape[1:]), np.float32)
    parts = [scores(net, view(images, index)[:, None], site.device, p.half) for index in range(p.test_views)]
    return average_scores(np.concatenate(parts), p.test_views)


def segment_as_kept(site: Site, images: np.ndarray, parameters: TrainingParameters) -> np.ndarray:
    """The same with the network that the site kept when it measured."""
    from fedprivseg.nets.baseline import load_weights

    net = build(parameters, site)
    load_weights(net, site.vault.load("final"))
    return segment(net, site, images, parameters)


def numbered(
    kind: KindSpec, site: Site, purpose: str, arrays: Weights, number: int, history: tuple[str, ...] = ()
) -> Payload:
    """The payload of `site` in answer to order number `number`."""
    level = 2 if kind == METRIC else 3
    return Payload(kind, site.name, purpose, arrays, level, shard=number, shards=number + 1, history=history)
