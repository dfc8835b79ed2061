"""Flower's own strategies as an `Aggregation`: their arithmetic, on updates that arrive sorted by site.

A strategy is asked to configure each round (some note the present weights there, FedProx states its mu) and to aggregate
it. What it would decide by node id or arrival is decided already: it sees the sites of the round, in the order of their
names, as nodes 1, 2, 3... Flower shuffles them with Python's global generator, which is put back.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np

from fedprivseg.core.errors import QuorumError
from fedprivseg.core.seeds import derive
from fedprivseg.methods.aggregation import Aggregation, Update

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Message
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Strategy

    from fedprivseg.nets.baseline import Weights

ANY_NUMBER: Mapping[str, Any] = MappingProxyType(
    {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}
)
"""Flower waits for two nodes by default; here the federation says who takes part."""

WEIGHT = "num-examples"
"""Flower's default name of a site's weight."""


def flower(strategy: str = "FedAvg", averaged: frozenset[str] = frozenset(), **arguments: Any) -> FlowerStrategy:
    """The strategy of that name in `flwr.serverapp.strategy`, with `arguments`. averaged: see `FlowerStrategy`."""
    from flwr.serverapp import strategy as strategies

    return FlowerStrategy(getattr(strategies, strategy)(**arguments, **ANY_NUMBER), averaged)


@final
class FlowerStrategy(Aggregation):
    """Aggregation by a strategy of Flower's.

    Args:
        strategy: the strategy.
        averaged: names of arrays that are averaged plainly instead: running statistics, on which a server's optimiser must
            not step (a variance could turn negative).
    """

    def __init__(self, strategy: Strategy, averaged: frozenset[str] = frozenset()) -> None:
        self.strategy = strategy
        self.averaged = averaged

    def aggregate(self, number: int, arrays: Weights, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """One round of the strategy. Raises QuorumError if it returns no arrays, which it does for too few updates."""
        stepped = [name for name in arrays if name not in self.averaged]
        done = self._run(self.strategy, number, arrays, updates, stepped)
        if self.averaged:
            rest = [name for name in arrays if name in self.averaged]
            done |= self._run(flower().strategy, number, arrays, updates, rest)
        return {name: done[name] for name in arrays}

    def _run(
        self, strategy: Strategy, number: int, arrays: Weights, updates: Mapping[str, Update], names: list[str]
    ) -> dict[str, np.ndarray]:
        from flwr.app import ConfigRecord

        with _own_randomness(derive(0, "server", "strategy", number)):
            grid = cast("Grid", _Nodes(len(updates)))
            list(strategy.configure_train(number, _record(arrays, names), ConfigRecord(), grid))
            replies = [_reply(node, update, names) for node, update in enumerate(updates.values(), start=1)]
            done, _ = strategy.aggregate_train(number, replies)
        if done is None:
            raise QuorumError(
                f"{type(strategy).__name__} cannot aggregate the updates of {len(updates)} sites; it needs more"
            )
        return {name: done[name].numpy().astype(np.float32) for name in names}

    def state(self) -> dict[str, np.ndarray]:
        """Every array and list or dictionary of arrays among the strategy's attributes: its moments."""
        found: dict[str, np.ndarray] = {}
        for name, value in vars(self.strategy).items():
            items: Iterable[tuple[Any, Any]] = ()
            if isinstance(value, list):
                items = enumerate(value)
            elif isinstance(value, dict):
                items = value.items()
            found |= {f"{name}/{key}": array for key, array in items if isinstance(array, np.ndarray)}
        return found

    def restore(self, state: Weights) -> None:
        """Put the moments back where `state` found them."""
        moments: dict[str, dict[str, np.ndarray]] = {}
        for key, array in state.items():
            name, _, place = key.partition("/")
            moments.setdefault(name, {})[place] = array
        for name, values in moments.items():
            numbered = all(place.isdigit() for place in values)
            ordered = [values[str(place)] for place in range(len(values))] if numbered else values
            setattr(self.strategy, name, ordered)


@final
class _Nodes:
    """As much of a grid of Flower's as a strategy asks for while it configures a round: its nodes."""

    def __init__(self, count: int) -> None:
        self._count = count

    def get_node_ids(self) -> Iterable[int]:
        return range(1, self._count + 1)


def _record(arrays: Weights, names: list[str]) -> ArrayRecord:
    """Those arrays as Flower keeps them from one round to the next."""
    from flwr.app import Array, ArrayRecord

    return ArrayRecord({name: Array(arrays[name].astype(np.float64)) for name in names})


def _reply(node: int, update: Update, names: list[str]) -> Message:
    from flwr.app import Message, MetricRecord, RecordDict

    from fedprivseg.methods.flower_record import LookedAt

    metrics = MetricRecord({WEIGHT: update.weight})
    content = RecordDict({"arrays": LookedAt(update.arrays, names), "metrics": metrics})
    return Message(content=content, dst_node_id=node, message_type="train")


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Python's and numpy's global generators start from `seed` inside and are as before afterwards: Flower draws from them."""
    world = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(world[0])
        np.random.set_state(world[1])
