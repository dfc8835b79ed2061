"""Boxes of an array that are covered, or that alone stay: rows and columns, the same in every slice and channel.

A range is ``(first, end)``, the end not included, and must lie within the array.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, final

import numpy as np
from pydantic import AfterValidator, Field

from fedprivseg.core.errors import RequestError
from fedprivseg.core.techniques import Technique
from fedprivseg.protections.operation import ArrayOperation, Key

LARGEST = float(np.finfo(np.float32).max)
Intensity = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
"""A finite number that float32 holds."""


def _ordered(bounds: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= bounds[0] < bounds[1]:
        raise ValueError("two whole numbers 0 <= first < end are needed")
    return bounds


Range = Annotated[tuple[int, int], AfterValidator(_ordered)]


@final
class Occlusion(ArrayOperation):
    """Covers one box with a flat value, such as the corner of an image into which a name is burned."""

    name = "occlusion"
    techniques: ClassVar = (Technique.OCCLUSION,)
    guarantee = "none: the box tells nothing, and everything around it tells what it told"
    reversal = "nobody: what was in the box is gone, though much of it may be guessed from around it"

    rows: Range = Field(description="rows of the box", examples=[(0, 2)])
    columns: Range = Field(description="columns of the box", examples=[(1, 3)])
    value: Intensity = Field(default=0.0, description="that covers the box")

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        check_within(value.shape, self.rows, self.columns)
        covered = value.copy()
        covered[..., slice(*self.rows), slice(*self.columns)] = self.value
        return covered

    def history(self, shape: tuple[int, ...] = ()) -> str:
        check_within(shape, self.rows, self.columns)
        return f"{Technique.OCCLUSION} of {box(self.rows, self.columns)} with {self.value:g}"


@final
class Masking(ArrayOperation):
    """Covers everything but one box with a flat value: only the region that is needed stays."""

    name = "masking"
    techniques: ClassVar = (Technique.MASKING,)
    guarantee = "none: the box that stays tells what it told"
    reversal = "nobody: what was around the box is gone"

    kept_rows: Range = Field(description="rows of the box that stays", examples=[(0, 2)])
    kept_columns: Range = Field(description="columns of the box that stays", examples=[(1, 3)])
    value: Intensity = Field(default=0.0, description="that covers everything else")

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        check_within(value.shape, self.kept_rows, self.kept_columns)
        kept = (..., slice(*self.kept_rows), slice(*self.kept_columns))
        masked = np.full_like(value, self.value)
        masked[kept] = value[kept]
        return masked

    def history(self, shape: tuple[int, ...] = ()) -> str:
        check_within(shape, self.kept_rows, self.kept_columns)
        return f"{Technique.MASKING} of all but {box(self.kept_rows, self.kept_columns)} with {self.value:g}"


@final
class NullInsertion(ArrayOperation):
    """Puts a null value in place of every region.

    The null is finite, because a value that is no number does not pass the gate; choose one that the array does not have if
    missing and dark must stay apart.
    """

    name = "null-insertion"
    techniques: ClassVar = (Technique.NULL_INSERTION,)
    guarantee = "none: everything outside the regions tells what it told"
    reversal = "nobody: what was in the regions is gone"

    regions: tuple[tuple[Range, Range], ...] = Field(
        min_length=1, description="rows and columns of each region", examples=[(((0, 1), (0, 1)), ((2, 4), (1, 2)))]
    )
    null: Intensity = Field(default=0.0, description="that stands there")

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        emptied = value.copy()
        for rows, columns in self.regions:
            check_within(value.shape, rows, columns)
            emptied[..., slice(*rows), slice(*columns)] = self.null
        return emptied

    def history(self, shape: tuple[int, ...] = ()) -> str:
        for rows, columns in self.regions:
            check_within(shape, rows, columns)
        places = "; ".join(box(rows, columns) for rows, columns in self.regions)
        return f"{Technique.NULL_INSERTION} of {self.null:g} at {places}"


def check_within(shape: tuple[int, ...], rows: Range, columns: Range) -> None:
    """Raise RequestError unless the box lies within arrays of this shape (..., H, W)."""
    height, width = shape[-2:]
    if rows[1] > height or columns[1] > width:
        # Numpy would cut the box to the array, and what it was meant to cover might lie elsewhere.
        raise RequestError(
            f"{box(rows, columns)} were given for {height} rows and {width} columns; the box must lie within them. Check the "
            "order of the axes."
        )


def box(rows: Range, columns: Range) -> str:
    """A box in words."""
    return f"rows {rows[0]} to {rows[1]}, columns {columns[0]} to {columns[1]}"
