"""Fewer bits a value."""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field

from fedprivseg.protections.protection import Key, Parameters, Protection


class PrecisionParameters(Parameters):
    """bits: of every value, within the range of its channel in the payload."""

    bits: int = Field(8, ge=1, le=16, description="bits a value")


@final
class Precision(Protection):
    """Rounds every value to one of 2**bits levels between the least and the largest of its channel.

    The payload's bytes stay as many: rounded values are sent as float16.
    """

    name = "precision"
    paper = "uniform quantisation"
    parameters_type = PrecisionParameters
    parameters: PrecisionParameters

    @property
    def techniques(self) -> tuple[str, ...]:
        """Digits are cut off."""
        return ("truncation",)

    @property
    def guarantee(self) -> str:
        """None."""
        return "none: at most so many bits a value leave, and nothing says which"

    def apply(self, codes: np.ndarray, key: Key, names: tuple[str | int, ...]) -> np.ndarray:
        """See `Protection`."""
        if not len(codes):
            return codes
        low, high = codes.min(axis=(0, 2, 3), keepdims=True), codes.max(axis=(0, 2, 3), keepdims=True)
        step = np.maximum(high - low, 1e-12) / (2**self.parameters.bits - 1)
        return np.asarray(low + np.round((codes - low) / step) * step, np.float32)

    def history(self, code: tuple[int, ...]) -> str:
        """Says the bits."""
        return f"{self.parameters.bits} bits a value"
