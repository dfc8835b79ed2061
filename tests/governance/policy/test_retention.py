"""Retention: terms on a simulated clock, and what must be done on which day."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.policy.levels import DataClass
from fedprivseg.governance.policy.retention import Duty, Kept, Rule, Schedule, Term, due, duties

IMAGES = Rule(
    data_class=DataClass.STRUCTURAL,
    levels=(3, 4),
    archive_after=Term(days=90),
    destroy_after=Term(years=15),
    basis="the agreement of study 7",
)
MEASURES = Rule(
    data_class=DataClass.STRUCTURAL, levels=(1,), destroy_after=Term(days=30), basis="the site's own policy"
)
SCHEDULE = Schedule(rules=(IMAGES, MEASURES))
SCAN = Kept("subject-1", DataClass.STRUCTURAL, 3, date(2026, 1, 1))


@pytest.mark.parametrize(
    ("start", "term", "end"),
    [
        (date(2026, 1, 1), Term(days=90), date(2026, 4, 1)),  # January 31, February 28, March 31: 90 days
        (date(2026, 1, 1), Term(years=15), date(2041, 1, 1)),
        (date(2024, 2, 29), Term(years=1), date(2025, 3, 1)),  # 2025 has no 29 February: not cut short
        (date(2024, 2, 29), Term(years=4), date(2028, 2, 29)),
        (date(2024, 2, 28), Term(years=1, days=1), date(2025, 3, 1)),
        (date(2026, 1, 1), Term(), date(2026, 1, 1)),
    ],
)
def test_a_term_ends_on_its_day(start: date, term: Term, end: date) -> None:
    assert term.end(start) == end


@given(st.dates(max_value=date(9000, 1, 1)), st.integers(0, 200), st.integers(0, 1000))
def test_a_term_is_never_cut_short(start: date, years: int, days: int) -> None:
    """A year has at least 365 days, and a leap day in four at most 97 times in 400."""
    length = Term(years=years, days=days).end(start) - start
    assert timedelta(days=365 * years + days) <= length <= timedelta(days=366 * years + days + 1)


@pytest.mark.parametrize("start", [date(9999, 12, 31), date(9990, 2, 28)])
def test_a_term_beyond_the_calendar_is_an_error(start: date) -> None:
    with pytest.raises(RequestError, match="after the year 9999"):
        Term(years=15).end(start)


def test_each_object_has_its_acts_on_their_days() -> None:
    assert duties([SCAN], SCHEDULE) == (
        Duty(
            "subject-1",
            "archive",
            date(2026, 4, 1),
            "5.7-b",
            "Its time in daily use ended under the rule: the agreement of study 7.",
        ),
        Duty(
            "subject-1",
            "destroy",
            date(2041, 1, 1),
            "5.8-b",
            "Its term ended under the rule: the agreement of study 7.",
        ),
    )


def test_nothing_is_due_before_its_day_and_one_act_from_then_on() -> None:
    """The clock of the simulation goes on in days; the last act whose day has come is the one to do."""

    def acts(today: date) -> list[str]:
        return [duty.act for duty in due([SCAN], SCHEDULE, today)]

    assert acts(date(2026, 3, 31)) == []
    assert acts(date(2026, 4, 1)) == acts(date(2040, 12, 31)) == ["archive"]
    assert acts(date(2041, 1, 1)) == acts(date(2100, 1, 1)) == ["destroy"]


def test_what_is_archived_is_not_archived_again() -> None:
    archived = Kept("subject-1", DataClass.STRUCTURAL, 3, date(2026, 1, 1), archived=True)
    assert [duty.act for duty in duties([archived], SCHEDULE)] == ["destroy"]


def test_the_longest_overdue_comes_first() -> None:
    report = Kept("z-report", DataClass.STRUCTURAL, 1, date(2026, 3, 1))  # destroyed from 31 March on
    found = due([SCAN, report], SCHEDULE, date(2026, 5, 1))
    assert [(duty.name, duty.act, duty.day) for duty in found] == [
        ("z-report", "destroy", date(2026, 3, 31)),
        ("subject-1", "archive", date(2026, 4, 1)),
    ]


def test_withdrawn_consent_ends_the_term_and_says_why() -> None:
    kept = Kept(
        "subject-1",
        DataClass.STRUCTURAL,
        3,
        date(2026, 1, 1),
        ends=date(2026, 2, 1),
        ends_because="consent was withdrawn",
    )
    (duty,) = duties([kept], SCHEDULE)  # gone before it would have been archived
    assert (duty.act, duty.day) == ("destroy", date(2026, 2, 1))
    assert duty.reason == "It ends before its term: consent was withdrawn."


def test_an_end_after_the_term_does_not_make_it_longer() -> None:
    kept = Kept("subject-1", DataClass.STRUCTURAL, 1, date(2026, 1, 1), ends=date(2050, 1, 1), ends_because="agreement")
    assert [duty.day for duty in duties([kept], SCHEDULE)] == [date(2026, 1, 31)]


def test_what_is_on_hold_is_not_destroyed_and_not_forgotten() -> None:
    kept = Kept("report", DataClass.STRUCTURAL, 1, date(2026, 1, 1), hold="an audit is under way")
    (duty,) = due([kept], SCHEDULE, date(2030, 1, 1))
    assert (duty.act, duty.day) == ("review", date(2026, 1, 31))
    assert "an audit is under way" in duty.reason


def test_an_object_without_a_rule_is_an_error_that_lists_the_rules() -> None:
    for kept in (
        Kept("a", DataClass.STRUCTURAL, 5, date(2026, 1, 1)),
        Kept("a", DataClass.BIOMETRIC, 3, date(2026, 1, 1)),
    ):
        with pytest.raises(RequestError, match="clinical image, structural at 1; clinical image, structural at 3, 4"):
            due([SCAN, kept], SCHEDULE, date(2026, 1, 2))


def test_two_objects_of_one_name_are_an_error() -> None:
    with pytest.raises(RequestError, match="same name"):
        due([SCAN, SCAN], SCHEDULE, date(2026, 1, 2))


def test_an_early_end_says_why() -> None:
    for words in ({"ends": date(2026, 1, 1)}, {"ends_because": "consent was withdrawn"}):
        with pytest.raises(RequestError, match="give both, or neither"):
            Kept("a", DataClass.STRUCTURAL, 3, date(2026, 1, 1), **words)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"levels": ()}, "levels"),
        ({"levels": (0, 3)}, "levels are 1, 2, 3, 4 and 5"),
        ({"basis": "law"}, "basis"),
        ({"destroy_after": {"days": 90}}, "not before destroy_after"),
        ({"destroy_after": {"days": -1}}, "greater than or equal to 0"),
        ({"keep": True}, "Extra inputs"),
    ],
)
def test_a_rule_that_makes_no_sense_is_not_built(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Rule.model_validate(IMAGES.model_dump() | change)


def test_two_rules_for_one_thing_are_refused() -> None:
    with pytest.raises(ValidationError, match="more than one rule for clinical image, structural at level 4"):
        Schedule(rules=(IMAGES, Rule.model_validate(MEASURES.model_dump() | {"levels": (2, 4)})))
