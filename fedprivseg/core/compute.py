"""How a party uses the machine: torch threads, the device, and whether it computes in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from fedprivseg.core.errors import RequestError

Half = bool | Literal["auto"]
"""Whether networks compute in bfloat16: yes, no, or where the hardware has instructions for it (`half_precision`)."""


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


def gpus_seen() -> int:
    """How many GPUs torch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def lacking_gpus(gpus: float) -> str | None:
    """What is wrong, in a sentence, if the scenario gives more GPUs (``resources.gpus``) than torch sees on this machine. For
    0, torch is not imported."""
    if not gpus or gpus <= (seen := gpus_seen()):
        return None
    import torch

    build = "" if torch.version.cuda else f" (torch {torch.__version__} is a build without CUDA)"
    allowed = f"to at most {seen}" if seen else "to 0 for the CPU alone"
    return (
        f"the scenario gives gpus = {gpus:g}, and torch sees {seen or 'none'} here{build}; set resources.gpus {allowed}, "
        "or use a machine that has them"
    )


def require_gpus(gpus: float) -> None:
    """Raises RequestError as `lacking_gpus` says."""
    if lacking := lacking_gpus(gpus):
        raise RequestError(lacking)


def device(gpus: float) -> str:
    """``"cuda"`` if the scenario gives GPUs, else ``"cpu"``. Raises RequestError as `require_gpus` does."""
    require_gpus(gpus)
    return "cuda" if gpus else "cpu"


def half_precision(device: str, half: Half = "auto") -> bool:
    """Whether to compute in bfloat16 on `device`; ``"auto"`` asks the hardware, anything else is the answer.

    A CPU without bfloat16 instructions emulates them, and is then about ten times as slow as in float32: 2,110 ms of CPU
    against 230 for a U-Net step of 16 slices of 96 x 96 under AVX2. With AVX512_BF16 the same step takes 160 ms, and 290
    in float32. So a CPU qualifies by AVX512_BF16 or AMX, unless oneDNN was told to use neither (``ONEDNN_MAX_CPU_ISA``); a
    GPU as torch says. The question is one of capability and not of a measured time, so that a busy machine gives the same
    answer, and the same numbers, as a quiet one.

    device: ``"cpu"`` or ``"cuda"``, with or without an index.
    """
    import torch

    if half != "auto":
        return half
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(instructions and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def arithmetic_name(device: str, half: Half = "auto") -> str:
    """What `half_precision` comes to, as a result states it: ``"bfloat16"`` or ``"float32"``."""
    return "bfloat16" if half_precision(device, half) else "float32"
