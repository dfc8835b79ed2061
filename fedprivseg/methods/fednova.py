"""FedNova: each site's change is divided by the number of steps it stands for (Wang et al., NeurIPS 2020, equation 8).

Sites that take more local steps pull an average their way; normalised changes do not. With local_epochs a large site takes
more steps than a small one, which is when this matters; with equal local_steps FedNova is FedAvg up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, final

import numpy as np
from pydantic import Field

from fedprivseg.methods.aggregation import Aggregation, Update
from fedprivseg.methods.flower_strategy import flower
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.training import RoundsParameters

if TYPE_CHECKING:
    from fedprivseg.nets.baseline import Weights
    from fedprivseg.nets.local_training import Work


@final
class Normalised(Aggregation):
    """x + tau_eff * sum of p_i (y_i - x) / |a_i|, with tau_eff = sum of p_i |a_i|; running statistics are averaged.

    Args:
        size: ``size(number, steps)``: |a_i| of a site that took so many steps in round `number`.
        statistics: names of running statistics.
    """

    def __init__(self, size: Callable[[int, int], float], statistics: frozenset[str]) -> None:
        self.size = size
        self.statistics = statistics
        self.average = flower()

    def aggregate(self, number: int, arrays: Weights, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """Equation 8, in float64."""
        total = sum(update.weight for update in updates.values())
        shares = {site: update.weight / total for site, update in updates.items()}
        sizes = {site: self.size(number, update.steps) for site, update in updates.items()}
        effective = sum(shares[site] * sizes[site] for site in updates)
        change = {name: np.zeros(value.shape) for name, value in arrays.items()}
        for site, update in updates.items():
            for name, value in arrays.items():
                change[name] += shares[site] / sizes[site] * (update.arrays[name].astype(np.float64) - value)
        normalised = {name: (value + effective * change[name]).astype(np.float32) for name, value in arrays.items()}
        averaged = self.average.aggregate(number, arrays, updates)
        return {name: averaged[name] if name in self.statistics else normalised[name] for name in arrays}


def accumulated(work: Work) -> float:
    """|a_i| (L1) of equation 6: how much the gradients of a round move the weights, in steps at the round's first rate.

    Found by running torch's recurrence of SGD with Nesterov momentum on gradients of 1: with the buffer b <- m b + 1 and
    the step rate * (1 + m b), it is the sum of the steps over the first rate. Without momentum and decay it is the number
    of steps. Weight decay is left out, as in the paper's section 4.
    """
    buffer = moved = 0.0
    for step in range(work.steps):
        buffer = work.momentum * buffer + 1
        moved += work.rate_at(step) * (1 + work.momentum * buffer if work.momentum else 1)
    return moved / work.rate_at(0)


class FedNovaParameters(RoundsParameters):
    """Only SGD: the accumulated step of an adaptive optimiser is not known beforehand."""

    optimiser: Literal["sgd"] = Field("sgd", description="sgd (Nesterov)")


@final
class FedNova(Rounds):
    """Averaging of changes normalised by each site's own amount of work."""

    name = "fednova"
    title = "FedNova"
    paper = "Wang et al., NeurIPS 2020, equation 8"
    parameters_type = FedNovaParameters
    parameters: FedNovaParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Normalised averaging."""
        return Normalised(lambda number, steps: accumulated(self.work_of(number, steps)), statistics)
