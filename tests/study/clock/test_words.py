"""What the virtual clock says."""

from __future__ import annotations

import pytest

from fedprivseg.core.simulated_time import SimulatedTime, SiteTime
from fedprivseg.study.clock.words import duration, reasons, sentence


def site(**spent):
    empty = dict.fromkeys(("down_s", "compute_s", "up_s", "away_s", "crashed_s", "waiting_s"), 0.0)
    return SiteTime(**{**empty, "crashes": 0, "late": 0, **spent})


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.44, "0.4 seconds"),
        (2.0, "2 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7_199, "2 hours"),
        (36 * 3600, "36 hours"),
        (9.2 * 86_400, "9 days"),
    ],
)
def test_a_length_of_time(seconds, said):
    assert duration(seconds) == said


def test_how_long_it_takes_and_who_is_waited_for():
    time = SimulatedTime(
        total_s=9 * 86_400,
        deadline_s=86_400,
        sites={
            "centre1": site(compute_s=3_600),
            "centre2": site(away_s=7 * 86_400, up_s=2 * 86_400, down_s=60, late=1),
        },
        stages={},
    )
    assert sentence(time) == "This study takes 9 days between these hospitals."
    assert reasons(time) == (
        "The others wait most for centre2: 7 days away, 2 days sending.",
        "centre2 answers 1 order after the deadline of 24 hours; what is counted is a run in which it stayed.",
    )
