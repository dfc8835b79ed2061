"""What a scenario may ask of a network, by name: read without torch, so that a wrong request is refused before torch loads."""

from __future__ import annotations

from typing import Literal

NetName = Literal["unet", "unet-wide", "basic-unet", "nnunet"]
Norm = Literal["batch", "group"]

VIEWS: tuple[tuple[tuple[int, ...], float], ...] = tuple(
    (flip, angle) for angle in (0.0, 15.0, -15.0) for flip in ((), (2,), (1,), (1, 2))
)
"""(axes mirrored, degrees turned) of each view of slices (N, H, W) at inference, see `nets.views`."""
