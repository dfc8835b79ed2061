"""One round of training at a site under differential privacy: DP-SGD (Abadi et al., CCS 2016) by Opacus.

Each step draws every unit (a slice, or a patient with some of its slices) independently with the sampling rate, clips
each unit's gradient and adds Gaussian noise. What is promised is about one unit: that what the site sends would look much
the same without it. The loss is a mean of losses of single slices, for a Dice pooled over a batch would let one slice
into the gradients of the others; batch norm would too, so networks need GroupNorm.

Noise comes from a seeded generator, so that runs can be repeated. A real deployment must draw it from a secure source
that nobody else can repeat (Opacus: ``secure_mode``).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from fedprivseg.core.seeds import torch_generator
from fedprivseg.nets.baseline import heads
from fedprivseg.nets.descent import Progress
from fedprivseg.nets.local_training import Augment, Correction, Work
from fedprivseg.nets.segmentation import segmentation_loss

if TYPE_CHECKING:
    from opacus import GradSampleModule

Unit = Literal["slice", "patient"]


@dataclass(frozen=True)
class Mechanism:
    """DP-SGD's noise.

    Attributes:
        noise: multiplier: deviation of the noise over the clipping norm.
        rate: sampling rate of units, in 0..1.
        clip: largest norm of a unit's gradient.
        unit: what is protected.
        per_patient: slices drawn of each patient that was drawn.
    """

    noise: float
    rate: float
    clip: float
    unit: Unit
    per_patient: int = 4


ORDERS = (1.25, 1.5, 1.75, *range(2, 64), 80, 96, 128, 192, 256, 512, 1024)
"""Renyi orders that are tried. Opacus' own list has a hundred fractional ones, each of which takes it a series to sum."""


def noise_for(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The noise multiplier with which `steps` steps at sampling rate `rate` spend at most (epsilon, delta), to 1 % of it;
    Opacus' RDP accountant (Mironov 2017; Mironov, Talwar and Zhang 2019)."""
    from opacus.accountants.utils import get_noise_multiplier

    with _any_order():
        return float(
            get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=rate,
                steps=steps,
                epsilon_tolerance=epsilon / 100,
                alphas=ORDERS,
            )
        )


def epsilon_spent(noise: float, delta: float, rate: float, steps: int) -> float:
    """The epsilon that `steps` steps have spent at this delta; 0 before the first."""
    from opacus.accountants import RDPAccountant

    if not steps:
        return 0.0
    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    with _any_order():
        return float(accountant.get_epsilon(delta=delta, alphas=ORDERS))


@contextmanager
def _any_order() -> Iterator[None]:
    """Opacus warns when the best order is the first or the last of those tried; the bound holds at every order."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        yield


def train_private_round(
    net: nn.Module,
    images: np.ndarray,
    masks: np.ndarray,
    subjects: np.ndarray,
    work: Work,
    mechanism: Mechanism,
    seed: int,
    names: tuple[str | int, ...],
    *,
    augment: Augment | None = None,
    correction: Correction | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> None:
    """Train `net` in place for ``work.steps`` private steps; ``work.batch`` and ``work.clip`` have no say here.

    Returns no loss: the loss of private data is private. The correction sees gradients after the noise, so whatever it keeps
    of them is private as well.

    Args:
        net: without batch norm.
        images: (N, H, W) float32 in 0..1.
        masks: (N, H, W) uint8, labels.
        subjects: (N,) int, whose slice each is.
        work: which steps.
        mechanism: the noise.
        seed: with `names`, where all draws come from, those of the noise too.
        names: of the site and the purpose.
        augment: as in `train_round`.
        correction: as in `train_round`.
        device: torch device.
        progress: called after every step.

    Raises:
        ValueError: the network has batch norm.
    """
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules()):
        raise ValueError("batch norm mixes the slices of a batch, so no slice's gradient can be bounded; use GroupNorm")
    where = torch.device(device)
    inputs = torch.from_numpy(np.ascontiguousarray(images))[:, None]
    labels = torch.from_numpy(np.ascontiguousarray(masks))
    owners = subjects if mechanism.unit == "patient" else np.arange(len(images))
    units = [np.flatnonzero(owners == owner) for owner in np.unique(owners)]
    net.to(where)
    wrapped = GradSampleModule(net, loss_reduction="mean")
    optimiser = DPOptimizer(
        _optimiser(net, work),
        noise_multiplier=mechanism.noise,
        max_grad_norm=mechanism.clip,
        expected_batch_size=max(1, round(mechanism.rate * len(units))),
        generator=torch_generator(seed, *names, "privacy noise"),
    )
    draws = torch_generator(seed, *names, "augmentation")
    lots = torch_generator(seed, *names, "sampling")
    net.train()
    for step in range(work.steps):
        drawn = _drawn(units, mechanism, lots)
        for group in optimiser.param_groups:
            group["lr"] = work.rate_at(step)
        optimiser.zero_grad(set_to_none=True)
        if len(drawn):
            batch, truth = inputs[drawn], labels[drawn]
            if augment is not None:
                batch, truth = augment(batch, truth, draws)
            # Opacus hooks the first layer as well, which then needs a gradient to pass through.
            separate_loss(wrapped(batch.to(where).requires_grad_()), truth.to(where)).backward()
        _by_unit(wrapped, mechanism.per_patient if mechanism.unit == "patient" else 1)
        if optimiser.pre_step():
            if correction is not None:
                correction(net)
            optimiser.original_optimizer.step()
        if progress is not None:
            progress(" ".join(map(str, names)), step + 1, work.steps)
    wrapped.remove_hooks()
    net.eval()


def separate_loss(answer: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The mean over slices of each slice's own loss; over heads as in `supervised_loss`."""
    found = heads(answer)
    shares = [0.5**place for place in range(len(found))]
    total = torch.zeros((), device=answer.device)
    for share, logits in zip(shares, found, strict=True):
        each = [segmentation_loss(logits[i : i + 1], masks[i : i + 1]) for i in range(len(masks))]
        total = total + share * torch.stack(each).mean()
    return total / sum(shares)


def _drawn(units: list[np.ndarray], mechanism: Mechanism, lots: torch.Generator) -> torch.Tensor:
    """Indices of the slices of a step: Poisson sampling of units; of each patient `per_patient` slices, with replacement."""
    chosen = torch.rand(len(units), generator=lots) < mechanism.rate
    found = []
    for place in torch.nonzero(chosen).flatten().tolist():
        mine = torch.from_numpy(units[place])
        if mechanism.unit == "patient":
            mine = mine[torch.randint(len(mine), (mechanism.per_patient,), generator=lots)]
        found.append(mine)
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)


def _by_unit(wrapped: GradSampleModule, slices: int) -> None:
    """Turn gradients of slices into those of units: the mean over each `slices` neighbours; none if nobody was drawn."""
    for parameter in wrapped.parameters():
        sample = getattr(parameter, "grad_sample", None)
        if sample is None:
            parameter.grad_sample = torch.zeros((0, *parameter.shape), device=parameter.device)
        elif slices > 1:
            # Opacus scaled by the number of slices; a unit's gradient is the mean over its slices.
            parameter.grad_sample = sample.reshape(-1, slices, *parameter.shape).mean(dim=1)


def _optimiser(net: nn.Module, work: Work) -> torch.optim.Optimizer:
    """The optimiser that `work` asks for, over all parameters of `net`, as the class that Opacus wraps."""
    if work.optimiser == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=work.rate, weight_decay=work.decay)
    return torch.optim.SGD(
        net.parameters(), lr=work.rate, momentum=work.momentum, nesterov=work.momentum > 0, weight_decay=work.decay
    )
