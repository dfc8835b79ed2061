"""The loop that fits a network in one go: encoders, codecs, the mapping (rounds of a baseline: `local_training`).

AdamW under a one-cycle schedule (Smith and Topin, 2019) whose warm-up keeps the first, largest gradients of a Dice term
from closing ReLUs for good; gradients are clipped; weights may be averaged over the run (Polyak and Juditsky, 1992).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from fedprivseg.core.compute import Half, half_precision
from fedprivseg.core.errors import RunError
from fedprivseg.core.seeds import torch_generator

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` after a step."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps.
        batch: slices a step.
        rate: the largest learning rate.
        decay: AdamW's weight decay.
        warmup: share of the steps in which the rate rises.
        averaging: decay of the moving average of the weights that is returned instead of the last ones; 0 returns the last.
        half: bfloat16 arithmetic (`compute.half_precision`).
    """

    steps: int
    batch: int = 16
    rate: float = 2e-3
    decay: float = 1e-2
    warmup: float = 0.15
    averaging: float = 0.0
    half: Half = "auto"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2:
            raise ValueError(
                f"a schedule of {self.steps} steps of {self.batch} slices cannot train a network with batch norm: "
                "allowed are 1 step or more, of 2 slices or more"
            )


def descend(
    nets: nn.Module,
    loss: Callable[[torch.Tensor], torch.Tensor],
    count: int,
    schedule: Schedule,
    seed: int,
    names: tuple[str | int, ...],
    progress: Progress | None = None,
) -> float:
    """Minimise `loss` over the parameters of `nets`, in place; leaves `nets` in evaluation mode.

    Args:
        nets: what is trained.
        loss: indices (batch,) int64 into 0..count-1 -> scalar. Every index is drawn once before any is drawn again.
        count: how many indices there are.
        schedule: how long and how fast.
        seed: with `names`, where the order comes from.
        names: of the site and the purpose.
        progress: called after every step.

    Returns:
        The mean loss of the last tenth of the steps.

    Raises:
        RunError: the loss is no longer finite.
    """
    if count < 1:
        raise ValueError("there is nothing to train on: 0 slices given, at least 1 needed")
    weights = [weight for weight in nets.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=schedule.rate, weight_decay=schedule.decay)
    pace = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=schedule.rate,
        total_steps=schedule.steps + 1,
        # torch divides by the number of warm-up steps less one, so there must be more than one.
        pct_start=max(schedule.warmup, 2 / (schedule.steps + 1)),
    )
    average = _Average(nets, schedule.averaging) if schedule.averaging else None
    tail: list[torch.Tensor] = []
    nets.train()
    batches = shuffled(count, schedule.batch, torch_generator(seed, *names, "order"))
    for step, chosen in zip(range(1, schedule.steps + 1), batches, strict=False):
        optimiser.zero_grad(set_to_none=True)
        value = loss(chosen)
        value.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        pace.step()
        if average is not None:
            average.update()
        if step > 0.9 * schedule.steps:
            tail.append(value.detach())
        if progress is not None:
            progress(" ".join(map(str, names)), step, schedule.steps)
    final = float(torch.stack(tail).mean())
    if final != final or final in (float("inf"), float("-inf")):
        raise RunError(
            f"training of {' '.join(map(str, names))} diverged: the loss is {final} after {schedule.steps} steps at rate "
            f"{schedule.rate}; lower the rate"
        )
    if average is not None:
        average.place()
    nets.eval()
    return final


def shuffled(count: int, batch: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Endless batches of indices (batch,) int64: one permutation of 0..count-1 after another, cut without a remainder."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[:batch]
        waiting = waiting[batch:]


@contextmanager
def arithmetic(device: torch.device, half: Half) -> Iterator[None]:
    """bfloat16 autocast on `device` where `half` says so (`compute.half_precision`); weights stay float32."""
    with torch.autocast(device.type, torch.bfloat16, enabled=half_precision(device.type, half)):
        yield


class _Average:
    """Moving average of the weights and the batch-norm statistics of `nets`."""

    def __init__(self, nets: nn.Module, decay: float) -> None:
        self.nets = nets
        self.decay = decay
        self.steps = 0
        self.state = {name: value.clone() for name, value in nets.state_dict().items()}

    def update(self) -> None:
        self.steps += 1
        # A young average forgets faster: it should not remember the initial weights.
        keep = min(self.decay, self.steps / (self.steps + 10))
        for name, value in self.nets.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[name].lerp_(value, 1 - keep)
            else:
                self.state[name].copy_(value)

    def place(self) -> None:
        self.nets.load_state_dict(self.state)
