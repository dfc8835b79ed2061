"""How much of the machine a party uses: torch threads and the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedprivseg.errors import RequestError


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


def require_gpus(gpus: float) -> None:
    """Raises RequestError if the scenario gives more GPUs (``resources.gpus``) than torch sees on this machine. For 0, torch is
    not imported."""
    if not gpus:
        return
    import torch

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus > seen:
        build = "" if torch.version.cuda else f" (torch {torch.__version__} is a build without CUDA)"
        allowed = f"to at most {seen}" if seen else "to 0 for the CPU alone"
        raise RequestError(
            f"the scenario gives gpus = {gpus:g}, and torch sees {seen or 'none'} here{build}; set resources.gpus {allowed}, "
            "or use a machine that has them"
        )


def device(gpus: float) -> str:
    """``"cuda"`` if the scenario gives GPUs, else ``"cpu"``. Raises RequestError as `require_gpus` does."""
    require_gpus(gpus)
    return "cuda" if gpus else "cpu"
