"""q-FedAvg: averaging that favours sites with a large loss, for a fairer spread (Li et al., ICLR 2020, algorithm 2).

With F_k the loss of the weights w that site k received, w_k its weights after the round and dw_k = L (w - w_k), the server
takes w - sum of F_k^q dw_k / sum of h_k, where h_k = q F_k^(q-1) |dw_k|^2 + L F_k^q.

L stands for the Lipschitz constant of the gradient; the paper takes the inverse of the local step size, so that dw_k is of
the size of a gradient. A round here moves the weights by more than one such step: by the sum of its rates, which decay over
the run, each times what Nesterov's momentum m makes of it (1 / (1 - m) of it once the momentum has built up). So L is the
inverse of that accumulated rate, of this round; with sites of unequally many steps, of their mean. Flower's strategy takes
the rate as it stands in the scenario, and the mean loss of the local steps for F_k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, final

import numpy as np
from pydantic import Field, field_validator

from fedprivseg.methods.aggregation import Aggregation, Update
from fedprivseg.methods.client_update import ClientUpdateRule
from fedprivseg.methods.fednova import accumulated
from fedprivseg.methods.flower_strategy import flower
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.training import LocalDP, RoundsParameters

if TYPE_CHECKING:
    from fedprivseg.nets.baseline import Weights
    from fedprivseg.nets.local_training import Work

LEAST_LOSS = 1e-10
"""A loss counts as at least this: at 0 the power q - 1 has no value."""


@final
class Fair(Aggregation):
    """The server's step of algorithm 2, in float64; running statistics are averaged with equal weights.

    Args:
        q: how much a larger loss counts.
        moved: ``moved(number, steps)``: the accumulated rate of so many steps in round `number`.
        statistics: names of running statistics; they are in no norm.
    """

    def __init__(self, q: float, moved: Callable[[int, int], float], statistics: frozenset[str]) -> None:
        self.q = q
        self.moved = moved
        self.statistics = statistics
        self.average = flower()

    def aggregate(self, number: int, arrays: Weights, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """Both sums are divided by the largest F_k^q, which cancels: a power of a loss could overflow."""
        each = list(updates.values())
        lipschitz = 1 / np.mean([self.moved(number, update.steps) for update in each])
        losses = np.maximum([update.loss for update in each], LEAST_LOSS)
        powers = (losses / losses.max()) ** self.q
        total, normaliser = {name: np.zeros(value.shape) for name, value in arrays.items()}, 0.0
        for update, loss, power in zip(each, losses, powers, strict=True):
            square = 0.0
            for name in arrays.keys() - self.statistics:
                gradient = lipschitz * (arrays[name].astype(np.float64) - update.arrays[name])
                square += float(np.square(gradient).sum())
                total[name] += power * gradient
            normaliser += power * (self.q * square / loss + lipschitz)
        equal = {site: Update(u.arrays, {}, 1.0, u.steps, u.loss) for site, u in updates.items()}
        found = self.average.aggregate(number, arrays, equal)
        stepped = {name: arrays[name] - total[name] / normaliser for name in arrays.keys() - self.statistics}
        return found | {name: value.astype(np.float32) for name, value in stepped.items()}


def accumulated_rate(work: Work) -> float:
    """How far the steps of a round move a weight whose gradient is always 1: about steps * rate / (1 - momentum)."""
    return accumulated(work) * work.rate_at(0)


class QFedAvgParameters(RoundsParameters):
    """Only SGD, whose accumulated rate is known; and no dp, for the loss that it weighs by would be about the data."""

    optimiser: Literal["sgd"] = Field("sgd", description="sgd (Nesterov)")
    q: float = Field(
        0.1, ge=0, description="how much a site with a larger loss counts; 0 is averaging with equal weights"
    )

    @field_validator("dp")
    @classmethod
    def _loss_is_told(cls, value: LocalDP | None) -> None:
        if value is not None:
            raise ValueError("q-FedAvg weighs sites by their loss, which DP-SGD does not cover; leave dp out")


@final
class QFedAvg(Rounds):
    """Averaging that favours the sites with the largest loss, for a fairer spread."""

    name = "qfedavg"
    title = "q-FedAvg"
    paper = "Li et al., ICLR 2020, algorithm 2"
    parameters_type = QFedAvgParameters
    parameters: QFedAvgParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """The step of algorithm 2."""
        return Fair(self.parameters.q, lambda number, steps: accumulated_rate(self.work_of(number, steps)), statistics)

    def client_update(self) -> ClientUpdateRule:
        """Plain steps; the loss that a site tells is that of the weights it received."""
        return ClientUpdateRule(tells_received_loss=True)
