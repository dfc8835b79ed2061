"""When a site is there: spans of simulated time, one after the other, and how work fits into them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import cycle

import numpy as np

from fedprivseg.core.site_profile import Availability, Markov

STARTS_AT_H = 9.0
"""The time of day at which a simulated study begins."""

DAY_S, HOUR_S, MINUTE_S = 86_400.0, 3_600.0, 60.0

Span = tuple[float, float]
"""Seconds from the beginning of the study: from and until."""


class Presence:
    """One site's comings and goings. Time only goes on: ask for moments in their order."""

    def __init__(self, availability: Availability, draws: np.random.Generator) -> None:
        self._spans = _spans(availability, draws)
        self._now = next(self._spans)

    def spans(self, start: float, seconds: float) -> list[Span]:
        """The spans in which the site does `seconds` of work, more than none, that it could begin at `start`; the last one ends
        with the work."""
        found: list[Span] = []
        while True:
            while self._now[1] <= start:
                self._now = next(self._spans)
            begin = max(start, self._now[0])
            room = self._now[1] - begin
            if seconds <= room:
                return [*found, (begin, begin + seconds)]
            found.append((begin, self._now[1]))
            start, seconds = self._now[1], seconds - room


def _spans(availability: Availability, draws: np.random.Generator) -> Iterator[Span]:
    if availability.daily is not None:
        return _daily(*map(_seconds_of, availability.daily))
    if availability.trace is not None:
        return _by_turns(cycle(availability.trace))
    if availability.markov is not None:
        return _by_turns(_drawn(availability.markov, draws))
    return iter([(0.0, math.inf)])


def _seconds_of(time: str) -> float:
    """A time of day as seconds of the study's first day, which begins at `STARTS_AT_H`."""
    hours, minutes = time.split(":")
    return int(hours) * HOUR_S + int(minutes) * MINUTE_S - STARTS_AT_H * HOUR_S


def _daily(first: float, last: float) -> Iterator[Span]:
    length = (last - first) % DAY_S
    start = first % DAY_S - DAY_S  # the window of the evening before may still be open
    while True:
        if start + length > 0:
            yield max(0.0, start), start + length
        start += DAY_S


def _by_turns(hours: Iterator[float]) -> Iterator[Span]:
    """There for the first of `hours`, away for the second, there for the third, and so on."""
    now = 0.0
    for there, away in zip(hours, hours, strict=False):
        yield now, now + there * HOUR_S
        now += (there + away) * HOUR_S


def _drawn(markov: Markov, draws: np.random.Generator) -> Iterator[float]:
    while True:
        yield float(draws.exponential(markov.there))
        yield float(draws.exponential(markov.away))
