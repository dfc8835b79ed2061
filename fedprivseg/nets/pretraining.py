"""Fitting a network to public slices, before any site trains a step: where all that is compared may start from."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fedprivseg.core.seeds import torch_generator
from fedprivseg.nets.augment import Augmentation, augment
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
    where = torch.device(device)
    inputs = torch.from_numpy(np.ascontiguousarray(images))[:, None].to(where)
    labels = torch.from_numpy(np.ascontiguousarray(masks)).to(where)
    draws = torch_generator(seed, *names, "augmentation")
    net.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        chosen = chosen.to(where)
        batch, truth = augment(inputs[chosen], labels[chosen], WIDE, draws)
        with arithmetic(where, schedule.half):
            answer = net(batch.contiguous(memory_format=torch.channels_last))
        return supervised_loss(answer, truth)

    descend(net, loss, len(images), schedule, seed, names, progress)
