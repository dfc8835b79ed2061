"""The headline leakage of several runs of one method: the worst attack, and not the luckiest draw.

The best of many uncertain numbers is above what any of them stands for, the more so the fewer patients each is of. So every
attack is first averaged over the runs and sites where it counts, below chance as well as above, and then the worst is taken: an
adversary chooses its attack before it sees how it ends. No attack is left out for counting in some runs only, since that would
hide what it found there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fedprivseg.core.leakage_result import STREAMS, AttackResult, Interval, Leakage, ReconstructionResult
from fedprivseg.core.measures import mean_interval


class _Way(NamedTuple):
    """What is averaged: an attack, by its title, in one setting or metric, on one stream, of images or of masks, as it counts
    for one indicator."""

    title: str
    setting: str
    stream: str
    what: str
    indicator: str

    @property
    def words(self) -> str:
        parts = [part for part in (self.setting, STREAMS.get(self.stream, self.stream), self.what) if part]
        return f"{self.title} ({', '.join(parts)})" if parts else self.title


@dataclass(frozen=True)
class PooledLeakage:
    """The worst attack on average.

    Attributes:
        value: 0 for chance or less, 1 for everything.
        interval: 95 %: a t interval over the runs, of one run over its sites, of one site over its patients; None for neither.
        by: which attack it is.
    """

    value: float
    interval: Interval | None
    by: str


def pooled_leakage(leaks: Sequence[Leakage]) -> PooledLeakage | None:
    """The worst of the attacks that count, each the mean over runs of the mean over sites; None where none does.

    Args:
        leaks: what was found of each run.
    """
    runs: dict[_Way, list[list[AttackResult]]] = {}
    for leak in leaks:
        for way, results in _by_way(leak).items():
            runs.setdefault(way, []).append(results)
    means = {way: float(np.mean(_values(way, found))) for way, found in runs.items()}
    if not means:
        return None
    worst = max(means, key=lambda way: means[way])
    return PooledLeakage(float(np.clip(means[worst], 0, 1)), _interval(worst, runs[worst]), worst.words)


def _by_way(leak: Leakage) -> dict[_Way, list[AttackResult]]:
    found: dict[_Way, list[AttackResult]] = {}
    for one in leak.counted:
        of = (one.setting, one.stream, one.what) if isinstance(one, ReconstructionResult) else (one.metric, "", "")
        for name in one.signed:
            found.setdefault(_Way(one.title, *of, name), []).append(one)
    return found


def _values(way: _Way, found: Sequence[Sequence[AttackResult]]) -> list[float]:
    """One a run, the mean over its sites."""
    return [float(np.mean([one.signed[way.indicator] for one in results])) for results in found]


def _interval(way: _Way, found: Sequence[Sequence[AttackResult]]) -> Interval | None:
    values = _values(way, found) if len(found) > 1 else [one.signed[way.indicator] for one in found[0]]
    if len(values) == 1:
        return found[0][0].interval(way.indicator)
    low, high = np.clip(mean_interval([np.array(values)]), 0, 1).tolist()
    return low, high
