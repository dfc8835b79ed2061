"""How much of the machine a party uses: torch threads and the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch computes with `count` threads inside the block, and with as many as before after it.

    Sums over threads depend on their number in the last bits, so the number comes from the scenario, not the machine.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device(gpus: float) -> str:
    """``"cuda"`` if the scenario gives GPUs, else ``"cpu"``. Raises RuntimeError if it gives GPUs and torch sees none."""
    if not gpus:
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError(
            "the scenario gives gpus, but torch sees none; set resources.gpus = 0 or install a CUDA build"
        )
    return "cuda"


def gpus_seen() -> int:
    """How many GPUs torch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
