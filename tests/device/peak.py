"""What the machine does at best: the two lines of its roofline, measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timing import seconds_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Peak:
    """Operations and bytes a second that were reached: float32, bfloat16, and a copy (read and written)."""

    float32: float
    bfloat16: float
    copied: float

    def least_s(self, flops: float, moved: float, half: bool) -> float:
        """No faster than this can `flops` operations on `moved` bytes be: the roofline."""
        return max(flops / (self.bfloat16 if half else self.float32), moved / self.copied)


def peak(device: str, dry: bool) -> Peak:
    """The best of some products of square matrices, and of some copies."""
    side, count = (256, 1 << 20) if dry else (8192, 1 << 30)
    rates = []
    for kind in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        rates.append(2 * side**3 / seconds_of(lambda a=left, b=right: a @ b, device))
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Peak(*rates, 2 * count / seconds_of(lambda: target.copy_(source), device))


class _Moved(TorchDispatchMode):
    """Counts the bytes that operations read and write, each by itself, as they do without a compiler."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        done = func(*args, **(kwargs or {}))
        if not func.is_view:
            touched = [each for each in tree_flatten((args, kwargs, done))[0] if isinstance(each, torch.Tensor)]
            self.bytes += sum(each.numel() * each.element_size() for each in touched)
        return done


def work_of(step: Callable[[], Any]) -> tuple[float, float]:
    """Operations of `step`, and bytes that it moves."""
    with FlopCounterMode(display=False) as counted:
        step()
    with _Moved() as moved:
        step()
    return float(counted.get_total_flops()), float(moved.bytes)
