"""Retention: the day on which a term ends."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.policy.retention import Term


@pytest.mark.parametrize(
    ("start", "days", "end"),
    [
        (date(2026, 1, 1), 90, date(2026, 4, 1)),  # January 31, February 28, March 31: 90 days
        (date(2024, 2, 28), 366, date(2025, 2, 28)),  # 29 February 2024 is one of them
        (date(2026, 1, 1), 0, date(2026, 1, 1)),
    ],
)
def test_a_term_ends_on_its_day(start: date, days: int, end: date) -> None:
    assert Term(days=days).end(start) == end == start + timedelta(days=days)


def test_a_term_beyond_the_calendar_is_an_error() -> None:
    with pytest.raises(RequestError, match="after the year 9999"):
        Term(days=365).end(date(9999, 12, 31))
