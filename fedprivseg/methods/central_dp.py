"""FedAvg under central differential privacy: the server clips every site's update and adds noise to their sum.

What is protected is a whole site's part in the training (McMahan et al., ICLR 2018, algorithm 1), against whoever sees the
released weights. It is not a protection from the server, which receives every update as it is. With a handful of hospitals
the noise has nothing to hide in: expect it to cost nearly everything.

Two runs are neighbours if one site's update is nothing in one of them (zero-out; the same as adding or removing a site). One
site then moves the sum of clipped updates by the clipping norm at most, however many others came, since the divisor is fixed:
the number of sites that were planned, as the paper's estimator divides by the expected weight. If sites stay away, the mean
is nearer to no change and the promise stays as it was stated. With the number of those who came as divisor, one site more or
less would change every other site's share, and the same noise would promise much less. To replace a site by another moves
the sum by twice the norm: that promise is the one of half the noise.

The noise comes from the run's seed, so that runs can be repeated; a real deployment must draw it from a source that nobody
can repeat. A round that is done again after an interruption draws the same noise; if other sites came the second time, whoever
saw both means learns the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, final

import numpy as np
from pydantic import Field

from fedprivseg.core.records import Budget
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.methods.aggregation import Aggregation, Update
from fedprivseg.methods.rounds import Rounds, taking_part
from fedprivseg.methods.training import RoundsParameters, flat, unflat

if TYPE_CHECKING:
    from fedprivseg.nets.baseline import Weights


@final
class NoisyMean(Aggregation):
    """x + (sum of clipped changes + Gaussian noise of deviation ``noise * clip``) / planned; sites count alike.

    The account assumes that every site takes part in every round: sampling sites is not counted in its favour.

    Args:
        noise: multiplier of the noise, z.
        clip: largest norm of a site's change, S.
        delta: chance with which the promise may fail.
        planned: how many sites a round was planned with; the divisor, whoever came.
        seed: of the noise.
    """

    def __init__(self, noise: float, clip: float, delta: float, planned: int, seed: int) -> None:
        self.noise, self.clip, self.delta = noise, clip, delta
        self.planned, self.seed = planned, seed
        self.releases = 0

    def aggregate(self, number: int, arrays: Weights, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """Clip, add up, add noise, divide; in float64."""
        start = flat(arrays).astype(np.float64)
        draws = numpy_generator(self.seed, "server", "central noise", number)
        total = self.noise * self.clip * draws.standard_normal(len(start))
        for update in updates.values():
            change = flat({name: update.arrays[name] for name in arrays}) - start
            total += change / max(1.0, float(np.linalg.norm(change)) / self.clip)
        self.releases += 1
        return unflat((start + total / self.planned).astype(np.float32), arrays)

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
        mechanism = "noise at the server, which sees every update; a site's update or nothing in its place"
        return Budget("", mechanism, "site", epsilon, self.delta, self.noise)


class CentralDPParameters(RoundsParameters):
    """The budget and the clipping norm."""

    norm: Literal["group"] = Field("group", description="group: a batch norm's variance under noise could be negative")
    epsilon: float = Field(8.0, gt=0, allow_inf_nan=False, description="the budget of the whole run, for each site")
    delta: float = Field(1e-5, gt=0, lt=1, description="chance with which the promise may fail; below 1 / sites")
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
        """A noisy mean, with the noise that fits the budget."""
        from fedprivseg.nets.private_training import noise_for

        p = self.parameters
        noise = noise_for(p.epsilon, p.delta, 1.0, p.rounds)
        return NoisyMean(noise, p.site_clip, p.delta, taking_part(p, sites), seed)
