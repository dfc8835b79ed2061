"""Fewer bits a value."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np
from pydantic import Field

from fedprivseg.core.techniques import Technique
from fedprivseg.protections.operation import ArrayOperation, Key


@final
class Precision(ArrayOperation):
    """Rounds every value to one of 2**bits levels between the least and the largest of its channel.

    A payload's bytes stay as many: rounded values are sent as float16.
    """

    name = "precision"
    paper = "uniform quantisation"
    techniques: ClassVar = (Technique.TRUNCATION,)
    guarantee = "none: at most so many bits a value leave, and nothing says which"
    reversal = "nobody: what lies below a level is gone"

    bits: int = Field(default=8, ge=1, le=16, description="bits a value")

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        if not len(value):
            return value
        low, high = value.min(axis=(0, 2, 3), keepdims=True), value.max(axis=(0, 2, 3), keepdims=True)
        step = np.maximum(high - low, 1e-12) / (2**self.bits - 1)
        return np.asarray(low + np.round((value - low) / step) * step, np.float32)

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{self.bits} bits a value"
