"""When a site is there, and how work fits into it; hours by hand."""

from __future__ import annotations

from itertools import islice

import pytest

from fedprivseg.core.seeds import numpy_generator
from fedprivseg.core.site_profile import Availability, Markov
from fedprivseg.study.clock.presence import Presence

H = 3600.0


def presence(seed=0, **ways):
    return Presence(Availability(**ways), numpy_generator(seed, "presence"))


def hours(spans):
    return [(start / H, end / H) for start, end in spans]


def test_who_is_always_there_works_at_once():
    assert presence().spans(5.0, 7.0) == [(5.0, 12.0)]


@pytest.mark.parametrize(
    ("start", "work", "expected"),
    [
        (0, 1, [(11, 12)]),  # the study begins at nine, the night at eight in the evening
        (0, 12, [(11, 21), (35, 37)]),
        (20, 1, [(20, 21)]),
        (21, 1, [(35, 36)]),
    ],
)
def test_at_night(start, work, expected):
    assert hours(presence(daily=("20:00", "06:00")).spans(start * H, work * H)) == expected


def test_a_window_that_is_open_when_the_study_begins():
    """Eight to five: of the first day eight hours are left."""
    assert hours(presence(daily=("08:00", "17:00")).spans(0.0, 10 * H)) == [(0, 8), (23, 25)]
    assert hours(presence(daily=("22:00", "10:00")).spans(0.0, 2 * H)) == [(0, 1), (13, 14)]


def test_a_trace_begins_anew():
    """There 1, away 2, there 3, away 4: at 0 to 1, 3 to 6, 10 to 11, 13 to 16."""
    assert hours(presence(trace=(1, 2, 3, 4)).spans(0.0, 6 * H)) == [(0, 1), (3, 6), (10, 11), (13, 14)]


def test_time_goes_on_over_several_orders():
    there = presence(trace=(1, 2, 3, 4))
    assert hours(there.spans(0.5 * H, 1 * H)) == [(0.5, 1), (3, 3.5)]
    assert hours(there.spans(3.5 * H, 1 * H)) == [(3.5, 4.5)]
    assert hours(there.spans(9.0 * H, 1 * H)) == [(10, 11)]


def test_at_random_it_is_there_as_often_as_it_says_and_the_same_each_time():
    """A thousand turns of 3 and 1 hours on average: the mean of 1,000 exponential times lies within a tenth of theirs."""
    markov = Markov(there=3, away=1)
    turns = list(islice(presence(markov=markov)._spans, 1000))
    there, whole = sum(end - start for start, end in turns), turns[-1][1]
    assert there / whole == pytest.approx(0.75, abs=0.03)
    assert whole / 1000 / H == pytest.approx(4, rel=0.1)
    assert turns == list(islice(presence(markov=markov)._spans, 1000))
    assert turns != list(islice(presence(seed=1, markov=markov)._spans, 1000))
