"""Seconds of something that a device does: the best of some, after a few that do not count; on a CPU of fewer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def finish(device: str) -> None:
    """Wait until all that was asked of the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds_of(step: Callable[[], Any], device: str) -> float:
    """Seconds of one `step`."""
    warm, times = (3, 10) if device.startswith("cuda") else (1, 2)
    for _ in range(warm):
        step()
    finish(device)
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        step()
        finish(device)
        spent.append(time.perf_counter() - start)
    return min(spent)
