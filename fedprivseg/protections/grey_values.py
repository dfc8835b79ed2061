"""Other values in the same places: cut off, noisy, mapped, or drawn from their histogram.

None of these operations bounds what an array tells. What remains of it is for the attacks to measure.
"""

from __future__ import annotations

from typing import ClassVar, Self, final

import numpy as np
from pydantic import Field, model_validator

from fedprivseg.core.errors import RequestError
from fedprivseg.core.techniques import Technique
from fedprivseg.protections.boxes import LARGEST, Intensity
from fedprivseg.protections.operation import ArrayOperation, Key


@final
class Clipping(ArrayOperation):
    """Cuts values off at two percentiles of all that is given at once."""

    name = "clipping"
    techniques: ClassVar = (Technique.TRUNCATION,)
    guarantee = "none: only the extreme values are gone"
    reversal = "nobody: values beyond the percentiles are gone"

    low: float = Field(ge=0, le=100, description="lower percentile", examples=[5])
    high: float = Field(ge=0, le=100, description="upper percentile", examples=[95])

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(
                f"percentiles {self.low:g} and {self.high:g} were given; 0 <= low < high <= 100 is allowed"
            )
        return self

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        if not value.size:
            return value
        low, high = np.percentile(value, (self.low, self.high))
        return np.clip(value, np.float32(low), np.float32(high))

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.TRUNCATION} of intensities at percentiles {self.low:g} and {self.high:g}"


@final
class Perturbation(ArrayOperation):
    """Adds independent Gaussian noise, and bounds no value first: see `noise.Noise` for differential privacy."""

    name = "perturbation"
    techniques: ClassVar = (Technique.RANDOM_PERTURBATION,)
    guarantee = "none: values are not bounded first, so this is not differential privacy"
    reversal = "nobody: but the mean of many noisy releases of one image comes close to it, and so does a denoiser"

    deviation: float = Field(
        gt=0, allow_inf_nan=False, description="standard deviation, in the unit of the values", examples=[0.5]
    )

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        return _float32(value + self.deviation * key.once().standard_normal(value.shape), "deviation")

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.RANDOM_PERTURBATION}: noise of deviation {self.deviation:g}"


@final
class NumericTransform(ArrayOperation):
    """Values v become ``gain * v + offset``; a gain above zero keeps their order."""

    name = "numeric-transform"
    techniques: ClassVar = (Technique.NUMERIC_TRANSFORM,)
    guarantee = "none: the image looks the same"
    reversal = "anybody: the history names gain and offset, and two known values give them away"

    gain: float = Field(gt=0, allow_inf_nan=False, description="factor", examples=[2.0])
    offset: Intensity = Field(description="that is added", examples=[-1.0])

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        return _float32(value.astype(np.float64) * self.gain + self.offset, "gain or the offset")

    def undo(self, value: np.ndarray, key: Key) -> np.ndarray:
        return ((value.astype(np.float64) - self.offset) / self.gain).astype(np.float32)

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.NUMERIC_TRANSFORM}: gain {self.gain:g}, offset {self.offset:g}"


@final
class Randomisation(ArrayOperation):
    """Every slice and channel is replaced by a draw that has the same histogram and nothing else of it.

    As many values as fall into a bin are drawn evenly from the bin, and put into random places.
    """

    name = "randomisation"
    techniques: ClassVar = (Technique.RANDOMISATION,)
    guarantee = "none: the histogram of each slice is told, its least and largest value exactly"
    reversal = "nobody: where the values were is gone"

    bins: int = Field(default=64, ge=1, description="of the histogram")

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        draw, made = key.once(), np.empty_like(value)
        for place in np.ndindex(value.shape[:-2]):
            made[place] = self._drawn(value[place].ravel(), draw).reshape(value.shape[-2:])
        return made

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.RANDOMISATION}: a draw with the slice's histogram of {self.bins} bins"

    def _drawn(self, values: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        counts, edges = np.histogram(values.astype(np.float64), self.bins)
        low, high = np.repeat(edges[:-1], counts), np.repeat(edges[1:], counts)
        drawn = (low + (high - low) * draw.random(values.size)).astype(np.float32)
        # Rounding to float32 must not carry a value out of the slice's own range.
        return np.clip(draw.permutation(drawn), values.min(), values.max())


def _float32(values: np.ndarray, parameter: str) -> np.ndarray:
    if values.size and np.abs(values).max() > LARGEST:
        raise RequestError(f"the {parameter} takes values beyond what float32 holds; choose a smaller one.")
    return values.astype(np.float32)
