"""Operations on images that change their shape, so that no payload can be under them: for files alone.

Those that keep it are the arrays' own, in `protections`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from pydantic import Field

from fedprivseg.core.techniques import Technique
from fedprivseg.protections.boxes import Range, box, check_within
from fedprivseg.protections.operation import ArrayOperation, Key, Operation


@final
class Generalisation(ArrayOperation):
    """Means over blocks of pixels: a coarser image (..., ceil(H / block), ceil(W / block)).

    At the lower and right edge a block is as large as the image lets it be. Pixels grow by `block`, and so must the spacing
    that goes with the image.
    """

    name = "generalisation"
    techniques: ClassVar = (Technique.GENERALISATION,)
    guarantee = "none: a person may be known from a coarse image"
    reversal = "nobody: detail within a block is gone, though a trained network may invent a likely one"

    block: int = Field(ge=2, description="edge of a block in pixels")

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        height, width = value.shape[-2:]
        rows, columns = np.arange(0, height, self.block), np.arange(0, width, self.block)
        sums = np.add.reduceat(np.add.reduceat(value.astype(np.float64), rows, axis=-2), columns, axis=-1)
        pixels = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
        return (sums / pixels).astype(np.float32)

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.GENERALISATION}: means over blocks of {self.block} x {self.block} pixels"


@final
class Crop(ArrayOperation):
    """Cuts the image down to one box: (..., rows, columns)."""

    name = "crop"
    techniques: ClassVar = (Technique.TRUNCATION,)
    guarantee = "none: what stays tells what it told"
    reversal = "nobody: what was cut off is gone"

    rows: Range = Field(description="rows that stay")
    columns: Range = Field(description="columns that stay")

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        check_within(value.shape, self.rows, self.columns)
        return value[..., slice(*self.rows), slice(*self.columns)].copy()

    def history(self, shape: tuple[int, ...] = ()) -> str:
        check_within(shape, self.rows, self.columns)
        return f"{Technique.TRUNCATION} to {box(self.rows, self.columns)}"


@dataclass(frozen=True)
class Summary:
    """Statistics in place of an image.

    Attributes:
        counts: (bins,) int64, pixels a bin.
        edges: (bins + 1,) float64, the intensities between which the bins lie.
        mean: of all intensities.
        deviation: of all intensities.
        pixels: how many there were.
    """

    counts: np.ndarray
    edges: np.ndarray
    mean: float
    deviation: float
    pixels: int


@final
class Statistics(Operation[np.ndarray, Summary]):
    """Replaces all that is given by its histogram, mean and deviation."""

    name = "statistics"
    techniques: ClassVar = (Technique.STATISTICS,)
    guarantee = "none: exact numbers; the outer edges are the least and largest intensity"
    reversal = "nobody: where the intensities were is gone"

    bins: int = Field(default=64, ge=1, description="of the histogram")

    def apply(self, value: np.ndarray, key: Key) -> Summary:
        values = value.astype(np.float64)
        counts, edges = np.histogram(values, self.bins)
        return Summary(counts, edges, float(values.mean()), float(values.std()), values.size)

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.STATISTICS}: histogram of {self.bins} bins, mean and deviation"
