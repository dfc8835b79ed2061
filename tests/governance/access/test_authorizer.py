"""The authorizer: every fault is a refusal, and decisions come in time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from access_cases import (
    AUTHORIZER,
    CARE,
    DOCTOR,
    GUARDIAN,
    HEAD,
    HEARTS,
    INFORMED,
    NOW,
    OUTSIDER,
    PATIENT,
    RECORD,
    ROWS,
    SAID,
    SAVE,
    SENIOR,
    TOLD,
    TRAIN,
    VIEW,
    ask,
    care,
    clock,
    house,
    names,
    rec,
    study,
)

from fedprivseg.governance.access import cedar_terms
from fedprivseg.governance.access.authorizer import CedarAuthorizer
from fedprivseg.governance.access.roles import (
    MOST_CHARACTERS,
    MOST_DOCTORS,
    MOST_MEMBERS,
    MOST_SUPERIORS,
    Action,
    Granularity,
    Request,
    Staff,
    Title,
)

GRANTED = Request(DOCTOR, VIEW, rec(INFORMED), CARE)


def refused_as_fault(authorizer: CedarAuthorizer, request: Any = GRANTED) -> str:
    ruling = authorizer.decide(request)
    assert (ruling.allowed, ruling.decision.rule, ruling.policies) == (False, "access.fault", ())
    assert "patient 7" not in ruling.decision.reason
    return ruling.decision.reason


class Panic(BaseException):
    """As the engine's panics: no Exception."""


@pytest.mark.parametrize("fault", [ValueError, RuntimeError, MemoryError, RecursionError, Panic])
@pytest.mark.parametrize("part", ["is_authorized", "Entities"])
def test_a_fault_of_the_engine_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, fault: type[BaseException], part: str
) -> None:
    def fail(*arguments: object, **named: object) -> Any:
        raise fault("patient 7 of /data")

    assert AUTHORIZER.decide(GRANTED).allowed
    if part == "Entities":
        monkeypatch.setattr(cedarpy.Entities, "from_json_str", fail)
    else:
        monkeypatch.setattr(cedarpy, "is_authorized", fail)
    assert fault.__name__ in refused_as_fault(AUTHORIZER)


def test_whoever_stops_the_program_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(cedarpy, "is_authorized", stop)
    with pytest.raises(KeyboardInterrupt):
        AUTHORIZER.decide(GRANTED)


def test_an_answer_that_comes_late_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = cedarpy.is_authorized
    hurried = CedarAuthorizer(clock=clock, limit_s=0.2)

    def slow(*arguments: Any) -> Any:
        time.sleep(0.25)
        return engine(*arguments)

    monkeypatch.setattr(cedarpy, "is_authorized", slow)
    assert AUTHORIZER.decide(GRANTED).allowed
    assert "longer than 0.2 seconds" in refused_as_fault(hurried)


def test_a_policy_that_cannot_be_evaluated_is_a_refusal(tmp_path: Path) -> None:
    """Cedar passes over such a policy, so that a forbidding one would forbid nothing. Sums beyond 64 bits fail when they are
    evaluated and not before."""
    overflow = SAID + "forbid (principal, action, resource) when { resource.level + 9223372036854775807 > 0 };"
    authorizer = CedarAuthorizer([house(tmp_path, overflow)], clock=clock, limit_s=60)
    assert "could not be evaluated" in refused_as_fault(authorizer)


def test_an_answer_with_an_unknown_policy_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    for reasons in (["policy9999"], []):
        answer = cedarpy.AuthzResult({"decision": "Allow", "diagnostics": {"reason": reasons, "errors": []}})
        monkeypatch.setattr(cedarpy, "is_authorized", lambda *given, answer=answer: answer)
        assert "not known" in refused_as_fault(AUTHORIZER)


@pytest.mark.parametrize(
    "request_",
    [
        replace(GRANTED, principal=replace(DOCTOR, title="director")),  # type: ignore[arg-type]
        replace(GRANTED, principal=replace(DOCTOR, rights=frozenset({"erase"}))),  # type: ignore[arg-type]
        replace(GRANTED, principal=None),  # type: ignore[arg-type]
        replace(GRANTED, principal="doctor"),  # type: ignore[arg-type]
        replace(GRANTED, principal=RECORD),  # type: ignore[arg-type]
        replace(GRANTED, action="erase"),  # type: ignore[arg-type]
        replace(GRANTED, action="keep"),  # type: ignore[arg-type]
        replace(GRANTED, action=None),  # type: ignore[arg-type]
        replace(GRANTED, record=None),  # type: ignore[arg-type]
        replace(GRANTED, record=rec(special="no")),
        replace(GRANTED, record=rec(infectious=1)),
        replace(GRANTED, record=rec("secret")),  # type: ignore[arg-type]
        replace(GRANTED, record=rec(doctors=("doctor",))),
        replace(GRANTED, context=None),  # type: ignore[arg-type]
        replace(GRANTED, context=care(purpose="curiosity")),
        replace(GRANTED, context=care(encrypted="yes")),
        replace(GRANTED, context=care(encrypted=None)),
        replace(GRANTED, context=care(window_asked=1.5)),
        replace(GRANTED, context=care(window_asked=1 << 70)),
        replace(GRANTED, principal=replace(PATIENT, verified="yes")),  # type: ignore[arg-type]
        replace(GRANTED, principal=replace(GUARDIAN, kinship="friend")),  # type: ignore[arg-type]
        None,
    ],
    ids=lambda request: "",
)
def test_what_does_not_fit_the_schema_is_a_refusal(request_: Any) -> None:
    refused_as_fault(AUTHORIZER, request_)


def test_an_attribute_that_the_schema_does_not_know_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    described = cedar_terms._record
    monkeypatch.setattr(
        cedar_terms, "_record", lambda record: described(record) | {"attrs": {**described(record)["attrs"], "x": 1}}
    )
    refused_as_fault(AUTHORIZER)


@pytest.mark.parametrize(
    "other",
    [
        replace(DOCTOR, title=Title.CHIEF),
        replace(DOCTOR, department="surgery"),
        replace(DOCTOR, groups=frozenset()),
        replace(DOCTOR, superior=HEAD),
        replace(DOCTOR, superior=None),
        replace(DOCTOR, superior=DOCTOR),
        replace(DOCTOR, superior=replace(SENIOR, superior=DOCTOR)),
    ],
    ids=["title", "department", "groups", "superior", "no superior", "own superior", "a circle of superiors"],
)
def test_one_person_in_two_roles_is_a_refusal(other: Staff) -> None:
    """Somebody who says to be chief, and stands in the record as attending, is one of them: which is not known here."""
    refused_as_fault(AUTHORIZER, replace(GRANTED, principal=other))


def test_projects_and_rights_are_of_the_principal_alone() -> None:
    armed = replace(DOCTOR, rights=frozenset(), projects=frozenset({HEARTS}))
    assert AUTHORIZER.decide(replace(GRANTED, principal=armed)).allowed
    ruling = AUTHORIZER.decide(Request(armed, SAVE, rec(), TOLD))
    assert names(ruling) == {"keep.right"}  # though the record's DOCTOR has the right


@pytest.mark.parametrize("now", [datetime(2024, 6, 3, 9, 0), None, "now"])
def test_a_clock_that_tells_no_moment_is_a_refusal(now: Any) -> None:
    refused_as_fault(CedarAuthorizer(clock=lambda: now, limit_s=60))


def test_a_clock_in_another_zone_tells_the_same_moment() -> None:
    there = CedarAuthorizer(clock=lambda: NOW.astimezone(timezone(timedelta(hours=8))), limit_s=60)
    assert there.decide(GRANTED).allowed


def test_the_clock_of_the_authorizer_counts_and_not_the_request() -> None:
    """A request that is fresh by its own account is stale an hour later."""
    later = CedarAuthorizer(clock=lambda: NOW + timedelta(hours=1), limit_s=60)
    assert names(later.decide(GRANTED)) == {"trust.stale"}


def test_several_threads_can_ask_one_authorizer() -> None:
    with ThreadPoolExecutor(4) as threads:
        rulings = threads.map(AUTHORIZER.decide, (ask(row) for row in ROWS))
        for row, ruling in zip(ROWS, rulings, strict=True):
            assert (ruling.allowed, names(ruling)) == (row.allowed, set(row.policies.split())), row.name


def test_names_from_outside_are_no_part_of_any_rule() -> None:
    for name in ('x" || true || "', 'doctor"};permit(principal,action,resource);//', "a\nb", "\\", "\x00", "叶", "🫀"):
        stranger = replace(OUTSIDER, id=name, department=name, groups=frozenset({name}))
        assert names(AUTHORIZER.decide(Request(stranger, VIEW, rec(), CARE))) == {"level.4-treating"}
        treated = rec(treating=frozenset({name}))
        assert names(AUTHORIZER.decide(Request(stranger, VIEW, treated, CARE))) == {"treatment.default"}


def test_the_largest_request_is_decided_in_time() -> None:
    """What bounds a decision's time: no request is larger. On the machine where the bounds were set it took 0.1 s."""

    def many(prefix: str) -> frozenset[str]:
        return frozenset(f"{prefix}{number}".ljust(MOST_CHARACTERS, "x") for number in range(MOST_MEMBERS))

    def chain(name: str) -> Staff:
        person = None
        for number in range(MOST_SUPERIORS + 1):
            person = Staff(
                f"{name}{number}".ljust(MOST_CHARACTERS, "x"), Title.CHIEF, "d" * MOST_CHARACTERS, superior=person
            )
        assert person is not None
        return person

    projects = frozenset(
        replace(HEARTS, id=name, sources=many("s"), granularities=frozenset(Granularity)) for name in many("p")
    )
    principal = replace(chain("me"), groups=many("g"), projects=projects, rights=frozenset(Action))
    doctors = tuple(chain(f"c{number}-") for number in range(MOST_DOCTORS))
    record = rec(doctors=doctors, treating=many("t"), attending=many("a"), patient="p" * MOST_CHARACTERS)
    ruling = CedarAuthorizer(clock=clock, limit_s=10).decide(
        Request(principal, TRAIN, record, study(project=min(many("p"))))
    )
    assert "level.4-study" in names(ruling)
