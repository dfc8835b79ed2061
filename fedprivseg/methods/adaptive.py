"""FedAdagrad, FedAdam and FedYogi: adaptive steps of the server along the sites' mean change (Reddi et al. 2021, algorithm 2).

Written out, since Flower's FedAdam corrects the bias of its moments and Flower's second moments start at 0: algorithm 2 has
no correction, and its second moment starts at tau^2 or above (here at tau^2). Changes are averaged by the scenario's weights.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, final

import numpy as np
from pydantic import Field

from fedprivseg.methods.aggregation import Aggregation, Update
from fedprivseg.methods.flower_strategy import flower
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.training import SummableParameters, prefixed, under

if TYPE_CHECKING:
    from fedprivseg.nets.baseline import Weights

SecondMoment = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""``second(v, squared change, beta_2)``: the next v; lines 10 to 12 of algorithm 2."""

_FIRST, _SECOND = "m/", "v/"


class AdaptiveParameters(SummableParameters):
    """The server's optimiser, in the paper's letters."""

    server_rate: float = Field(0.01, gt=0, description="learning rate of the server, eta")
    beta_1: float = Field(0.9, ge=0, lt=1, description="decay of the first moment")
    beta_2: float = Field(0.99, ge=0, lt=1, description="decay of the second moment; FedAdagrad sums instead")
    tau: float = Field(1e-3, gt=0, description="adaptivity: added to the root of a second moment")


class AdagradParameters(AdaptiveParameters):
    """As the paper runs it: without a first moment."""

    beta_1: float = Field(0.0, ge=0, lt=1, description="decay of the first moment")


@final
class ServerSteps(Aggregation):
    """x + eta m / (sqrt(v) + tau), by parameter; running statistics are averaged, for no optimiser may step on a variance.

    Args:
        p: the method's parameters.
        second: how v goes on.
        statistics: names of running statistics.
    """

    def __init__(self, p: AdaptiveParameters, second: SecondMoment, statistics: frozenset[str]) -> None:
        self.p = p
        self.second = second
        self.statistics = statistics
        self.average = flower()
        self.m: dict[str, np.ndarray] = {}
        self.v: dict[str, np.ndarray] = {}

    def aggregate(self, number: int, arrays: Weights, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """Algorithm 2, lines 8 to 13, in float64."""
        p, found = self.p, self.average.aggregate(number, arrays, updates)
        for name in arrays.keys() - self.statistics:
            value = arrays[name].astype(np.float64)
            change = found[name] - value
            m = self.m.get(name, np.zeros_like(value))
            v = self.v.get(name, np.full_like(value, p.tau**2))
            self.m[name] = p.beta_1 * m + (1 - p.beta_1) * change
            self.v[name] = self.second(v, change**2, p.beta_2)
            step = p.server_rate * self.m[name] / (np.sqrt(self.v[name]) + p.tau)
            found[name] = (value + step).astype(np.float32)
        return found

    def state(self) -> dict[str, np.ndarray]:
        """Both moments."""
        return prefixed(_FIRST, self.m) | prefixed(_SECOND, self.v)

    def restore(self, state: Weights) -> None:
        """Both moments again."""
        self.m, self.v = under(state, _FIRST), under(state, _SECOND)


class AdaptiveRounds(Rounds):
    """Averaged changes as gradients of an adaptive optimiser. Final subclasses say how its second moment goes on."""

    paper = "Reddi et al., ICLR 2021, algorithm 2"
    parameters_type = AdaptiveParameters
    parameters: AdaptiveParameters

    @staticmethod
    @abstractmethod
    def second(v: np.ndarray, square: np.ndarray, beta: float) -> np.ndarray:
        """The next second moment. v: the present one. square: of the mean change. beta: beta_2."""

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Adaptive steps."""
        return ServerSteps(self.parameters, self.second, statistics)


@final
class FedAdagrad(AdaptiveRounds):
    """Averaged updates as gradients of a server that runs Adagrad."""

    name = "fedadagrad"
    title = "FedAdagrad"
    parameters_type = AdagradParameters

    @staticmethod
    def second(v: np.ndarray, square: np.ndarray, beta: float) -> np.ndarray:
        """Line 10."""
        return v + square


@final
class FedYogi(AdaptiveRounds):
    """Averaged updates as gradients of a server that runs Yogi."""

    name = "fedyogi"
    title = "FedYogi"

    @staticmethod
    def second(v: np.ndarray, square: np.ndarray, beta: float) -> np.ndarray:
        """Line 11."""
        return v - (1 - beta) * square * np.sign(v - square)


@final
class FedAdam(AdaptiveRounds):
    """Averaged updates as gradients of a server that runs Adam."""

    name = "fedadam"
    title = "FedAdam"

    @staticmethod
    def second(v: np.ndarray, square: np.ndarray, beta: float) -> np.ndarray:
        """Line 12."""
        return beta * v + (1 - beta) * square
