"""Records of who asks for what: what is out of bounds is no request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from access_cases import (
    DOCTOR,
    GUARDIAN,
    HEARTS,
    care,
    rec,
)

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.access.roles import (
    MOST_CHARACTERS,
    MOST_DOCTORS,
    MOST_MEMBERS,
    MOST_SUPERIORS,
    Patient,
    Staff,
    Title,
)

TOO_MUCH: dict[str, Callable[[], object]] = {
    "a long name": lambda: replace(DOCTOR, id="x" * (MOST_CHARACTERS + 1)),
    "no name": lambda: replace(DOCTOR, id=""),
    "a name that is no text": lambda: replace(DOCTOR, department=7),  # type: ignore[arg-type]
    "many groups": lambda: replace(DOCTOR, groups=frozenset(map(str, range(MOST_MEMBERS + 1)))),
    "groups that can change": lambda: replace(DOCTOR, groups={"a"}),  # type: ignore[arg-type]
    "two projects of one id": lambda: replace(DOCTOR, projects=frozenset({HEARTS, replace(HEARTS, level=2)})),
    "many projects": lambda: replace(
        DOCTOR, projects=frozenset(replace(HEARTS, id=str(i)) for i in range(MOST_MEMBERS + 1))
    ),
    "a project of level 4": lambda: replace(HEARTS, level=4),
    "a project of level 0": lambda: replace(HEARTS, level=0),
    "a project of level true": lambda: replace(HEARTS, level=True),
    "a project without time zone": lambda: replace(HEARTS, until=datetime(2024, 6, 3)),
    "level 0": lambda: rec(level=0),
    "level 6": lambda: rec(level=6),
    "level true": lambda: rec(level=True),
    "level 2.0": lambda: rec(level=2.0),
    "a negative age": lambda: rec(age_days=-1),
    "half a day": lambda: rec(age_days=0.5),
    "many doctors": lambda: rec(doctors=(DOCTOR,) * (MOST_DOCTORS + 1)),
    "doctors that can change": lambda: rec(doctors=[DOCTOR]),
    "many who treat": lambda: rec(treating=frozenset(map(str, range(MOST_MEMBERS + 1)))),
    "a patient of two names": lambda: rec(patient=("p1", "p2")),
    "a nameless patient": lambda: Patient(""),
    "many wards": lambda: replace(GUARDIAN, patients=frozenset(map(str, range(MOST_MEMBERS + 1)))),
    "a request at no moment": lambda: care(asked=datetime(2024, 6, 3)),
    "authenticated at no moment": lambda: care(authenticated=datetime(2024, 6, 3)),
    "a long project": lambda: care(project="x" * (MOST_CHARACTERS + 1)),
}


@pytest.mark.parametrize("build", TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_is_out_of_bounds_is_no_request(build: Any) -> None:
    with pytest.raises(RequestError) as caught:
        build()
    assert "p1" not in str(caught.value)


def above(count: int) -> Staff:
    person = Staff("0", Title.CHIEF, "d")
    for number in range(1, count + 1):
        person = Staff(str(number), Title.CHIEF, "d", superior=person)
    return person


def test_superiors_in_a_row_are_counted() -> None:
    assert above(MOST_SUPERIORS).superior is not None
    with pytest.raises(RequestError, match="16 superiors"):
        above(MOST_SUPERIORS + 1)
