"""Fewer channels: a fixed subset of them, or others in every slice."""

from __future__ import annotations

from typing import ClassVar, Literal, final

import numpy as np
from pydantic import Field

from fedprivseg.core.techniques import Technique
from fedprivseg.protections.operation import ArrayOperation, Key


@final
class Channels(ArrayOperation):
    """Sets channels to zero. Which ones a subset keeps is the site's secret, though the zeros tell it."""

    name = "channels"
    paper = "Srivastava et al., JMLR 15:1929, 2014 (dropout)"
    techniques: ClassVar = (Technique.NULL_INSERTION,)
    guarantee = "none: the channels that stay say what they said"
    reversal = "nobody: what was in the other channels is gone"

    keep: float = Field(default=0.5, gt=0, le=1, description="share of the channels that stay, at least one")
    choice: Literal["subset", "dropout"] = Field(
        default="subset", description="the same in every slice, or drawn for each"
    )

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        count, channels = value.shape[:2]
        if self.choice == "subset":
            ranks = np.broadcast_to(key.fixed("channels").permutation(channels), (count, channels))
        else:
            ranks = key.once().random((count, channels)).argsort(axis=1)
        return np.where((ranks < self._stay(channels))[:, :, None, None], value, np.float32(0))

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"channel {self.choice}, {self._stay(shape[0])} of {shape[0]} stay"

    def _stay(self, channels: int) -> int:
        return max(1, round(self.keep * channels))
