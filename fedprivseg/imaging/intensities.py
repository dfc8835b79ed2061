"""Intensities as a network sees them, and images that would tell it nothing.

A volume's 1st to 99th percentile becomes 0 to 1. A frame of zeros, a few bright voxels in a void and a slice that padding added
have nothing between these percentiles, or nothing in that slice: the network would be shown a constant, and whatever it answers
is invented. Such an image is a fault wherever one is read: `data check`, a run and `predict`.
"""

from __future__ import annotations

import numpy as np

from fedprivseg.core.errors import DataError

_LISTED = 8


class NoSignalError(DataError):
    """An image, or a slice of it, that would reach a network as a constant. The text names slices and no intensity."""


def stretched(image: np.ndarray) -> np.ndarray:
    """`image` (X, Y, Z) float32, finite, with its 1st to 99th percentile at 0 to 1, clipped to 0..1; float32.

    Raises NoSignalError if the two percentiles are equal, so that nothing can be stretched.
    """
    low, high = np.percentile(image, (1, 99))
    if not high > low:
        raise NoSignalError(
            "at least 98 of 100 voxels of a frame have one and the same intensity; a frame with a picture is needed. "
            "Replace the frame, or take the image out."
        )
    return np.clip((image - np.float32(low)) / np.float32(high - low), 0, 1)


def require_signal(slices: np.ndarray) -> None:
    """Refuse `slices` (N, H, W), stretched, of which one is a constant. Raises NoSignalError that names which."""
    flat = slices.reshape(len(slices), -1)
    blank = np.flatnonzero(flat.max(axis=1) == flat.min(axis=1))
    if len(blank):
        named = ", ".join(map(str, blank[:_LISTED])) + (", ..." if len(blank) > _LISTED else "")
        raise NoSignalError(
            f"{len(blank)} of {len(slices)} slices of a frame are blank (from 0: {named}); a network would see a constant. "
            "Take blank slices out of image and mask, or replace the image."
        )


def without_signal(image: np.ndarray) -> str:
    """What `stretched` or `require_signal` has against the frame `image` (X, Y, Z) float32, finite; empty if nothing."""
    try:
        require_signal(stretched(image).transpose(2, 0, 1))
    except NoSignalError as fault:
        return str(fault)
    return ""
