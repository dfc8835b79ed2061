"""Fewer channels: a fixed subset of them, or others in every slice."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
from pydantic import Field

from fedprivseg.protections.protection import Key, Parameters, Protection


class ChannelsParameters(Parameters):
    """keep: share of the channels that stay. choice: the same ones in every slice, or drawn anew for each."""

    keep: float = Field(0.5, gt=0, le=1, description="share of the channels that stay, at least one")
    choice: Literal["subset", "dropout"] = Field("subset", description="the same in every slice, or drawn for each")


@final
class Channels(Protection):
    """Sets channels to zero. Which ones a subset keeps is the site's secret, though the zeros tell it."""

    name = "channels"
    paper = "Srivastava et al., JMLR 15:1929, 2014 (dropout)"
    parameters_type = ChannelsParameters
    parameters: ChannelsParameters

    @property
    def techniques(self) -> tuple[str, ...]:
        """Zeros stand where values were."""
        return ("null insertion",)

    @property
    def guarantee(self) -> str:
        """None."""
        return "none: the channels that stay say what they said"

    def apply(self, codes: np.ndarray, key: Key, names: tuple[str | int, ...]) -> np.ndarray:
        """See `Protection`."""
        count, channels = codes.shape[:2]
        stay = self._stay(channels)
        if self.parameters.choice == "subset":
            ranks = np.broadcast_to(key.fixed("channels").permutation(channels), (count, channels))
        else:
            ranks = key.once(*names).random((count, channels)).argsort(axis=1)
        return np.where((ranks < stay)[:, :, None, None], codes, np.float32(0))

    def history(self, code: tuple[int, ...]) -> str:
        """Says how many stay."""
        return f"channel {self.parameters.choice}, {self._stay(code[0])} of {code[0]} stay"

    def _stay(self, channels: int) -> int:
        return max(1, round(self.parameters.keep * channels))
