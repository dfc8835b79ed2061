"""De-identification of pictures, clause 5.2 of T/SCGS 313008-2024: one final class a technique.

Pictures are float32 and finite, ``(H, W)`` or ``(N, H, W)`` or of more axes: the last two are rows and columns, and all
others count slices. A volume ``(X, Y, Z)`` is therefore given as ``(Z, X, Y)``. The result is a new float32 array. Ranges of
rows and columns are ``(first, end)``, the end not included, and must lie within the picture. Operations that a key undoes
are in `deidentify_keyed`.

None of these operations bounds what a picture tells. What remains of it is for the attacks to measure.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.deidentify.operation import Done, Operation, finite, positive, whole
from fedprivseg.governance.policy.technique_table import Technique

Range = tuple[int, int]

_LARGEST = float(np.finfo(np.float32).max)


class ImageOperation(Operation):
    """An operation that makes a picture of a picture."""

    @abstractmethod
    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """`image` (..., H, W) float32 as it may be shown, and what was done. Operations that draw do so from `generator`
        alone; all others leave it as it is. Raises RequestError for a picture of another type or too small."""


# --- covering --------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Occlusion(ImageOperation):
    """Covers one box with a flat `value`, such as the corner of a picture into which a name is burned."""

    rows: Range
    columns: Range
    value: float = 0.0

    technique = Technique.OCCLUSION
    guarantee = "none: the box tells nothing, and everything around it tells what it told"
    reversal = "nobody: what was in the box is gone, though much of it may be guessed from around it"

    def __post_init__(self) -> None:
        _range(self.rows, "rows")
        _range(self.columns, "columns")
        _intensity(self.value, "value")

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        _within(picture(image), self.rows, self.columns)
        covered = image.copy()
        covered[..., slice(*self.rows), slice(*self.columns)] = self.value
        return Done(covered, f"{self.technique} of {_box(self.rows, self.columns)} with {self.value:g}")


@final
@dataclass(frozen=True)
class Masking(ImageOperation):
    """Covers everything but one box with a flat `value`: of the picture only the region that is needed stays."""

    kept_rows: Range
    kept_columns: Range
    value: float = 0.0

    technique = Technique.MASKING
    guarantee = "none: the box that stays tells what it told"
    reversal = "nobody: what was around the box is gone"

    def __post_init__(self) -> None:
        _range(self.kept_rows, "kept_rows")
        _range(self.kept_columns, "kept_columns")
        _intensity(self.value, "value")

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        _within(picture(image), self.kept_rows, self.kept_columns)
        box = (..., slice(*self.kept_rows), slice(*self.kept_columns))
        masked = np.full_like(image, self.value)
        masked[box] = image[box]
        around = _box(self.kept_rows, self.kept_columns)
        return Done(masked, f"{self.technique} of all but {around} with {self.value:g}")


@final
@dataclass(frozen=True)
class NullInsertion(ImageOperation):
    """Puts `null` in place of every region: ``((first row, end), (first column, end))`` each.

    null: finite, because a value that is no number does not pass the gate; choose one that the picture does not have if
    missing and dark must stay apart.
    """

    regions: tuple[tuple[Range, Range], ...]
    null: float = 0.0

    technique = Technique.NULL_INSERTION
    guarantee = "none: everything outside the regions tells what it told"
    reversal = "nobody: what was in the regions is gone"

    def __post_init__(self) -> None:
        if not self.regions:
            raise RequestError("no regions were given for a null insertion; name at least one, or leave it out.")
        for rows, columns in self.regions:
            _range(rows, "rows")
            _range(columns, "columns")
        _intensity(self.null, "null")

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        emptied = picture(image).copy()
        for rows, columns in self.regions:
            _within(image, rows, columns)
            emptied[..., slice(*rows), slice(*columns)] = self.null
        places = "; ".join(_box(rows, columns) for rows, columns in self.regions)
        return Done(emptied, f"{self.technique} of {self.null:g} at {places}")


# --- less of it ------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Generalisation(ImageOperation):
    """Means over blocks of `block` x `block` pixels: a coarser picture (..., ceil(H / block), ceil(W / block)).

    At the lower and right edge a block is as large as the picture lets it be. Pixels grow by `block`, and so must the
    spacing that goes with the picture.
    """

    block: int

    technique = Technique.GENERALISATION
    guarantee = "none: a person may be known from a coarse picture"
    reversal = "nobody: detail within a block is gone, though a trained network may invent a likely one"

    def __post_init__(self) -> None:
        whole(self.block, "block", 2)

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        height, width = picture(image).shape[-2:]
        rows, columns = np.arange(0, height, self.block), np.arange(0, width, self.block)
        sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows, axis=-2), columns, axis=-1)
        pixels = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
        line = f"{self.technique}: means over blocks of {self.block} x {self.block} pixels"
        return Done((sums / pixels).astype(np.float32), line)


@final
@dataclass(frozen=True)
class Crop(ImageOperation):
    """Cuts the picture down to one box: (..., rows, columns)."""

    rows: Range
    columns: Range

    technique = Technique.TRUNCATION
    guarantee = "none: what stays tells what it told"
    reversal = "nobody: what was cut off is gone"

    def __post_init__(self) -> None:
        _range(self.rows, "rows")
        _range(self.columns, "columns")

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        _within(picture(image), self.rows, self.columns)
        cut = image[..., slice(*self.rows), slice(*self.columns)].copy()
        return Done(cut, f"{self.technique} to {_box(self.rows, self.columns)}")


@final
@dataclass(frozen=True)
class Clipping(ImageOperation):
    """Cuts intensities off at the percentiles `low` and `high` (0 to 100) of all that is given at once."""

    low: float
    high: float

    technique = Technique.TRUNCATION
    guarantee = "none: only the extreme intensities are gone"
    reversal = "nobody: intensities beyond the percentiles are gone"

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise RequestError(
                f"percentiles {self.low!r} and {self.high!r} were given; 0 <= low < high <= 100 is allowed."
            )

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        low, high = np.percentile(picture(image), (self.low, self.high))
        line = f"{self.technique} of intensities at percentiles {self.low:g} and {self.high:g}"
        return Done(np.clip(image, np.float32(low), np.float32(high)), line)


@final
@dataclass(frozen=True)
class Bits(ImageOperation):
    """Rounds intensities to one of 2**`bits` levels, evenly spaced from the least to the largest that is given at once."""

    bits: int

    technique = Technique.TRUNCATION
    guarantee = "none: at most so many bits a pixel stay, and nothing says which"
    reversal = "nobody: what lies below a level is gone"

    def __post_init__(self) -> None:
        whole(self.bits, "bits", 1, 16)

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        low, high = float(picture(image).min()), float(image.max())
        step = (high - low) / (2**self.bits - 1)
        levels = np.round((image.astype(np.float64) - low) / step) if step else np.zeros(image.shape)
        return Done((low + levels * step).astype(np.float32), f"{self.technique} to {self.bits} bits a pixel")


# --- other values ----------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Perturbation(ImageOperation):
    """Adds independent Gaussian noise of standard `deviation`, in the unit of the intensities."""

    deviation: float

    technique = Technique.RANDOM_PERTURBATION
    guarantee = "none: intensities are not bounded first, so this is not differential privacy"
    reversal = "nobody: but the mean of many noisy releases of one picture comes close to it, and so does a denoiser"

    def __post_init__(self) -> None:
        positive(self.deviation, "deviation")

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        noise = self.deviation * generator.standard_normal(picture(image).shape)
        line = f"{self.technique}: noise of deviation {self.deviation:g}"
        return Done(_float32(image + noise, "deviation"), line)


@final
@dataclass(frozen=True)
class NumericTransform(ImageOperation):
    """Intensities v become ``gain * v + offset``; a gain above zero keeps their order."""

    gain: float
    offset: float

    technique = Technique.NUMERIC_TRANSFORM
    guarantee = "none: the picture looks the same"
    reversal = "anybody: the history names gain and offset, and two known intensities give them away"

    def __post_init__(self) -> None:
        positive(self.gain, "gain")
        _intensity(self.offset, "offset")

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        changed = picture(image).astype(np.float64) * self.gain + self.offset
        line = f"{self.technique}: gain {self.gain:g}, offset {self.offset:g}"
        return Done(_float32(changed, "gain or the offset"), line)


@final
@dataclass(frozen=True)
class Randomisation(ImageOperation):
    """Every slice is replaced by a draw that has the same histogram over `bins` bins and nothing else of it.

    As many intensities as fall into a bin are drawn evenly from the bin, and put into random places.
    """

    bins: int = 64

    technique = Technique.RANDOMISATION
    guarantee = "none: the histogram of each slice is told, its least and largest intensity exactly"
    reversal = "nobody: where the intensities were is gone"

    def __post_init__(self) -> None:
        whole(self.bins, "bins", 1)

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        slices = picture(image).reshape(-1, image.shape[-2] * image.shape[-1])
        drawn = np.stack([self._draw(slice_, generator) for slice_ in slices])
        line = f"{self.technique}: a draw with the slice's histogram of {self.bins} bins"
        return Done(drawn.reshape(image.shape), line)

    def _draw(self, values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        counts, edges = np.histogram(values.astype(np.float64), self.bins)
        low, high = np.repeat(edges[:-1], counts), np.repeat(edges[1:], counts)
        drawn = (low + (high - low) * generator.random(values.size)).astype(np.float32)
        # Rounding to float32 must not carry a value out of the slice's own range.
        return np.clip(generator.permutation(drawn), values.min(), values.max())


@dataclass(frozen=True)
class Summary:
    """Statistics in place of a picture. counts: (bins,) int64, pixels a bin. edges: (bins + 1,) float64, the intensities
    between which the bins lie. mean, deviation: of all intensities. pixels: how many there were."""

    counts: np.ndarray
    edges: np.ndarray
    mean: float
    deviation: float
    pixels: int


@final
@dataclass(frozen=True)
class Statistics(Operation):
    """Replaces all that is given by its histogram of `bins` bins, mean and deviation."""

    bins: int = 64

    technique = Technique.STATISTICS
    guarantee = "none: exact numbers; the outer edges are the least and largest intensity"
    reversal = "nobody: where the intensities were is gone"

    def __post_init__(self) -> None:
        whole(self.bins, "bins", 1)

    def apply(self, image: np.ndarray) -> Done[Summary]:
        """The summary of `image` (..., H, W) float32, and what was done. Raises RequestError as the others do."""
        values = picture(image).astype(np.float64)
        counts, edges = np.histogram(values, self.bins)
        summary = Summary(counts, edges, float(values.mean()), float(values.std()), values.size)
        return Done(summary, f"{self.technique}: histogram of {self.bins} bins, mean and deviation")


# --- what a picture and a parameter must be --------------------------------------------------------------------------


def picture(image: np.ndarray) -> np.ndarray:
    """`image` itself, if it is a picture: (..., H, W) float32, finite, not empty. Raises RequestError if it is not."""
    if image.dtype != np.float32 or image.ndim < 2 or not image.size:
        raise RequestError(
            f"a picture of shape {image.shape} and type {image.dtype} was given; (..., H, W) float32 with at least one pixel "
            "is needed. Convert it, or put slices first."
        )
    if not np.isfinite(image).all():
        raise RequestError("the picture holds values that are no finite numbers; repair or leave out such slices.")
    return image


def _within(image: np.ndarray, rows: Range, columns: Range) -> None:
    height, width = image.shape[-2:]
    if rows[1] > height or columns[1] > width:
        # Numpy would cut the box to the picture, and what it was meant to cover might lie elsewhere.
        raise RequestError(
            f"{_box(rows, columns)} were given for a picture of {height} rows and {width} columns; "
            "the box must lie within it. Check the order of the axes."
        )


def _range(bounds: Range, name: str) -> None:
    whole = len(bounds) == 2 and all(type(bound) is int for bound in bounds)
    if not whole or not 0 <= bounds[0] < bounds[1]:
        raise RequestError(f"{name} is {bounds!r}; two whole numbers 0 <= first < end are needed.")


def _intensity(value: float, name: str) -> None:
    finite(value, name)
    if abs(value) > _LARGEST:
        raise RequestError(f"{name} is {value!r}; float32 holds numbers up to {_LARGEST:g}. Choose a smaller one.")


def _float32(values: np.ndarray, parameter: str) -> np.ndarray:
    if np.abs(values).max() > _LARGEST:
        raise RequestError(f"the {parameter} takes intensities beyond what float32 holds; choose a smaller one.")
    return values.astype(np.float32)


def _box(rows: Range, columns: Range) -> str:
    return f"rows {rows[0]} to {rows[1]}, columns {columns[0]} to {columns[1]}"
