"""SCAFFOLD: control variates correct the drift of local steps (Karimireddy et al., ICML 2020, algorithm 1).

A site's variate c_i estimates its own gradient, the server's c the mean of all; each local step adds c - c_i. The paper's
option II sets c_i to c_i - c + (x - y_i) / (K * rate), which under plain SGD is the mean of the site's K uncorrected
gradients. That mean is what is taken here: it is the same number there, and it stays right under momentum and a decaying
rate, where the quotient is not (with momentum m it would be about 1 / (1 - m) times too large).

Weights and variates are averaged alike, every site by the same share: then c stays the mean of all c_i, and the corrections
c - c_i of all sites sum to zero. A site that left keeps its part in c. The clipping norm bounds a gradient as the site computed
it, before c - c_i is added (line 10); variates are means of clipped gradients, so a corrected one is at most three times it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, final

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
class ControlVariates(Aggregation):
    """Flower's FedAvg of the weights, and c + (share of sites that took part) * mean of the changes of c_i.

    Args:
        sites: N, all of them, also when not all take part.
    """

    def __init__(self, sites: int) -> None:
        self.sites = sites
        self.weights = flower()
        self.control: dict[str, np.ndarray] = {}

    def broadcast(self, number: int, arrays: Weights) -> Weights:
        """The server's control variate, zero at first. It covers running statistics too, where it stays zero."""
        return self.control or {name: np.zeros_like(value) for name, value in arrays.items()}

    def aggregate(self, number: int, arrays: Weights, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """Algorithm 1, lines 16 and 17, with a server rate of 1."""
        control = self.broadcast(number, arrays)
        change = {name: np.zeros_like(value) for name, value in arrays.items()}
        for update in updates.values():
            for name, total in change.items():
                total += update.extra[name]
        self.control = {name: (control[name] + change[name] / self.sites).astype(np.float32) for name in arrays}
        return self.weights.aggregate(number, arrays, updates)

    def state(self) -> dict[str, np.ndarray]:
        """The control variate."""
        return dict(self.control)

    def restore(self, state: Weights) -> None:
        """The control variate again."""
        self.control = dict(state)


@final
class Drift:
    """Adds c - c_i to every gradient, and keeps the mean of the gradients as they were."""

    def __init__(self, net: nn.Module, server: Weights, own: Weights) -> None:
        import torch

        self.offset = {
            name: torch.from_numpy(server[name] - own.get(name, np.zeros_like(server[name])))
            for name, _ in net.named_parameters()
        }
        self.total = {name: torch.zeros_like(offset) for name, offset in self.offset.items()}
        self.steps = 0

    def __call__(self, net: nn.Module) -> None:
        """Algorithm 1, line 10."""
        import torch

        self.steps += 1
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if parameter.grad is not None:
                    self.total[name] += parameter.grad.cpu()
                    parameter.grad.add_(self.offset[name].to(parameter.device))

    def mean(self) -> dict[str, np.ndarray]:
        """The mean uncorrected gradient of the round, by parameter."""
        return {name: (total / max(1, self.steps)).numpy() for name, total in self.total.items()}


def next_variate(start: Start, trained: Weights, correction: Correction | None) -> tuple[Weights, Weights]:
    """(the change of c_i, which is sent; c_i, which is kept): algorithm 1, lines 12 to 14."""
    assert isinstance(correction, Drift)
    means = correction.mean()
    own = {name: means.get(name, np.zeros_like(value)) for name, value in start.arrays.items()}
    change = {name: value - start.kept.get(name, np.zeros_like(value)) for name, value in own.items()}
    return change, own


class ScaffoldParameters(RoundsParameters):
    """Plain means, as the paper has them: see the module."""

    weighting: Literal["equal"] = Field("equal", description="equal: sites count alike, weights and variates")


@final
class Scaffold(Rounds):
    """Averaging with control variates against client drift."""

    name = "scaffold"
    title = "SCAFFOLD"
    paper = "Karimireddy et al., ICML 2020, algorithm 1"
    parameters_type = ScaffoldParameters
    parameters: ScaffoldParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Weights and control variates."""
        return ControlVariates(sites)

    def client_update(self) -> ClientUpdateRule:
        """Corrected steps."""
        return ClientUpdateRule(
            correction=lambda start, net: Drift(net, start.extra, start.kept), sends=tuple, finish=next_variate
        )
