"""FedDyn: a dynamic regulariser makes the sites' optima agree with the federation's (Acar et al., ICLR 2021, algorithm 1).

Site k minimises its loss - <h_k, w> + alpha/2 |w - w_received|^2, and then sets h_k to h_k - alpha (w_k - w_received).
The server keeps h, the mean of all h_k, and moves the average by -h / alpha.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, final

import numpy as np
from pydantic import Field

from fedprivseg.methods.aggregation import Aggregation, Update
from fedprivseg.methods.client_update import ClientUpdateRule, Start
from fedprivseg.methods.flower_strategy import flower
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.training import RoundsParameters

if TYPE_CHECKING:
    from torch import nn

    from fedprivseg.nets.baseline import Weights
    from fedprivseg.nets.local_training import Correction


@final
class Dynamic(Aggregation):
    """Algorithm 1, lines 10 and 11, with the plain mean, as the paper has it.

    Args:
        sites: m, all of them, also when not all take part.
        alpha: weight of the regulariser.
        statistics: names of running statistics, which are averaged alone.
    """

    def __init__(self, sites: int, alpha: float, statistics: frozenset[str]) -> None:
        self.sites = sites
        self.alpha = alpha
        self.statistics = statistics
        self.average = flower()
        self.h: dict[str, np.ndarray] = {}

    def aggregate(self, number: int, arrays: Weights, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """h <- h - alpha / m * sum of (w_k - w); w <- mean of w_k - h / alpha."""
        equal = {site: replace(update, weight=1.0) for site, update in updates.items()}
        mean = self.average.aggregate(number, arrays, equal)
        parameters = {name: value for name, value in arrays.items() if name not in self.statistics}
        change = {name: np.zeros_like(value) for name, value in parameters.items()}
        for update in updates.values():
            for name, value in parameters.items():
                change[name] += update.arrays[name] - value
        for name, total in change.items():
            before = self.h.get(name, np.zeros_like(total))
            self.h[name] = (before - self.alpha / self.sites * total).astype(np.float32)
        return {
            name: value if name in self.statistics else value - self.h[name] / np.float32(self.alpha)
            for name, value in mean.items()
        }

    def state(self) -> dict[str, np.ndarray]:
        """h."""
        return dict(self.h)

    def restore(self, state: Weights) -> None:
        """h again."""
        self.h = dict(state)


@final
class Regulariser:
    """Adds alpha (w - w_received) - h_k to every gradient. kept: h_k, of the parameters that it has."""

    def __init__(self, net: nn.Module, alpha: float, kept: Weights) -> None:
        import torch

        self.alpha = alpha
        self.start = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
        self.h = {name: torch.from_numpy(value) for name, value in kept.items()}

    def __call__(self, net: nn.Module) -> None:
        """The gradient of the two terms."""
        import torch

        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - self.start[name].to(parameter.device), alpha=self.alpha)
                    if name in self.h:
                        parameter.grad.sub_(self.h[name].to(parameter.device))


class FedDynParameters(RoundsParameters):
    """alpha: see FedDyn."""

    alpha: float = Field(0.01, gt=0, description="weight of the dynamic regulariser")


@final
class FedDyn(Rounds):
    """Averaging with a dynamic regulariser at each site."""

    name = "feddyn"
    title = "FedDyn"
    paper = "Acar et al., ICLR 2021, algorithm 1"
    parameters_type = FedDynParameters
    parameters: FedDynParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """The mean and h."""
        return Dynamic(sites, self.parameters.alpha, statistics)

    def client_update(self) -> ClientUpdateRule:
        """Regularised steps; the site keeps h_k <- h_k - alpha (w_k - w_received), for parameters."""
        alpha = self.parameters.alpha

        def finish(start: Start, trained: Weights, correction: Correction | None) -> tuple[Weights, Weights]:
            assert isinstance(correction, Regulariser)
            kept = {}
            for name in correction.start:
                before = start.kept.get(name, np.zeros_like(trained[name]))
                kept[name] = before - np.float32(alpha) * (trained[name] - start.arrays[name])
            return {}, kept

        return ClientUpdateRule(correction=lambda start, net: Regulariser(net, alpha, start.kept), finish=finish)
