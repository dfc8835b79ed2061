"""How long a payload takes: by hand, and against TCP over a line that is there."""

from __future__ import annotations

import pytest
from network import line

from fedprivseg.study.clock.transfer import FIRST_WINDOW, SEGMENT, Line

MBIT_12 = 1_448_000
"""Payload bytes a second on a line of 12 Mbit/s: 1,000 packets of 1,500 bytes, 1,448 of them payload."""


def test_without_latency_a_payload_takes_its_bytes_over_the_rate():
    near = Line(mbit=12, round_trip_s=0, loss=0)
    assert near.settled == MBIT_12
    assert near.seconds(3 * MBIT_12) == 3
    assert near.seconds(0) == 0


def test_slow_start_doubles_until_the_line_is_full():
    """12 Mbit/s and 0.1 s hold 100 segments. Windows of 10, 20, 40 and 80 go out in four round trips, and leave 50 of 200."""
    far = Line(mbit=12, round_trip_s=0.1, loss=0)
    assert far.seconds(200 * SEGMENT, round_trips=1) == pytest.approx((1 + 4 + 0.5) * 0.1 + 50 / 1000)


def test_a_payload_of_one_window_takes_one_way():
    far = Line(mbit=12, round_trip_s=0.1, loss=0)
    assert far.seconds(FIRST_WINDOW) == pytest.approx(2.5 * 0.1 + 10 / 1000)


def test_losses_settle_the_window():
    """One in 600: Mathis' cycle is sqrt(400) = 20 round trips, and one more for recovery, so 600 segments in 2.1 s."""
    poor = Line(mbit=100, round_trip_s=0.1, loss=1 / 600)
    assert poor.settled == pytest.approx(600 * SEGMENT / 2.1)
    more, much = (poor.seconds(count * 600 * SEGMENT) for count in (50, 51))
    assert much - more == pytest.approx(2.1)


@pytest.mark.parametrize("loss", [0.0, 0.0001, 0.01])
@pytest.mark.parametrize("round_trip_s", [0.0, 0.02, 0.5])
def test_more_bytes_take_longer_and_a_worse_line_too(loss, round_trip_s):
    lines = [Line(mbit=mbit, round_trip_s=round_trip_s, loss=loss) for mbit in (1, 10, 1000)]
    for each in lines:
        times = [each.seconds(size) for size in range(1, 3_000_000, 9_973)]
        assert times == sorted(times)
    assert lines[0].seconds(10**6) >= lines[1].seconds(10**6) >= lines[2].seconds(10**6)


@pytest.mark.parametrize(
    ("mbit", "round_trip_ms", "loss", "size"),
    [
        (10, 20, 0.0, 1_000_000),  # the line's rate
        (20, 100, 0.0, 200_000),  # slow start alone
        (20, 100, 0.0, 2_000_000),  # both
        (2, 300, 0.0, 100_000),
        (50, 30, 0.005, 5_000_000),  # losses
    ],
)
def test_a_real_transfer_takes_as_long(mbit, round_trip_ms, loss, size):
    """Within ten in a hundred. What a busy machine adds is no matter of the line: the shorter of two transfers counts."""
    with line(mbit, round_trip_ms, loss) as real:
        taken = min(real.seconds(size) for _ in range(2))
    said = Line(mbit=mbit, round_trip_s=round_trip_ms / 1000, loss=loss).seconds(size, round_trips=1)
    assert said == pytest.approx(taken, rel=0.1)
