"""One round of training at a site: some steps from given weights, and what an algorithm adds to them.

SGD with Nesterov momentum under nnU-Net's polynomial decay (or AdamW); cross-entropy plus Dice; gradients clipped. The rate
follows the step's place in the whole run, not in the round, so that a run of many rounds and one long training decay alike.
The momentum starts again each round, as a site that is not always chosen cannot keep it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import torch
from torch import nn

from fedprivseg.core.compute import Half
from fedprivseg.core.errors import RunError
from fedprivseg.core.seeds import torch_generator
from fedprivseg.nets.baseline import heads
from fedprivseg.nets.descent import Progress, arithmetic, shuffled
from fedprivseg.nets.segmentation import segmentation_loss
from fedprivseg.nets.steps import Steps

Augment = Callable[[torch.Tensor, torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]]
"""``augment(images (N, 1, H, W), masks (N, H, W), generator)``: a changed copy of both."""

Correction = Callable[[nn.Module], None]
"""``correction(net)``: what a method does to the gradient of a step, after it was clipped and before the step: it changes
``.grad`` of the parameters of `net` in place."""

POWER = 0.9
"""Exponent of the polynomial decay (Isensee et al. 2021)."""


@dataclass(frozen=True)
class Work:
    """How a site trains.

    Attributes:
        first: number of the first of these steps in the run, from 0.
        steps: how many steps these are.
        total: steps of the whole run, for the decay.
        batch: slices a step.
        optimiser: of the steps.
        rate: learning rate at the run's first step.
        momentum: Nesterov momentum (sgd only).
        decay: weight decay.
        clip: largest norm of a gradient.
        half: bfloat16 arithmetic (`compute.half_precision`).
    """

    first: int
    steps: int
    total: int
    batch: int = 16
    optimiser: Literal["sgd", "adamw"] = "sgd"
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 3e-5
    clip: float = 12.0
    half: Half = "auto"

    def rate_at(self, step: int) -> float:
        """The learning rate at step `step` of this round."""
        done = (self.first + step) / max(self.total, self.first + self.steps)
        return float(self.rate * (1 - done) ** POWER)


def train_round(
    net: nn.Module,
    images: np.ndarray,
    masks: np.ndarray,
    work: Work,
    seed: int,
    names: tuple[str | int, ...],
    *,
    augment: Augment | None = None,
    correction: Correction | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> float:
    """Train `net` in place for ``work.steps`` steps and return their mean loss; leaves it in evaluation mode.

    Args:
        net: the network.
        images: (N, H, W) float32 in 0..1.
        masks: (N, H, W) uint8, labels.
        work: which steps.
        seed: with `names`, where the order of the slices and the augmentation come from.
        names: of the site and the purpose.
        augment: None trains on the slices as they are.
        correction: None leaves the gradients as they are.
        device: torch device.
        progress: called after every step.

    Raises:
        RunError: the loss is no longer finite.
    """
    where = torch.device(device)
    inputs = torch.from_numpy(np.ascontiguousarray(images))[:, None].to(where)
    labels = torch.from_numpy(np.ascontiguousarray(masks)).to(where)
    net.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = Steps(net, work.optimiser, work.momentum, work.decay)
    draws = torch_generator(seed, *names, "augmentation")
    batches = shuffled(len(images), work.batch, torch_generator(seed, *names, "order"))
    losses = []
    net.train()
    for step, chosen in zip(range(work.steps), batches, strict=False):
        chosen = chosen.to(where)
        batch, truth = inputs[chosen], labels[chosen]
        if augment is not None:
            batch, truth = augment(batch, truth, draws)
        steps.clear()
        with arithmetic(where, work.half):
            answer = net(batch.contiguous(memory_format=torch.channels_last))
        loss = supervised_loss(answer, truth)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), work.clip)
        if correction is not None:
            correction(net)
        steps.take(work.rate_at(step))
        losses.append(loss.detach())
        if progress is not None:
            progress(" ".join(map(str, names)), step + 1, work.steps)
    net.eval()
    return finite_mean(losses, work)


@torch.no_grad()
def pass_batch(
    net: nn.Module,
    images: np.ndarray,
    work: Work,
    step: int,
    seed: int,
    names: tuple[str | int, ...],
    *,
    device: str = "cpu",
) -> None:
    """Pass the batch of step `step` through `net` as `train_round` would, on slices as they are: running statistics move, and
    no weight; leaves it in evaluation mode.

    Args:
        net: with the weights before that step.
        images: (N, H, W) float32 in 0..1.
        work: which steps.
        step: which of them, from 0.
        seed: with `names`, where the order of the slices comes from.
        names: of the site and the purpose.
        device: torch device.
    """
    where = torch.device(device)
    batches = shuffled(len(images), work.batch, torch_generator(seed, *names, "order"))
    chosen = next(islice(batches, step, None))
    batch = torch.from_numpy(np.ascontiguousarray(images[chosen.numpy()]))[:, None].to(where)
    net.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.train()
    with arithmetic(where, work.half):
        net(batch.contiguous(memory_format=torch.channels_last))
    net.eval()


@torch.no_grad()
def loss_of(
    net: nn.Module, images: np.ndarray, masks: np.ndarray, batch: int, *, device: str = "cpu", half: Half = False
) -> float:
    """The loss of `net` in use (running statistics as they are) on slices as they are, in their order: the mean over batches,
    each by its slices. Raises RunError if it is not finite.

    Args:
        net: as it is used; nothing of it changes but its place and mode.
        images: (N, H, W) float32 in 0..1, N at least 1.
        masks: (N, H, W) uint8, labels.
        batch: slices that are looked at together.
        device: torch device.
        half: as in `Work`.
    """
    where = torch.device(device)
    net.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.eval()
    total = 0.0
    for place in range(0, len(images), batch):
        part = torch.from_numpy(np.ascontiguousarray(images[place : place + batch]))[:, None].to(where)
        truth = torch.from_numpy(np.ascontiguousarray(masks[place : place + batch])).to(where)
        with arithmetic(where, half):
            answer = net(part.contiguous(memory_format=torch.channels_last))
        total += float(supervised_loss(answer, truth)) * len(part)
    if not np.isfinite(total):
        raise RunError("the received weights have no finite loss on this site's slices; lower method.parameters.rate")
    return total / len(images)


def supervised_loss(answer: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The loss of each head, halved from one to the next coarser (Isensee et al. 2021), weights summing to 1."""
    found = heads(answer)
    shares = [0.5**place for place in range(len(found))]
    losses = [share * segmentation_loss(logits, masks) for share, logits in zip(shares, found, strict=True)]
    return torch.stack(losses).sum() / sum(shares)


def finite_mean(losses: list[torch.Tensor], work: Work) -> float:
    """Mean of the steps' losses. Raises RunError if it is not finite."""
    mean = float(torch.stack(losses).mean())
    if not np.isfinite(mean):
        raise RunError(f"local training diverged (loss {mean}) at rate {work.rate}; lower method.parameters.rate")
    return mean
