"""What an algorithm adds to the steps of a site. Loads no torch: methods are read before a request is known to be right."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from torch import nn


class Correction(ABC):
    """What an algorithm does to the gradient of every step, after it was clipped and before it is taken."""

    @abstractmethod
    def apply(self, net: nn.Module) -> None:
        """Change ``.grad`` of the parameters of `net` in place."""


@final
class NoCorrection(Correction):
    """Plain training."""

    def apply(self, net: nn.Module) -> None:
        """Nothing."""
