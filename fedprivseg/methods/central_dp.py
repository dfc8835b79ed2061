"""FedAvg under central differential privacy: the server clips every site's update and adds noise to their mean.

What is protected is a whole site's part in the training (McMahan et al., ICLR 2018, algorithm 1), against whoever sees the
released weights. It is not a protection from the server, which receives every update as it is. With a handful of hospitals
the noise has nothing to hide in: expect it to cost nearly everything. Flower's wrapper clips and adds the noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, final

import numpy as np
from pydantic import Field

from fedprivseg.core.records import Budget
from fedprivseg.methods.aggregation import Aggregation, Update
from fedprivseg.methods.flower_strategy import FlowerStrategy, flower
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.training import RoundsParameters
from fedprivseg.nets.choices import Norm

if TYPE_CHECKING:
    from fedprivseg.nets.baseline import Weights


@final
class NoisyMean(Aggregation):
    """The mean of clipped updates plus Gaussian noise of deviation ``noise * clip / sites``, by Flower; sites count alike.

    The account assumes that every site takes part in every round: sampling sites is not counted in its favour.

    Args:
        noise: multiplier of the noise.
        clip: largest norm of a site's update.
        delta: chance with which the promise may fail.
        sites: how many take part in a round.
        seed: of the noise.
    """

    def __init__(self, noise: float, clip: float, delta: float, sites: int, seed: int) -> None:
        from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping

        self.noise, self.delta = noise, delta
        self.wrapped = DifferentialPrivacyServerSideFixedClipping(
            flower().strategy, noise_multiplier=noise, clipping_norm=clip, num_sampled_clients=sites
        )
        self.mean = FlowerStrategy(self.wrapped, seed=seed)
        self.releases = 0

    def aggregate(self, number: int, arrays: Weights, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """Clip, average with equal weights, add noise."""
        equal = {site: replace(u, arrays=_moved(u.arrays, arrays), weight=1.0) for site, u in updates.items()}
        # Where sites have left, the mean is over fewer, and one of them moves it further: the noise is for those who stayed.
        self.wrapped.num_sampled_clients = len(equal)
        noisy = self.mean.aggregate(number, arrays, equal)
        self.releases += 1
        return noisy

    def state(self) -> dict[str, np.ndarray]:
        """How many noisy means were released."""
        return {"releases": np.array([self.releases])}

    def restore(self, state: Weights) -> None:
        """Go on counting."""
        self.releases = int(state["releases"][0])

    def spent(self) -> Budget | None:
        """The Gaussian mechanism composed over the releases, without amplification by sampling."""
        from fedprivseg.nets.private_training import epsilon_spent

        epsilon = epsilon_spent(self.noise, self.delta, 1.0, self.releases)
        return Budget("", "noise at the server, which sees every update", "site", epsilon, self.delta, self.noise)


def _moved(update: Weights, start: Weights) -> Weights:
    """`update`, or if a site sent back what it had received, that with one value moved by a millionth of a millionth of it:
    Flower divides by the norm of the change."""
    if any(not np.array_equal(update[name], start[name]) for name in start):
        return update
    name = min(start)
    value = update[name].astype(np.float64)
    value.flat[0] += 1e-12 * max(1.0, abs(value.flat[0]))
    return {**update, name: value}


class CentralDPParameters(RoundsParameters):
    """The budget and the clipping norm."""

    norm: Norm = Field("group", description="running statistics of batch norms would be clipped and noised as well")
    epsilon: float = Field(8.0, gt=0, description="the budget of the whole run, for each site")
    delta: float = Field(1e-3, gt=0, lt=1, description="chance with which the promise may fail")
    site_clip: float = Field(1.0, gt=0, description="largest norm of one site's update")


@final
class CentralDP(Rounds):
    """FedAvg with clipped updates and noise added by the server."""

    name = "fedavg-central-dp"
    most_change = float("inf")  # the server's own noise moves the weights by many times their length
    title = "FedAvg with central differential privacy"
    paper = "McMahan et al., ICLR 2018, algorithm 1"
    parameters_type = CentralDPParameters
    parameters: CentralDPParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's server-side fixed clipping around its FedAvg, with the noise that fits the budget."""
        from fedprivseg.nets.private_training import noise_for

        p = self.parameters
        taking_part = max(1, round(p.fraction * sites))
        return NoisyMean(noise_for(p.epsilon, p.delta, 1.0, p.rounds), p.site_clip, p.delta, taking_part, seed)
