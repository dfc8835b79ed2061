"""Fitting a network to public slices: before any site trains a step, where all that is compared may start from; and to what
several others answer on them (distillation: Hinton et al., arXiv 1503.02531, 2015)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fedprivseg.core.seeds import torch_generator
from fedprivseg.nets.augment import Augmentation, augment, relight
from fedprivseg.nets.baseline import heads
from fedprivseg.nets.descent import Progress, Schedule, arithmetic, descend
from fedprivseg.nets.local_training import supervised_loss

PUBLIC_SEED = 0
"""Of the initial weights and draws of what is fitted to public slices: it is the same for every run."""

WIDE = Augmentation(
    rotation=180, scale=0.35, shift=0.1, elastic=0.05, gamma=0.8, contrast=0.5, brightness=0.2, noise=0.1, bias=0.6
)
"""Wider than what a site does to its own slices: there the scanner is known, here it is not."""


def pretrain(
    net: nn.Module,
    images: np.ndarray,
    masks: np.ndarray,
    schedule: Schedule,
    seed: int,
    names: tuple[str | int, ...],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> None:
    """Train `net`, which segments, in place on public slices under `WIDE` augmentation; leaves it in evaluation mode.

    Args:
        net: (N, 1, H, W) -> logits (N, K, H, W), or several under deep supervision.
        images: (N, H, W) float32 in 0..1.
        masks: (N, H, W) uint8, labels.
        schedule: how long and how fast.
        seed: with `names`, where the order of the slices and the augmentation come from.
        names: of the purpose.
        device: torch device.
        progress: called after every step.

    Raises:
        RunError: the loss is no longer finite.
    """

    def loss(inputs: torch.Tensor, labels: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        batch, truth = augment(inputs, labels, WIDE, draws)
        return supervised_loss(_answered(net, batch, schedule), truth)

    _fit(net, images, masks, loss, schedule, seed, names, "augmentation", device, progress)


def distil(
    net: nn.Module,
    images: np.ndarray,
    answers: np.ndarray,
    schedule: Schedule,
    seed: int,
    names: tuple[str | int, ...],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> float:
    """Train `net` in place to give `answers` on `images`; leaves it in evaluation mode and returns the last mean loss.

    The teachers saw each slice as it is; the student sees it in other light (`relight`), so that it learns the anatomy in their
    answers. The loss is the cross-entropy against their probabilities.

    Args:
        net: (N, 1, H, W) -> logits (N, K, H, W), or several under deep supervision, of which the finest is taught.
        images: (N, H, W) float32 in 0..1.
        answers: (N, K, H, W) probabilities of the structures; what they lack to 1 is the background's.
        schedule: how long and how fast.
        seed: with `names`, where the order and the light come from.
        names: of the purpose.
        device: torch device.
        progress: called after every step.

    Raises:
        RunError: the loss is no longer finite.
    """

    def loss(inputs: torch.Tensor, taught: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        logits = heads(_answered(net, relight(inputs, WIDE, draws), schedule))[0].float()
        logits = torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)
        truth = torch.cat([1 - taught.sum(dim=1, keepdim=True), taught], dim=1)
        return -(truth * logits.log_softmax(dim=1)).sum(dim=1).mean()

    return _fit(net, images, answers, loss, schedule, seed, names, "light", device, progress)


def _answered(net: nn.Module, batch: torch.Tensor, schedule: Schedule) -> torch.Tensor:
    """What `net` answers to a batch (n, 1, H, W), in the arithmetic of `schedule`."""
    with arithmetic(batch.device, schedule.half):
        found: torch.Tensor = net(batch.contiguous(memory_format=torch.channels_last))
    return found


def _fit(
    net: nn.Module,
    images: np.ndarray,
    targets: np.ndarray,
    loss: Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor],
    schedule: Schedule,
    seed: int,
    names: tuple[str | int, ...],
    drawn: str,
    device: str,
    progress: Progress | None,
) -> float:
    """Minimise ``loss(inputs (n, 1, H, W), targets (n, ...), draws)``; `drawn` names the draws."""
    where = torch.device(device)
    inputs = torch.from_numpy(np.ascontiguousarray(images))[:, None].to(where)
    wanted = torch.from_numpy(np.ascontiguousarray(targets)).to(where)
    draws = torch_generator(seed, *names, drawn)
    net.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def of_batch(chosen: torch.Tensor) -> torch.Tensor:
        chosen = chosen.to(where)
        return loss(inputs[chosen], wanted[chosen], draws)

    return descend(net, of_batch, len(images), schedule, seed, names, progress)
