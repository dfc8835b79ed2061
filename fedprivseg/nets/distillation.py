"""Teaching one network what several others answer on public slices (Hinton et al., arXiv 1503.02531, 2015)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fedprivseg.core.seeds import torch_generator
from fedprivseg.nets.augment import relight
from fedprivseg.nets.baseline import heads
from fedprivseg.nets.descent import Progress, Schedule, arithmetic, descend
from fedprivseg.nets.pretraining import WIDE


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
    where = torch.device(device)
    inputs = torch.from_numpy(np.ascontiguousarray(images))[:, None].to(where)
    taught = torch.from_numpy(np.ascontiguousarray(answers)).to(where)
    draws = torch_generator(seed, *names, "light")
    net.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        chosen = chosen.to(where)
        batch = relight(inputs[chosen], WIDE, draws)
        with arithmetic(where, schedule.half):
            answer = net(batch.contiguous(memory_format=torch.channels_last))
        logits = heads(answer)[0].float()
        logits = torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)
        truth = taught[chosen].float()
        truth = torch.cat([1 - truth.sum(dim=1, keepdim=True), truth], dim=1)
        return -(truth * logits.log_softmax(dim=1)).sum(dim=1).mean()

    return descend(net, loss, len(images), schedule, seed, names, progress)
