"""The Gaussian mechanism on every released slice: its code is clipped and noise is added."""

from __future__ import annotations

import math
from typing import final

import numpy as np
from pydantic import Field

from fedprivseg.protections.protection import Key, Parameters, Protection


class NoiseParameters(Parameters):
    """clip: largest norm of a code, in units of the square root of its number of values. multiplier: standard deviation of
    the noise on each value, as a share of `clip`, that is about in deviations of a value."""

    clip: float = Field(1.0, gt=0, description="largest root mean square of a slice's code")
    multiplier: float = Field(0.5, gt=0, description="standard deviation of the noise on a value, in units of clip")
    delta: float = Field(1e-5, gt=0, lt=1, description="chance with which the promise may fail")


@final
class Noise(Protection):
    """Gaussian noise. What it promises holds for one released code; views of a slice and its test codes add up."""

    name = "noise"
    paper = "Balle and Wang, ICML 2018, theorem 8 (analytic Gaussian mechanism)"
    parameters_type = NoiseParameters
    parameters: NoiseParameters

    @property
    def techniques(self) -> tuple[str, ...]:
        """Noise."""
        return ("random perturbation",)

    @property
    def guarantee(self) -> str:
        """Differential privacy of one released slice."""
        return "formal: (epsilon, delta)-differential privacy of each released slice, as large as the history says"

    def apply(self, codes: np.ndarray, key: Key, names: tuple[str | int, ...]) -> np.ndarray:
        """See `Protection`."""
        size = float(np.sqrt(np.prod(codes.shape[1:])))
        lengths = np.sqrt(np.square(codes, dtype=np.float64).sum(axis=(1, 2, 3), keepdims=True))
        clipped = codes * np.minimum(1, self.parameters.clip * size / np.maximum(lengths, 1e-12))
        draws = key.once(*names).standard_normal(codes.shape)
        return np.asarray(clipped + self.parameters.multiplier * self.parameters.clip * draws, np.float32)

    def history(self, code: tuple[int, ...]) -> str:
        """Says (epsilon, delta) of one slice."""
        p, values = self.parameters, math.prod(code)
        promise = f"epsilon {self.epsilon(values):.4g}, delta {p.delta:g} a released code"
        return f"noise {p.multiplier:g} of clip {p.clip:g}: {promise}"

    def epsilon(self, values: int) -> float:
        """Epsilon of one released code of so many `values`: two slices differ by at most twice the clipping norm."""
        return gaussian_epsilon(self.parameters.multiplier / (2 * math.sqrt(values)), self.parameters.delta)


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
