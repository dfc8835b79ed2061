"""How long training takes, before it begins: rates that were measured once, and what a method asks for.

The rates are CPU seconds of one core of an AMD EPYC with AVX2 for one step of 16 slices of 96 x 96 pixels in float32 (PyTorch
2.13, 29 November 2026). They grow with the number of pixels. Other processors, other loads of the machine and everything but
training (reading, inference, the transport) make the truth up to three times as long or as short.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedprivseg.core.records import Grid

UNET_S = 0.24
"""A step of the U-Net that the baselines train, with augmentation."""
TASK_ENCODER_S = 0.18
"""A step of a task or answer encoder."""
IMAGE_CODEC_S = 0.20
"""A step of the image codec of Table 2."""
MASK_CODEC_S = 0.08
"""A step of the mask codec."""
MAPPING_S = 0.13
"""A step of the segmentation network on codes, if it is a U-Net."""
OVER_COMPLETE_S = 0.29
"""A step of the over-complete one of the paper."""

_BATCH, _PIXELS = 16, 96 * 96


@dataclass(frozen=True)
class Effort:
    """CPU seconds of one core that training takes: at each site, and at the server."""

    site: float
    server: float


def training_s(step_s: float, steps: int, batch: int, grid: Grid) -> float:
    """CPU seconds of `steps` steps of `batch` slices on `grid`. step_s: one of the rates above."""
    return step_s * steps * (batch / _BATCH) * (grid.height * grid.width / _PIXELS)
