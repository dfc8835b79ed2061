"""Krum and Bulyan: averaging that so many malicious sites cannot steer (Blanchard et al. 2017; El Mhamdi et al. 2018).

Both measure how far updates lie from each other. Distances are those of parameters: running statistics of batch norms stay
out, for a variance is in units of its layer and would alone decide who is near to whom. Flower's strategies count every
array, accept fewer sites than the theorems ask for, and Flower's Bulyan ranks the sites once, where the paper runs Krum again
on those who are left; so both are written out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, final

import numpy as np
from pydantic import Field

from fedprivseg.core.errors import QuorumError, ScenarioError
from fedprivseg.methods.aggregation import Aggregation, Update
from fedprivseg.methods.rounds import Rounds, taking_part
from fedprivseg.methods.training import RoundsParameters, flat

if TYPE_CHECKING:
    from fedprivseg.nets.baseline import Weights


def distances(updates: Sequence[Update], statistics: frozenset[str]) -> np.ndarray:
    """Squared distances (n, n) float64 between the parameters of n updates. statistics: names that are no parameters."""
    vectors = [flat({n: v for n, v in update.arrays.items() if n not in statistics}) for update in updates]
    found = np.zeros((len(vectors), len(vectors)))
    for one, other in combinations(range(len(vectors)), 2):
        found[one, other] = found[other, one] = np.square(vectors[one].astype(np.float64) - vectors[other]).sum()
    return found


def krum(apart: np.ndarray, among: Sequence[int], malicious: int) -> int:
    """Which of the updates `among` has the least sum of squared distances to its ``n - malicious - 2`` nearest ones
    (Blanchard et al. 2017, section 4), the first of several that have it.

    Bulyan asks it of ever fewer, of whom that number is below 1 in the end; then one neighbour counts.

    Args:
        apart: squared distances (n, n) between all updates.
        among: places of those that are left.
        malicious: f.
    """
    near = max(1, len(among) - malicious - 2)
    scores = [np.sort([apart[one, other] for other in among if other != one])[:near].sum() for one in among]
    return among[int(np.argmin(scores))]


@final
class Nearest(Aggregation):
    """Krum: the arrays of the one site that lies nearest to the others, its running statistics included.

    Args:
        malicious: f; a round takes at least 2 f + 3 sites.
        statistics: names of running statistics.
    """

    def __init__(self, malicious: int, statistics: frozenset[str]) -> None:
        self.malicious = malicious
        self.statistics = statistics

    def aggregate(self, number: int, arrays: Weights, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """Whole weights, not a mean."""
        _enough("Krum", updates, 2, self.malicious)
        each = list(updates.values())
        return dict(each[krum(distances(each, self.statistics), range(len(each)), self.malicious)].arrays)


@final
class NearMedian(Aggregation):
    """Bulyan: Krum takes theta = n - 2 f sites, one after the other, each from those that are left; then every value is the
    mean of the theta - 2 f that lie nearest to the median of the chosen (El Mhamdi et al. 2018, section 4).

    Args:
        malicious: f; a round takes at least 4 f + 3 sites.
        statistics: names of running statistics; they have no say in who is chosen, and then are averaged as the rest.
    """

    def __init__(self, malicious: int, statistics: frozenset[str]) -> None:
        self.malicious = malicious
        self.statistics = statistics

    def aggregate(self, number: int, arrays: Weights, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """The mean near the median, in float64, value by value."""
        _enough("Bulyan", updates, 4, self.malicious)
        each = list(updates.values())
        apart = distances(each, self.statistics)
        left, chosen = list(range(len(each))), list[int]()
        while len(chosen) < len(each) - 2 * self.malicious:
            chosen.append(krum(apart, left, self.malicious))
            left.remove(chosen[-1])
        kept = len(chosen) - 2 * self.malicious
        found = {}
        for name in arrays:
            stack = np.stack([each[place].arrays[name] for place in sorted(chosen)]).astype(np.float64)
            nearest = np.argsort(np.abs(stack - np.median(stack, axis=0)), axis=0, kind="stable")[:kept]
            found[name] = np.take_along_axis(stack, nearest, axis=0).mean(axis=0).astype(np.float32)
        return found


def _enough(name: str, updates: Mapping[str, Update], each: int, malicious: int) -> None:
    """Raises QuorumError if sites left, and those who stayed are fewer than the theorem asks for."""
    if len(updates) < (least := each * malicious + 3):
        raise QuorumError(
            f"{name} cannot aggregate the updates of {len(updates)} sites; with malicious = {malicious} it needs {least}"
        )


class ByzantineParameters(RoundsParameters):
    """malicious: see Krum and Bulyan."""

    malicious: int = Field(0, ge=0, description="how many sites may be malicious, f")


def _refuse(method: Krum | Bulyan, sites: int, each: int) -> None:
    """Raises ScenarioError if fewer than ``each * malicious + 3`` sites take part in a round."""
    malicious, present = method.parameters.malicious, taking_part(method.parameters, sites)
    if present >= each * malicious + 3:
        return
    most = (present - 3) // each
    able = f"with {present}, malicious may be {most} at most" if most >= 0 else "it has no use for fewer than 3"
    raise ScenarioError(
        f"method.parameters.malicious = {malicious}: {method.title} then needs {each * malicious + 3} sites in a round "
        f"({each} * malicious + 3; {method.paper}), and {present} take part; {able}"
    )


@final
class Krum(Rounds):
    """The weights of the one site that lies nearest to the others."""

    name = "krum"
    title = "Krum"
    paper = "Blanchard et al., NeurIPS 2017, section 4"
    parameters_type = ByzantineParameters
    parameters: ByzantineParameters

    def check_sites(self, sites: int) -> None:
        """At least 2 * malicious + 3 (Blanchard et al. 2017, proposition 2)."""
        super().check_sites(sites)
        _refuse(self, sites, 2)

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """One site's weights."""
        return Nearest(self.parameters.malicious, statistics)


@final
class Bulyan(Rounds):
    """Krum, repeated on those who are left, then a mean near the median."""

    name = "bulyan"
    title = "Bulyan"
    paper = "El Mhamdi et al., ICML 2018, section 4"
    parameters_type = ByzantineParameters
    parameters: ByzantineParameters

    def check_sites(self, sites: int) -> None:
        """At least 4 * malicious + 3 (El Mhamdi et al. 2018, section 4)."""
        super().check_sites(sites)
        _refuse(self, sites, 4)

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """A mean near the median of those whom Krum takes."""
        return NearMedian(self.parameters.malicious, statistics)
