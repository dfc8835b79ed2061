"""The breach drill: from a real ledger and a plan, who is told what by when, and what went out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from fedprivseg.core.errors import RequestError
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.ledger import Ledger, read
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle.breach_drill import Drill, Leak, drill
from fedprivseg.governance.lifecycle.response_plan import Contact, ResponsePlan

KEY = SiteKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))  # fixed, for tests only
FOUND = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
PLAN = ResponsePlan(
    contacts=(
        Contact(role="data protection officer", reach="dpo@centre", hours=72, levels=(2, 3, 4, 5)),
        Contact(role="head of the study", reach="study office", hours=4, levels=(3, 4, 5)),
        Contact(role="supervisory authority", reach="hotline", hours=0.5, levels=(4, 5)),
    )
)


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def facts(number: int, **change: Fact) -> dict[str, Fact]:
    said: dict[str, Fact] = {
        "digest": digest(number),
        "kind": "image-code",
        "level": 3,
        "purpose": "train",
        "bytes": 1000,
        "run": "run1",
        "history": ["encode", "noise of multiplier 1"],
    }
    return said | change


@pytest.fixture
def lines(tmp_path: Path) -> list[Line]:
    """Line 0 is the key; then releases 1, 2 (of named subjects), 3 (level 4, unprotected), and a refusal that stayed."""
    ledger = Ledger(tmp_path / "ledger.jsonl", KEY, "centre1")
    ledger.append("release", facts(1))
    ledger.append("release", facts(2, level=2, subjects=["s-1", "s-2"]))
    ledger.append("release", facts(3, level=4, history=[]))
    ledger.append("refusal", facts(4, level=5))
    return read(ledger.path)


def concerned(found: Drill) -> list[int]:
    return [exposure.index for exposure in found.exposures]


def told(found: Drill) -> list[str]:
    return [notice.role for notice in found.notifications]


def test_a_payload_that_leaked_is_found_with_its_recipient_and_protections(lines: list[Line]) -> None:
    found = drill(lines, PLAN, Leak("payload", digest(1)), FOUND)
    (exposure,) = found.exposures
    assert (exposure.site, exposure.index, exposure.digest) == ("centre1", 1, digest(1))
    assert (exposure.level, exposure.size, exposure.recipient, exposure.certain) == (
        3,
        1000,
        "the server of run run1",
        True,
    )
    assert exposure.protections == ("encode", "noise of multiplier 1")
    assert exposure.says == (
        "centre1 released 1000 bytes of kind image-code for train, of level 3, to the server of run run1 on "
        f"{lines[1].time}, under encode, noise of multiplier 1."
    )
    assert found.level == 3
    assert found.findings == ()


def test_those_who_care_about_the_level_are_told_by_their_deadlines(lines: list[Line]) -> None:
    """FOUND is 1 May 8:00; 4 hours later is 12:00, 72 hours later is 4 May 8:00. Level 3 is no matter for the authority."""
    found = drill(lines, PLAN, Leak("payload", digest(1)), FOUND)
    assert [(notice.role, notice.reach, notice.by) for notice in found.notifications] == [
        ("head of the study", "study office", datetime(2026, 5, 1, 12, 0, tzinfo=UTC)),
        ("data protection officer", "dpo@centre", datetime(2026, 5, 4, 8, 0, tzinfo=UTC)),
    ]
    assert found.notifications[0].says == (
        "The head of the study is notified by 2026-05-01T12:00+00:00 (4 hours after discovery) of a leak of level 3: 1 release "
        "of 1 site."
    )


def test_the_highest_level_decides_who_is_told(lines: list[Line]) -> None:
    found = drill(lines, PLAN, Leak("period", since=FOUND - timedelta(days=36500)), FOUND)
    assert concerned(found) == [1, 2, 3]  # not the key line, and not what was refused
    assert found.level == 4
    assert told(found) == ["supervisory authority", "head of the study", "data protection officer"]
    assert found.notifications[0].by == datetime(2026, 5, 1, 8, 30, tzinfo=UTC)
    assert "Of 3 releases, 1 left under no protection that the ledger names." in found.findings


def test_who_was_not_enrolled_is_in_nothing_that_left_afterwards(tmp_path: Path) -> None:
    """Line 2 left before anybody was enrolled that the ledger names, so it excludes nobody."""
    ledger = Ledger(tmp_path / "ledger.jsonl", KEY, "centre1")
    ledger.append("enrolment", {"subjects": 2})
    ledger.append("release", facts(1))
    ledger.append("enrolment", {"subjects": 2, "train": ["s-1"], "test": ["s-2"]})
    ledger.append("release", facts(2))
    ledger.append("enrolment", {"subjects": 1, "train": [], "test": ["s-2"]})  # s-1 has withdrawn
    ledger.append("release", facts(3))
    told = read(ledger.path)
    assert {who: concerned(drill(told, PLAN, Leak("subject", who), FOUND)) for who in ("s-1", "s-2", "s-3")} == {
        "s-1": [2, 4],
        "s-2": [2, 4, 6],
        "s-3": [2],
    }


def test_a_subject_is_in_what_names_it_and_in_what_names_nobody(lines: list[Line]) -> None:
    """Release 2 names its subjects; 1 and 3 do not, and so cannot be excluded."""
    found = drill(lines, PLAN, Leak("subject", "s-1"), FOUND)
    assert [(exposure.index, exposure.certain) for exposure in found.exposures] == [(1, False), (2, True), (3, False)]
    assert "does not exclude" in found.exposures[0].says
    assert any("Of 3 releases, 2 cannot be told" in finding for finding in found.findings)
    absent = drill(lines, PLAN, Leak("subject", "s-3"), FOUND)
    assert concerned(absent) == [1, 3]
    assert "s-1" not in str(found)
    assert "s-3" not in str(absent)


def test_a_payload_that_no_ledger_knows_is_of_the_highest_level(lines: list[Line]) -> None:
    for which in (digest(9), digest(4)):  # foreign; refused, and so not released
        found = drill(lines, PLAN, Leak("payload", which), FOUND)
        assert (found.exposures, found.level) == ((), 5)
        assert told(found) == ["supervisory authority", "head of the study", "data protection officer"]
        assert "left past the gate" in found.findings[0]


def test_a_key_that_leaked_concerns_all_it_signed_since_then(lines: list[Line]) -> None:
    found = drill(lines, PLAN, Leak("key", KEY.public_hex), FOUND)
    assert (concerned(found), found.level) == ([1, 2, 3], 5)
    assert all(exposure.certain for exposure in found.exposures)
    assert any("can sign in the site's name" in finding for finding in found.findings)
    later = drill(lines, PLAN, Leak("key", KEY.public_hex, since=datetime.fromisoformat(lines[3].time)), FOUND)
    assert concerned(later) == [3]
    foreign = drill(lines, PLAN, Leak("key", "ab" * 32), FOUND)
    assert (concerned(foreign), foreign.level) == ([], 5)
    assert any("No ledger given here is signed with the key" in finding for finding in foreign.findings)


def test_lines_without_their_ledgers_beginning_cannot_be_excluded(lines: list[Line]) -> None:
    found = drill(lines[1:], PLAN, Leak("key", KEY.public_hex), FOUND)
    assert [(exposure.index, exposure.certain) for exposure in found.exposures] == [(1, False), (2, False), (3, False)]


def test_a_period_has_its_bounds_in_it(lines: list[Line]) -> None:
    one, two, three = (datetime.fromisoformat(line.time) for line in lines[1:4])
    tick = timedelta(microseconds=1)
    assert concerned(drill(lines, PLAN, Leak("period", since=two, until=two), FOUND)) == [2]
    assert concerned(drill(lines, PLAN, Leak("period", since=one + tick), FOUND)) == [2, 3]
    assert concerned(drill(lines, PLAN, Leak("period", until=three - tick), FOUND)) == [1, 2]
    empty = drill(lines, PLAN, Leak("period", until=one - tick), FOUND)
    assert (empty.exposures, empty.notifications, empty.level) == ((), (), 0)
    assert empty.findings == ("The ledgers show no release that this leak concerns.",)


def test_a_release_without_a_level_is_of_the_highest(lines: list[Line]) -> None:
    for level in ("high", 0, 6, True, [3]):
        odd = replace(lines[1], facts=MappingProxyType({**lines[1].facts, "level": level}))
        found = drill([lines[0], odd], PLAN, Leak("payload", digest(1)), FOUND)
        assert (found.level, found.exposures[0].level) == (5, 5)
        assert "does not state (taken as 5)" in found.exposures[0].says


def test_a_level_that_the_plan_forgot_is_said(lines: list[Line]) -> None:
    plan = ResponsePlan(contacts=(Contact(role="authority", reach="hotline", hours=1, levels=(5,)),))
    found = drill(lines, plan, Leak("payload", digest(1)), FOUND)
    assert found.notifications == ()
    assert "The plan notifies nobody of a leak of level 3. Name a contact for it." in found.findings


def test_ledgers_of_several_sites_are_counted_together(lines: list[Line], tmp_path: Path) -> None:
    other = Ledger(tmp_path / "other.jsonl", SiteKey(Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))), "centre2")
    other.append("release", facts(1))
    both = [*lines, *read(other.path)]
    found = drill(both, PLAN, Leak("payload", digest(1)), FOUND)
    assert [exposure.site for exposure in found.exposures] == ["centre1", "centre2"]
    assert "2 releases of 2 sites" in found.notifications[0].says
    assert concerned(drill(both, PLAN, Leak("key", other.public_hex), FOUND)) == [1]


@pytest.mark.parametrize("time", ["yesterday", "2026-05-01T08:00:00"])
def test_a_line_without_a_readable_time_is_an_error(lines: list[Line], time: str) -> None:
    with pytest.raises(RequestError, match="line 1 of a ledger states no time"):
        drill([lines[0], replace(lines[1], time=time)], PLAN, Leak("period", since=FOUND), FOUND)


@pytest.mark.parametrize(
    "words",
    [
        {"what": "payload"},
        {"what": "period", "which": "x", "since": FOUND},
        {"what": "period"},
        {"what": "period", "since": datetime(2026, 1, 1)},
        {"what": "period", "since": FOUND, "until": FOUND - timedelta(seconds=1)},
    ],
)
def test_a_leak_that_says_nothing_is_refused(words: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Leak(**words)


def test_discovery_has_a_time_zone(lines: list[Line]) -> None:
    with pytest.raises(RequestError, match="time zone"):
        drill(lines, PLAN, Leak("payload", digest(1)), datetime(2026, 5, 1))


@pytest.mark.parametrize(
    ("contacts", "said"),
    [
        ([], "at least 1 item"),
        ([{"levels": (1, 2, 3, 4)}], "nobody in the plan is notified of a leak of level 5"),
        ([{}, {}], "a role stands twice"),
        ([{"hours": 0}], "greater than 0"),
        ([{"levels": (5, 6)}], "levels are 1, 2, 3, 4 and 5"),
        ([{"phone": "1"}], "Extra inputs"),
    ],
)
def test_a_plan_that_would_fail_is_not_built(contacts: list[dict[str, Any]], said: str) -> None:
    good = {"role": "officer", "reach": "office", "hours": 24, "levels": (5,)}
    with pytest.raises(ValidationError, match=said):
        ResponsePlan.model_validate({"contacts": [good | change for change in contacts]})
