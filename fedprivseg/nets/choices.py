"""What is known of the networks without torch, so that a wrong request is refused before torch loads."""

from __future__ import annotations

from typing import Literal

NetName = Literal["unet", "unet-wide", "basic-unet", "nnunet"]
Norm = Literal["batch", "group"]
"""``batch``: the network's own norm, which is instance norm in basic-unet and nnunet; ``group``: GroupNorm in its place."""

Skips = Literal["add", "concatenate"]

VIEWS: tuple[tuple[tuple[int, ...], float], ...] = tuple(
    (flip, angle) for angle in (0.0, 15.0, -15.0) for flip in ((), (2,), (1,), (1, 2))
)
"""(axes mirrored, degrees turned) of each view of slices (N, H, W) at inference, see `nets.test_time`."""

ATTEMPTS = 3
"""Trainings that a network gets to find every structure."""

WIDTH = 8
"""Channels of the input stage of an encoding network (Table 2 of Chen et al. 2024); each stage below has twice as many."""


def code_shape(height: int, width: int, depth: int = 4, channels: int | None = None) -> tuple[int, int, int]:
    """The (C, h, w) of the code of one image. Raises ValueError if 2**depth does not divide both sides.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        depth: down-samplings.
        channels: of the code; None: as many as the last stage has.
    """
    cell = 2**depth
    if height % cell or width % cell:
        raise ValueError(
            f"an image of {height} x {width} pixels cannot pass {depth} down-samplings: both sides must be multiples of "
            f"{cell}; crop or pad to {-(-height // cell) * cell} x {-(-width // cell) * cell}"
        )
    return (WIDTH << depth if channels is None else channels), height // cell, width // cell
