"""Selective parameter sharing under the sparse-vector technique (Li et al., MLMI 2019, arXiv 1910.00962, section 2.3).

Of a round's change of the weights a site shares only some: it goes through the values in random order, compares each with
a threshold, both blurred by noise, and sends the first so many that pass, each with noise of its own and clipped. What was
not chosen is not sent; what is sent was drawn once and noised once (an index drawn again, as in a public implementation,
would let a chosen value out without noise).

The noise scales are those of the paper, where epsilon_3 belongs to one released value. The account adds it up as basic
composition demands: a round costs epsilon_1 + epsilon_2 + n * epsilon_3 for n released values, and holds for any change
of a site's data, since values are clipped. With thousands of values a round that is a very large epsilon, and it is
reported as such: with the paper's settings the noise obscures single values, and promises next to nothing about a site.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np
from pydantic import Field

from fedprivseg.core.expected import Array, Check, Expected
from fedprivseg.core.kinds import WEIGHTS
from fedprivseg.core.records import Budget, Order, Payload
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.core.task import Scope
from fedprivseg.methods.aggregation import Aggregation, Update
from fedprivseg.methods.client_update import run_round, trained_history
from fedprivseg.methods.flower_strategy import flower
from fedprivseg.methods.method import Action, Declaration, Federation, Site
from fedprivseg.methods.rounds import (
    ACTIONS,
    DECLARES,
    NUMBERS,
    NUMBERS_FORM,
    Rounds,
    numbers_of,
)
from fedprivseg.methods.training import (
    RoundsParameters,
    flat,
    numbered,
    outline,
    packed,
    unpacked,
)
from fedprivseg.nets.choices import Norm

if TYPE_CHECKING:
    from fedprivseg.nets.baseline import Weights


class SelectiveParameters(RoundsParameters):
    """The paper's names; gamma and tau are in units of a weight's change in one step."""

    norm: Norm = Field("group", description="running statistics of batch norms are no change of a weight")
    share: float = Field(0.1, gt=0, le=1, description="largest share of the values that is sent in a round")
    gamma: float = Field(1e-3, gt=0, description="values are clipped to -gamma..gamma")
    tau: float = Field(1e-4, ge=0, description="threshold for the size of a value")
    epsilon_1: float = Field(1.0, gt=0, description="budget of the threshold; epsilon_2 = epsilon_1 (2n)^(2/3)")
    epsilon_3: float = Field(1.0, gt=0, description="budget of one released value")


def select(
    values: np.ndarray, count: int, p: SelectiveParameters, draws: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (m,) int32, sorted, and noised values (m,) float32 of at most `count` of `values` (n,), m <= count.

    Values are clipped to +-gamma; a value passes if its size with noise Lap(4 gamma count / epsilon_2) reaches tau with
    noise Lap(2 gamma / epsilon_1); a passed value is sent with noise Lap(2 gamma / epsilon_3), clipped again.
    """
    clipped = np.clip(values.astype(np.float64), -p.gamma, p.gamma)
    epsilon_2 = p.epsilon_1 * (2 * count) ** (2 / 3)
    threshold = p.tau + draws.laplace(scale=2 * p.gamma / p.epsilon_1)
    order = draws.permutation(len(values))
    passed = (
        np.abs(clipped[order]) + draws.laplace(scale=4 * p.gamma * count / epsilon_2, size=len(values)) >= threshold
    )
    chosen = np.sort(order[passed][:count])
    noised = clipped[chosen] + draws.laplace(scale=2 * p.gamma / p.epsilon_3, size=len(chosen))
    return chosen.astype(np.int32), np.clip(noised, -p.gamma, p.gamma).astype(np.float32)


def train_selected(method: SelectiveSharing, site: Site, order: Order) -> Payload:
    """A round of training, of whose change a noised selection is sent."""
    p = method.parameters
    result = run_round(method, site, order)
    received, _ = unpacked(order)
    change = flat({name: result.arrays[name] - received[name] for name in received}) / result.steps
    draws = numpy_generator(site.seed, site.name, "selection", order.number)
    indices, values = select(change, _most(p, len(change)), p, draws)
    numbers = np.array([result.weight, result.steps, 0.0])  # the loss would be about the data, without noise
    arrays = {"indices": indices, "values": values, NUMBERS: numbers}
    return numbered(WEIGHTS, site, "train", arrays, order.number, _history(p, len(change)))


def selected(method: SelectiveSharing, scope: Scope, order: Order) -> Expected:
    """What `train_selected` sends: places and values of at most a share of the network's values."""
    from fedprivseg.nets.baseline import shapes_of

    p = method.parameters
    count = sum(math.prod(shape) for shape in shapes_of(outline(p, scope)).values())
    most = _most(p, count)
    largest = float(np.float32(p.gamma))  # as values are sent: what float32 has nearest to gamma may lie beyond it
    form = {
        "indices": Array("int32", (None,), 0, count - 1, longest=most),
        "values": Array("float32", (None,), -largest, largest, longest=most),
        NUMBERS: NUMBERS_FORM,
    }
    return Expected(WEIGHTS, "train", form, _history(p, count), check=_selection_of(method))


def _history(p: SelectiveParameters, count: int) -> tuple[str, ...]:
    return (*trained_history(p), f"at most {_most(p, count)} of {count} values, noised and clipped")


def exchange_selected(
    method: Rounds, federation: Federation, number: int, arrays: Weights, extra: Weights, chosen: Sequence[str]
) -> dict[str, Update]:
    """Every chosen site sends indices and values; its update is the received weights with these changes, times steps."""
    sent = packed(federation, arrays, extra, number)
    replies = method.ask(federation, "train", number=number, answers=sent, sites=chosen)
    return {site: _rebuilt(payload, arrays) for site, payload in replies.items()}


def _selection_of(method: Rounds) -> Check:
    """The check of a selection: as many indices as values, each once and in order; and its numbers."""
    numbers = numbers_of(method)

    def check(payload: Payload, facts: Mapping[str, int]) -> str | None:
        indices, values = payload.arrays["indices"], payload.arrays["values"]
        if len(indices) != len(values):
            return f"{len(indices)} indices and {len(values)} values came; it is as many of both"
        if (np.diff(indices) <= 0).any():
            return "its indices are not in order, or one comes twice"
        return numbers(payload, facts)

    return check


def _rebuilt(payload: Payload, arrays: Weights) -> Update:
    weight, steps, loss = (float(value) for value in payload.arrays[NUMBERS])
    return Update(_Rebuilt(payload.arrays, arrays, steps), {}, weight, int(steps), loss)


@final
class _Rebuilt(Mapping[str, np.ndarray]):
    """The received weights with the changes that a site sent, each array made when it is looked at."""

    def __init__(self, sent: Weights, arrays: Weights, steps: float) -> None:
        self._sent, self._arrays, self._steps = sent, arrays, steps

    def __getitem__(self, name: str) -> np.ndarray:
        before = sum(value.size for other, value in self._arrays.items() if other < name)  # as `flat` puts them
        value = self._arrays[name]
        indices = self._sent["indices"]
        first, last = np.searchsorted(indices, (before, before + value.size))
        change = np.zeros(value.size, np.float32)
        change[indices[first:last] - before] = self._sent["values"][first:last] * self._steps
        return value + change.reshape(value.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _most(p: SelectiveParameters, values: int) -> int:
    """How many of `values` values may be sent in a round."""
    return max(1, int(p.share * values))


@final
class SparseMean(Aggregation):
    """FedAvg's mean, and the account of what the sites' selections cost."""

    def __init__(self, p: SelectiveParameters) -> None:
        self.p = p
        self.mean = flower()
        self.rounds = 0
        self.values = 0

    def aggregate(self, number: int, arrays: Weights, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """The mean, by weight."""
        self.rounds += 1
        self.values = sum(value.size for value in arrays.values())
        return self.mean.aggregate(number, arrays, updates)

    def state(self) -> dict[str, np.ndarray]:
        """Rounds so far and values a round."""
        return {"account": np.array([self.rounds, self.values])}

    def restore(self, state: Weights) -> None:
        """Go on counting."""
        self.rounds, self.values = (int(value) for value in state["account"])

    def spent(self) -> Budget | None:
        """Basic composition over values and rounds, were a site to send all that it may in each."""
        count = _most(self.p, self.values)
        a_round = self.p.epsilon_1 * (1 + (2 * count) ** (2 / 3)) + count * self.p.epsilon_3
        noise = 2 / self.p.epsilon_3
        return Budget("", "sparse vector technique at the site", "site", self.rounds * a_round, 0.0, noise)


@final
class SelectiveSharing(Rounds):
    """Averaging of a noised selection of each site's changes."""

    name = "selective-sharing"
    title = "Selective parameter sharing with the sparse-vector technique"
    paper = "Li et al., MLMI 2019, section 2.3"
    parameters_type = SelectiveParameters
    parameters: SelectiveParameters
    actions: ClassVar[Mapping[str, Action]] = {**ACTIONS, "train": train_selected}
    declares: ClassVar[Mapping[str, Declaration]] = {**DECLARES, "train": selected}
    exchange = exchange_selected

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """The mean, and the account."""
        return SparseMean(self.parameters)
