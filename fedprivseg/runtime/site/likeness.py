"""How like a site's training images another image is: a few numbers of each, and the range in which the training images' lie.

A network answers whatever it is shown. What it was never shown it segments badly, and says nothing of that. The ranges are made
of the site's own training subjects, stay in its vault, and serve `prediction` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

import numpy as np

from fedprivseg.imaging.geometry import Geometry

PROFILE = "training-profile"
"""The name of the ranges in a site's vault."""

Ranges = Mapping[str, np.ndarray]
"""Name of a number -> its lowest and highest over training subjects, float64 of shape (2,)."""


@final
@dataclass(frozen=True)
class _Number:
    """title: what it is, in words. unit: after the value. margin: relative, how far beyond the range is no surprise."""

    title: str
    unit: str
    margin: float


_NUMBERS: Mapping[str, _Number] = MappingProxyType(
    {
        "pixel": _Number("pixels", " mm", 0.25),
        "slices": _Number("slices apart by", " mm", 0.25),
        "view": _Number("a field of view of", " mm", 0.25),
        "count": _Number("slices, in number", "", 0.5),
        "mean": _Number("a mean intensity (0 to 1, as the network sees it) of", "", 0.5),
        "spread": _Number("a standard deviation of intensity of", "", 0.5),
        "roughness": _Number("a mean step between neighbouring pixels of", "", 1.0),
    }
)


def numbers(geometry: Geometry, images: np.ndarray) -> dict[str, float]:
    """What is compared of one image.

    geometry: the image's own.
    images: (N, H, W) float32 in 0..1, its slices on the network grid, at least one. Intensities in scanner units say nothing:
    they are stretched before a network sees them.
    """
    x, y, slices = geometry.spacing
    return {
        "pixel": max(x, y),
        "slices": slices,
        "view": min(x * geometry.shape[0], y * geometry.shape[1]),
        "count": float(geometry.shape[2]),
        "mean": float(images.mean()),
        "spread": float(images.std()),
        "roughness": float(np.abs(np.diff(images, axis=2)).mean()),
    }


def ranges(subjects: Iterable[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """The `Ranges` of training subjects' numbers; from -inf to inf where there is none, so that nothing is unlike them."""
    found = list(subjects)
    if not found:
        return {name: np.array([-np.inf, np.inf]) for name in _NUMBERS}
    return {name: np.array([min(n[name] for n in found), max(n[name] for n in found)]) for name in _NUMBERS}


def unlike(image: Mapping[str, float], training: Ranges) -> list[str]:
    """What of an image lies outside of the training images' range and the margin around it; each one phrase."""
    found = []
    for name, number in _NUMBERS.items():
        low, high = (float(value) for value in training[name])
        if not low / (1 + number.margin) <= image[name] <= high * (1 + number.margin):
            found.append(f"{number.title} {image[name]:.3g}{number.unit}; there {low:.3g} to {high:.3g}{number.unit}")
    return found
