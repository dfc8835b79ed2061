"""The headline leakage of several runs of one method: the worst attack, and not the luckiest draw.

The best of many uncertain numbers is above what any of them stands for, the more so the fewer patients each is of. So every
attack is first averaged over sites and runs, below chance as well as above, and then the worst is taken: an adversary chooses
its attack before it sees how it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedprivseg.core.leakage_result import STREAMS, AttackResult, Leakage, ReconstructionResult
from fedprivseg.core.measures import mean_interval

Interval = tuple[float, float]

_Way = tuple[str, str, str, str, str]
"""Attack, its setting or metric, stream, of images or masks, indicator."""


@dataclass(frozen=True)
class PooledLeakage:
    """The worst attack on average.

    Attributes:
        value: 0 for chance or less, 1 for everything.
        interval: 95 %: a t interval over the runs; of one run, over the patients of the site where it is worst; or None.
        by: which attack it is.
    """

    value: float
    interval: Interval | None
    by: str


def pooled_leakage(leaks: Sequence[Leakage]) -> PooledLeakage | None:
    """The worst of the attacks that count in every run, each the mean over runs of the mean over sites; None where none does.

    Args:
        leaks: what was found of each run, 1 or more.
    """
    each = [_by_way(leak.counted) for leak in leaks]
    ways = [way for way in each[0] if all(way in other for other in each)]
    if not ways:
        return None
    values = {way: [float(np.mean([one.signed[way[4]] for one in found[way]])) for found in each] for way in ways}
    worst = max(ways, key=lambda way: np.mean(values[way]))
    first = max(each[0][worst], key=lambda one: one.signed[worst[4]])
    if len(leaks) > 1:
        low, high = mean_interval([np.array(values[worst])])
        interval: Interval | None = (min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0))
    else:
        interval = first.interval(worst[4])
    value = min(max(float(np.mean(values[worst])), 0.0), 1.0)
    return PooledLeakage(value, interval, _in_words(worst, first))


def _by_way(results: Iterable[AttackResult]) -> dict[_Way, list[AttackResult]]:
    found: dict[_Way, list[AttackResult]] = {}
    for one in results:
        way = (one.setting, one.stream, one.what) if isinstance(one, ReconstructionResult) else (one.metric, "", "")
        for name in one.signed:
            found.setdefault((one.attack, *way, name), []).append(one)
    return found


def _in_words(way: _Way, one: AttackResult) -> str:
    _, setting, stream, what, _ = way
    parts = [part for part in (setting, STREAMS.get(stream, stream), what) if part]
    return f"{one.title} ({', '.join(parts)})" if parts else one.title
