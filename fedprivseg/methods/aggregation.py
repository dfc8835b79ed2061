"""The server's part of a round: what sites send, and what an aggregation makes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedprivseg.core.records import Budget

if TYPE_CHECKING:
    from fedprivseg.nets.baseline import Weights


@dataclass(frozen=True)
class Update:
    """What a site sent in a round.

    Attributes:
        arrays: the weights after its steps, by name.
        extra: what its client update rule sends besides.
        weight: its weight in an average.
        steps: how many steps it took.
        loss: their mean training loss.
    """

    arrays: Weights
    extra: Weights
    weight: float
    steps: int
    loss: float


class Aggregation(ABC):
    """What the server does between rounds. Its state outlives an interruption."""

    def broadcast(self, number: int, arrays: Weights) -> Weights:
        """What goes to the sites beside `arrays` at the start of round `number`; nothing, if it is not overridden."""
        return {}

    @abstractmethod
    def aggregate(self, number: int, arrays: Weights, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """The next arrays.

        Args:
            number: of the round, from 1.
            arrays: the present ones.
            updates: at least one, sorted by site.

        Raises:
            QuorumError: they are too few.
        """

    def state(self) -> dict[str, np.ndarray]:
        """What must be kept between rounds."""
        return {}

    def restore(self, state: Weights) -> None:  # noqa: B027 - an aggregation without a state has nothing to restore
        """Go on from what `state` returned in an earlier attempt."""

    def spent(self) -> Budget | None:
        """Differential privacy that the server's own noise has spent so far, of no site in particular; None without."""
        return None
