"""The Gaussian mechanism on every released slice: its code is clipped and noise is added."""

from __future__ import annotations

import math
from typing import ClassVar, final

import numpy as np
from pydantic import Field

from fedprivseg.core.techniques import Technique
from fedprivseg.protections.operation import ArrayOperation, Key


@final
class Noise(ArrayOperation):
    """Gaussian noise. What it promises holds for one released code; views of a slice and its test codes add up."""

    name = "noise"
    paper = "Balle and Wang, ICML 2018, theorem 8 (analytic Gaussian mechanism)"
    techniques: ClassVar = (Technique.RANDOM_PERTURBATION,)
    guarantee = "formal: (epsilon, delta)-differential privacy of each released slice, as large as the history says"
    reversal = "nobody: but the mean of many noisy releases of one slice comes close to it"

    clip: float = Field(default=1.0, gt=0, description="largest root mean square of a slice's code")
    multiplier: float = Field(
        default=0.5, gt=0, description="standard deviation of the noise on a value, in units of clip"
    )
    delta: float = Field(default=1e-5, gt=0, lt=1, description="chance with which the promise may fail")

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        size = float(np.sqrt(np.prod(value.shape[1:])))
        lengths = np.sqrt(np.square(value, dtype=np.float64).sum(axis=(1, 2, 3), keepdims=True))
        clipped = value * np.minimum(1, self.clip * size / np.maximum(lengths, 1e-12))
        draws = key.once().standard_normal(value.shape)
        return np.asarray(clipped + self.multiplier * self.clip * draws, np.float32)

    def history(self, shape: tuple[int, ...] = ()) -> str:
        promise = f"epsilon {self.epsilon(math.prod(shape)):.4g}, delta {self.delta:g} a released code"
        return f"noise {self.multiplier:g} of clip {self.clip:g}: {promise}"

    def epsilon(self, values: int) -> float:
        """Epsilon of one released code of so many `values`: two slices differ by at most twice the clipping norm."""
        return gaussian_epsilon(self.multiplier / (2 * math.sqrt(values)), self.delta)


def gaussian_epsilon(ratio: float, delta: float) -> float:
    """The least epsilon of Gaussian noise whose deviation is `ratio` times the sensitivity (Balle and Wang, equation 6)."""
    from scipy.optimize import brentq
    from scipy.special import log_ndtr, ndtr

    def excess(epsilon: float) -> float:
        first = ndtr(1 / (2 * ratio) - epsilon * ratio)
        # exp(epsilon) * cdf(-large): in logarithms, since neither factor fits a float on its own.
        second = math.exp(min(epsilon + log_ndtr(-1 / (2 * ratio) - epsilon * ratio), 700))
        return float(first - second - delta)

    high = 1.0
    while excess(high) > 0:
        high *= 2
    return 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, high))
