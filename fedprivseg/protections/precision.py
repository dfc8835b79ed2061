"""Fewer bits a value."""

from __future__ import annotations

from typing import ClassVar, Self, final

import numpy as np
from pydantic import Field, model_validator

from fedprivseg.core.techniques import Technique
from fedprivseg.protections.operation import ArrayOperation, Key


@final
class Precision(ArrayOperation):
    """Rounds every value to one of 2**bits levels, evenly from `least` to `most`; what lies outside is cut off there.

    The range is fixed before any value is seen. Levels between the least and the largest value that are given would move with
    them, so that each value would also tell of the others: of other slices, and of other patients. For the probabilities of
    an answer encoder the range is 0 to 1. For codes whose channels are standardised, as those with a projection are
    (`nets.codec`), it is some deviations: of normal values 99.99 % lie within -4 to 4.

    A payload's bytes stay as many: rounded values are sent as float16.
    """

    name = "precision"
    paper = "uniform quantisation"
    techniques: ClassVar = (Technique.TRUNCATION,)
    guarantee = "none: at most so many bits a value leave, and nothing says which"
    reversal = "nobody: what lies below a level is gone"

    bits: int = Field(default=8, ge=1, le=16, description="bits a value")
    least: float = Field(
        allow_inf_nan=False,
        description="the lowest level: 0 for probabilities, some deviations below the mean for codes",
        examples=[-4.0],
    )
    most: float = Field(
        allow_inf_nan=False,
        description="the highest level: 1 for probabilities, as far above for codes",
        examples=[4.0],
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least >= self.most:
            raise ValueError(f"least is {self.least:g} and most is {self.most:g}; least < most is allowed")
        return self

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        step = (self.most - self.least) / (2**self.bits - 1)
        places = np.round((np.clip(value, self.least, self.most) - self.least) / step)
        return np.asarray(self.least + places * step, np.float32)

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{self.bits} bits a value, from {self.least:g} to {self.most:g}"
