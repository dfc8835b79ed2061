"""Requests for access: who may ask, review and revoke, what an approval grants and for how long, and a ledger that is
trusted only as a whole."""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedprivseg.core.errors import LedgerError, RequestError
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.access.application import Application, Approval, Limit, Range
from fedprivseg.governance.access.authorizer import CedarAuthorizer
from fedprivseg.governance.access.requests import Event, Requests, State
from fedprivseg.governance.access.roles import (
    Action,
    Context,
    Granularity,
    Project,
    Purpose,
    Record,
    Request,
    Staff,
    Title,
)
from fedprivseg.governance.ledger.ledger import Ledger, read
from fedprivseg.governance.ledger.line import Line

NOW = datetime(2024, 6, 3, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)

RESEARCHER = Staff("researcher", Title.RESEARCHER, "imaging")
MEMBER = Staff("member", Title.RESEARCHER, "imaging")
STRANGER = Staff("stranger", Title.RESEARCHER, "imaging")
DOCTOR = Staff("doctor", Title.ATTENDING, "cardiology")
NURSE = Staff("nurse", Title.NURSE, "cardiology")
MANAGER = Staff("manager", Title.DATA_MANAGER, "records")
OTHER_MANAGER = Staff("other-manager", Title.DATA_MANAGER, "records")

WIDE = Range(
    sources=("cine", "ct"),
    level=3,
    granularities=(Granularity.DEFAULT, Granularity.INFORMED),
    uses=(Action.RESEARCH, Action.TRAIN),
)
NARROW = Range(sources=("cine",), level=2, granularities=(Granularity.DEFAULT,), uses=(Action.TRAIN,))
APPLICATION = Application(
    title="Segmentation of hearts",
    range=WIDE,
    scenario="Training of a segmentation network at this site for a study of five hospitals.",
    logic="Images and masks are encoded at the site; the network is trained on codes.",
    effect="De-identified images; the patient could be told again from the anatomy.",
    days=90,
    members=("member",),
)
LEAST = (Limit.DE_IDENTIFICATION, Limit.ACCESS_CONTROL)
APPROVAL = Approval(range=WIDE, days=90, limits=LEAST)
REASONS = "The study is real, the data is needed for it, and the law allows it."


@pytest.fixture
def requests(tmp_path: Path) -> Requests:
    (tmp_path / "centre1").mkdir()
    return Requests(tmp_path / "centre1")


def approved(requests: Requests, approval: Approval = APPROVAL) -> Event:
    requests.submit(RESEARCHER, APPLICATION, NOW)
    return requests.approve("request-1", MANAGER, approval, REASONS, NOW)


def state(requests: Requests, now: datetime = NOW, name: str = "request-1") -> State:
    return requests.cases()[name].state(now)


# ---------------------------------------------------------------------------------------------- the flow


def test_a_request_is_asked_for_approved_and_expires(requests: Requests) -> None:
    asked = requests.submit(RESEARCHER, APPLICATION, NOW)
    assert (asked.request, asked.line) == ("request-1", 1)
    assert state(requests) is State.SUBMITTED
    assert requests.projects("researcher", NOW) == frozenset()
    requests.approve("request-1", MANAGER, APPROVAL, REASONS, NOW + DAY)
    assert state(requests, NOW + DAY) is State.APPROVED
    end = NOW + DAY + 90 * DAY
    assert state(requests, end - timedelta(seconds=1)) is State.APPROVED
    assert state(requests, end) is State.EXPIRED
    assert requests.projects("researcher", end - timedelta(seconds=1))
    assert requests.projects("researcher", end) == frozenset()


def test_what_is_approved_is_a_project_of_just_that_range_and_term(requests: Requests) -> None:
    approved(requests, Approval(range=NARROW, days=30, limits=LEAST))
    assert requests.projects("researcher", NOW) == {
        Project(
            "request-1",
            frozenset({"cine"}),
            2,
            frozenset({Granularity.DEFAULT}),
            frozenset({Action.TRAIN}),
            NOW + 30 * DAY,
        )
    }


def test_only_the_applicant_and_the_group_get_the_project(requests: Requests) -> None:
    approved(requests)
    assert requests.projects("member", NOW) == requests.projects("researcher", NOW) != frozenset()
    for nobody in ("stranger", "manager", "", "Researcher"):
        assert requests.projects(nobody, NOW) == frozenset()


def test_a_rejected_request_grants_nothing_for_good(requests: Requests) -> None:
    requests.submit(RESEARCHER, APPLICATION, NOW)
    requests.reject("request-1", MANAGER, "The data is not needed for what the request describes.", NOW)
    assert state(requests) is State.REJECTED
    assert requests.projects("researcher", NOW) == frozenset()
    with pytest.raises(RequestError, match="request-1 is rejected, and only one that is submitted can be approved"):
        requests.approve("request-1", MANAGER, APPROVAL, REASONS, NOW)


@pytest.mark.parametrize("by", [MANAGER, OTHER_MANAGER, RESEARCHER], ids=lambda by: by.id)
def test_a_revoked_approval_grants_nothing_for_good(requests: Requests, by: Staff) -> None:
    approved(requests)
    requests.revoke("request-1", by, "The study ended before its term.", NOW + DAY)
    assert state(requests, NOW + DAY) is State.REVOKED
    assert requests.projects("researcher", NOW + DAY) == frozenset()
    assert state(requests, NOW + 400 * DAY) is State.REVOKED
    with pytest.raises(RequestError, match="request-1 is revoked"):
        requests.approve("request-1", OTHER_MANAGER, APPROVAL, REASONS, NOW + DAY)


def test_several_requests_stand_beside_each_other(requests: Requests) -> None:
    approved(requests)
    requests.submit(RESEARCHER, APPLICATION.model_copy(update={"days": 10}), NOW)
    requests.submit(DOCTOR, APPLICATION, NOW)
    requests.approve("request-2", MANAGER, Approval(range=NARROW, days=10, limits=LEAST), REASONS, NOW)
    assert {project.id for project in requests.projects("researcher", NOW)} == {"request-1", "request-2"}
    assert {project.id for project in requests.projects("researcher", NOW + 10 * DAY)} == {"request-1"}
    assert state(requests, name="request-3") is State.SUBMITTED
    assert requests.projects("doctor", NOW) == frozenset()


def test_what_is_granted_is_what_the_policies_permit(requests: Requests) -> None:
    """From the request to the decision: within the range yes, one thing beyond it no, after the revocation no."""
    approved(requests, Approval(range=NARROW, days=30, limits=LEAST))
    record = Record("r", "p", "cardiology", "cine", 2, Granularity.DEFAULT, 10, deidentified=True)

    def allowed(action: Action, record: Record, now: datetime) -> bool:
        who = replace(RESEARCHER, projects=requests.projects("researcher", now))
        context = Context(now, now, Purpose.RESEARCH, encrypted=True, integrity=True, project="request-1")
        authorizer = CedarAuthorizer(clock=lambda: now, limit_s=60)
        return authorizer.decide(Request(who, action, record, context)).allowed

    assert allowed(Action.TRAIN, record, NOW)
    assert allowed(Action.TRAIN, record, NOW + 30 * DAY - timedelta(seconds=1))
    assert not allowed(Action.TRAIN, record, NOW + 30 * DAY)
    assert not allowed(Action.RESEARCH, record, NOW)
    assert not allowed(Action.TRAIN, replace(record, source="ct"), NOW)
    assert not allowed(Action.TRAIN, replace(record, level=3), NOW)
    assert not allowed(Action.TRAIN, replace(record, granularity=Granularity.INFORMED), NOW)
    requests.revoke("request-1", MANAGER, "The study ended before its term.", NOW + DAY)
    assert not allowed(Action.TRAIN, record, NOW + DAY)


# ---------------------------------------------------------------------------------------------- who may what, and when

REFUSED: dict[str, tuple[Callable[[Requests], object], str]] = {
    "a nurse asks": (lambda requests: requests.submit(NURSE, APPLICATION, NOW), "; given nurse"),
    "a researcher reviews": (
        lambda requests: requests.approve("request-1", STRANGER, APPROVAL, REASONS, NOW),
        "reviewed by the title data-manager; given researcher",
    ),
    "a doctor rejects": (lambda requests: requests.reject("request-1", DOCTOR, REASONS, NOW), "; given attending"),
    "the applicant approves": (
        lambda requests: requests.approve("request-1", replace(MANAGER, id="researcher"), APPROVAL, REASONS, NOW),
        "nobody reviews a request of their own",
    ),
    "a member of the group approves": (
        lambda requests: requests.approve("request-1", replace(MANAGER, id="member"), APPROVAL, REASONS, NOW),
        "nobody reviews a request of their own",
    ),
    "the applicant rejects": (
        lambda requests: requests.reject("request-1", replace(MANAGER, id="researcher"), REASONS, NOW),
        "nobody reviews a request of their own",
    ),
    "no such request": (
        lambda requests: requests.approve("request-9", MANAGER, APPROVAL, REASONS, NOW),
        "there are: request-1",
    ),
    "no reasons": (lambda requests: requests.approve("request-1", MANAGER, APPROVAL, "", NOW), "reasons"),
    "blank reasons": (lambda requests: requests.reject("request-1", MANAGER, " " * 20, NOW), "reasons"),
    "a longer term than asked for": (
        lambda requests: requests.approve("request-1", MANAGER, APPROVAL.model_copy(update={"days": 91}), REASONS, NOW),
        "the approved term is 91 days; asked for were 90",
    ),
    "revoked before it is approved": (
        lambda requests: requests.revoke("request-1", MANAGER, REASONS, NOW),
        "only one that is approved",
    ),
    "before the last event": (
        lambda requests: requests.approve("request-1", MANAGER, APPROVAL, REASONS, NOW - timedelta(seconds=1)),
        "the clock stands before the last event",
    ),
    "at no moment": (lambda requests: requests.submit(RESEARCHER, APPLICATION, datetime(2024, 6, 4)), "no time zone"),
    "a title that is no title": (
        lambda requests: requests.submit(replace(RESEARCHER, title="king"), APPLICATION, NOW),  # type: ignore[arg-type]
        "title",
    ),
}


@pytest.mark.parametrize(("act", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_allowed_is_not_recorded(requests: Requests, act: Callable[[Requests], object], why: str) -> None:
    requests.submit(RESEARCHER, APPLICATION, NOW)
    before = (requests.home / "ledger.jsonl").read_bytes()
    with pytest.raises(RequestError, match=why):
        act(requests)
    assert (requests.home / "ledger.jsonl").read_bytes() == before
    requests.approve("request-1", MANAGER, APPROVAL, REASONS, NOW)  # what was refused was refused for its own fault


@pytest.mark.parametrize("by", [STRANGER, MEMBER, DOCTOR], ids=lambda by: by.id)
def test_others_do_not_revoke(requests: Requests, by: Staff) -> None:
    approved(requests)
    with pytest.raises(RequestError, match="revoked by the applicant or by the title data-manager"):
        requests.revoke("request-1", by, REASONS, NOW)
    assert state(requests) is State.APPROVED


def test_an_expired_approval_is_not_revoked_or_approved_again(requests: Requests) -> None:
    approved(requests)
    for act in (
        lambda: requests.revoke("request-1", MANAGER, REASONS, NOW + 90 * DAY),
        lambda: requests.approve("request-1", MANAGER, APPROVAL, REASONS, NOW + 90 * DAY),
    ):
        with pytest.raises(RequestError, match="request-1 is expired"):
            act()


WIDER = {
    "another source": {"sources": ("cine", "mri")},
    "a higher level": {"level": 3},
    "more detail": {"granularities": (Granularity.DEFAULT, Granularity.AUTHORISED)},
    "another use": {"uses": (Action.TRAIN, Action.RELEASE)},
}


@pytest.mark.parametrize("change", WIDER.values(), ids=WIDER)
def test_nothing_is_approved_beyond_what_was_asked_for(requests: Requests, change: dict[str, Any]) -> None:
    requests.submit(RESEARCHER, APPLICATION.model_copy(update={"range": NARROW}), NOW)
    beyond = APPROVAL.model_copy(update={"range": NARROW.model_copy(update=change)})
    with pytest.raises(RequestError, match="goes beyond the one that was asked for"):
        requests.approve("request-1", MANAGER, beyond, REASONS, NOW)
    requests.approve("request-1", MANAGER, APPROVAL.model_copy(update={"range": NARROW}), REASONS, NOW)


STATED = APPLICATION.model_dump()
INCOMPLETE = {
    **{
        f"no {name}": {key: value for key, value in STATED.items() if key != name}
        for name in STATED
        if name != "members"
    },
    **{f"an empty {name}": STATED | {name: ""} for name in ("title", "scenario", "logic", "effect")},
    **{f"a blank {name}": STATED | {name: " " * 30} for name in ("scenario", "logic", "effect")},
    "no sources": STATED | {"range": STATED["range"] | {"sources": ()}},
    "no uses": STATED | {"range": STATED["range"] | {"uses": ()}},
    "a use that is no study": STATED | {"range": STATED["range"] | {"uses": (Action.DOWNLOAD,)}},
    "level 4": STATED | {"range": STATED["range"] | {"level": 4}},
    "level 0": STATED | {"range": STATED["range"] | {"level": 0}},
    "no term": STATED | {"days": 0},
    "more than five years": STATED | {"days": 1827},
    "a day and a half": STATED | {"days": 1.5},
    "something beside": STATED | {"urgent": True},
}


@pytest.mark.parametrize("said", INCOMPLETE.values(), ids=INCOMPLETE)
def test_an_application_states_everything(said: dict[str, Any]) -> None:
    """5.6.2-a: source, scenario, range, logic, effect; and the term."""
    assert Application.model_validate(STATED) == APPLICATION
    with pytest.raises(ValidationError) as caught:
        Application.model_validate(said)
    assert "Training of a segmentation network" not in str(caught.value)


@pytest.mark.parametrize("limits", [(), (Limit.ACCESS_CONTROL,), (Limit.DE_IDENTIFICATION,), (Limit.NO_COPIES,)])
def test_an_approval_ties_to_de_identification_and_access_control(limits: tuple[Limit, ...]) -> None:
    """5.6.2-b: 'including but not limited to de-identification and access control'."""
    with pytest.raises(ValidationError, match="without which nothing is approved"):
        Approval(range=WIDE, days=1, limits=limits)
    assert Approval(range=WIDE, days=1, limits=(*LEAST, *limits)).limits == tuple(sorted({*LEAST, *limits}))


def test_what_says_the_same_is_the_same() -> None:
    again = WIDE.model_dump() | {"sources": ("ct", "cine", "ct"), "uses": (Action.TRAIN, Action.RESEARCH)}
    assert Range.model_validate(again) == WIDE


# ---------------------------------------------------------------------------------------------- events and the ledger


def told(requests: Requests) -> list[Line]:
    return [line for line in read(requests.home / "ledger.jsonl") if line.event == "access"]


def write(requests: Requests, facts: dict[str, Any]) -> None:
    """A line by whoever holds the key of the site."""
    home = requests.home
    Ledger(home / "ledger.jsonl", SiteKey.load(home / "vault" / "key.pem"), home.name).append("access", facts)


def test_the_ledger_says_who_when_and_what(requests: Requests) -> None:
    there = timezone(timedelta(hours=8))
    requests.submit(RESEARCHER, APPLICATION, NOW)
    event = requests.approve("request-1", MANAGER, APPROVAL, REASONS, (NOW + DAY).astimezone(there))
    span = {
        "sources": ["cine", "ct"],
        "level": 3,
        "granularities": ["default", "informed"],
        "uses": ["research", "train"],
        "days": 90,
    }
    assert [dict(line.facts) for line in told(requests)] == [
        {
            "request": "request-1",
            "what": "submitted",
            "who": "researcher",
            "title": "researcher",
            "at": "2024-06-03T09:00:00+00:00",
            "study": APPLICATION.title,
            "scenario": APPLICATION.scenario,
            "logic": APPLICATION.logic,
            "effect": APPLICATION.effect,
            "members": ["member"],
            **span,
        },
        {
            "request": "request-1",
            "what": "approved",
            "who": "manager",
            "title": "data-manager",
            "at": "2024-06-04T09:00:00+00:00",
            "reasons": REASONS,
            "limits": ["access-control", "de-identification"],
            **span,
        },
    ]
    assert requests.events()[1] == event
    assert requests.events()[0].application == APPLICATION


def test_every_event_is_read_back(requests: Requests) -> None:
    made = (
        requests.submit(RESEARCHER, APPLICATION, NOW),
        requests.approve("request-1", MANAGER, APPROVAL, REASONS, NOW),
        requests.revoke("request-1", MANAGER, REASONS, NOW),
        requests.submit(RESEARCHER, APPLICATION, NOW),
        requests.reject("request-2", MANAGER, REASONS, NOW),
    )
    assert Requests(requests.home).events() == made
    with pytest.raises(ValidationError, match="frozen"):
        made[0].who = "b"


def test_without_a_ledger_there_are_no_requests(requests: Requests) -> None:
    assert (requests.events(), dict(requests.cases()), requests.projects("researcher", NOW)) == ((), {}, frozenset())
    assert list(requests.home.iterdir()) == []


def grants_nothing(requests: Requests, why: str | None = None) -> None:
    path = requests.home / "ledger.jsonl"
    for act in (
        lambda: requests.projects("researcher", NOW),
        requests.cases,
        lambda: requests.submit(RESEARCHER, APPLICATION, NOW),
    ):
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises((RequestError, LedgerError), match=why) as caught:
            act()
        assert str(requests.home) not in str(caught.value)
        assert before is None or path.read_bytes() == before


def test_a_changed_byte_anywhere_grants_nothing(requests: Requests) -> None:
    approved(requests)
    path = requests.home / "ledger.jsonl"
    raw = path.read_bytes()

    @settings(max_examples=60, deadline=None)
    @given(position=st.integers(0, len(raw) - 1), mask=st.integers(1, 255))
    def changed(position: int, mask: int) -> None:
        body = bytearray(raw)
        body[position] ^= mask
        path.write_bytes(body)
        with pytest.raises(LedgerError):
            requests.projects("researcher", NOW)

    changed()


@pytest.mark.parametrize("gone", ["the last line", "ledger.jsonl", "ledger.jsonl.head", "vault/key.pem"])
def test_what_is_missing_grants_nothing(requests: Requests, gone: str) -> None:
    """A revocation that is cut off shows by the signed head."""
    approved(requests)
    requests.revoke("request-1", MANAGER, REASONS, NOW)
    path = requests.home / "ledger.jsonl"
    if gone == "the last line":
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    else:
        (requests.home / gone).unlink()
    grants_nothing(requests)


WIDE_FACTS = WIDE.model_dump(mode="json")
IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "approved by the applicant": ({"who": "researcher"}, "nobody reviews"),
    "approved by a member": ({"who": "member"}, "nobody reviews"),
    "approved by a researcher": ({"title": "researcher"}, "reviewed by the title data-manager"),
    "approved without reasons": ({"reasons": None}, "does not hold what belongs to it"),
    "approved without an approval": (
        dict.fromkeys((*WIDE_FACTS, "days", "limits")),
        "does not hold what belongs to it",
    ),
    "approved with an application": ({"study": APPLICATION.title}, "lacks or misstates"),
    "approved beyond the term": ({"days": 91}, "the approved term is 91 days"),
    "approved beyond the range": ({"sources": ["all"]}, "goes beyond"),
    "approved without limits": ({"limits": []}, "lacks or misstates"),
    "another request": ({"request": "request-2"}, "no such request"),
    "before the request": ({"at": "2024-06-02T09:00:00Z"}, "older than the one before"),
    "a title of old": ({"title": "king"}, "lacks or misstates"),
    "a time of no zone": ({"at": "2024-06-03T09:00:00"}, "lacks or misstates"),
    "something beside": ({"x": 1}, "lacks or misstates"),
    "an event that only the clock makes": ({"what": "expired"}, "lacks or misstates"),
}


@pytest.mark.parametrize(("changes", "why"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_approval_that_could_not_be_made_counts_nothing(
    requests: Requests, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    """Also if the site's own key signed it."""
    approved(requests)
    other = Requests(tmp_path / "other")
    other.home.mkdir()
    other.submit(RESEARCHER, APPLICATION, NOW)
    facts = {**told(requests)[-1].facts, **changes}
    write(other, {name: fact for name, fact in facts.items() if fact is not None})
    grants_nothing(other, why)


def test_an_earlier_releases_request_is_not_approved_without_its_text(requests: Requests) -> None:
    approved(requests)
    facts = dict(told(requests)[0].facts) | {"hash": "0" * 64, "request": "request-2"}
    write(
        requests, {name: fact for name, fact in facts.items() if name not in ("study", "scenario", "logic", "effect")}
    )
    with pytest.raises(RequestError, match="Reject it, and have it submitted again"):
        requests.approve("request-2", MANAGER, APPROVAL, REASONS, NOW)
    requests.reject("request-2", MANAGER, REASONS, NOW)


def test_a_clock_before_the_last_event_grants_nothing(requests: Requests) -> None:
    approved(requests)
    with pytest.raises(RequestError, match="the clock stands before the last event"):
        requests.projects("researcher", NOW - timedelta(microseconds=1))
    with pytest.raises(RequestError, match="no time zone"):
        requests.projects("researcher", datetime(2024, 6, 3, 9))


def test_a_site_in_no_folder_takes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="could not be used"):
        Requests(tmp_path / "none").submit(RESEARCHER, APPLICATION, NOW)


def test_a_write_that_fails_records_and_grants_nothing(requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    requests.submit(RESEARCHER, APPLICATION, NOW)

    def fail(*arguments: object, **words: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fedprivseg.governance.ledger.ledger._write_line", fail)
        with pytest.raises(LedgerError, match="No space left"):
            requests.approve("request-1", MANAGER, APPROVAL, REASONS, NOW)
    assert requests.projects("researcher", NOW) == frozenset()
    requests.approve("request-1", MANAGER, APPROVAL, REASONS, NOW)
    assert requests.projects("researcher", NOW)


def test_a_line_that_a_kill_cut_off_is_set_aside_by_the_next_event(requests: Requests) -> None:
    approved(requests)
    path = requests.home / "ledger.jsonl"
    with path.open("ab") as file:
        file.write(path.read_bytes()[:40])
    with pytest.raises(LedgerError, match="torn"):
        requests.projects("researcher", NOW)
    requests.revoke("request-1", MANAGER, REASONS, NOW)
    assert state(requests) is State.REVOKED


def test_several_writers_wait_for_each_other(requests: Requests) -> None:
    """Each opens the ledger for itself, as processes do."""

    def submit_some(who: str) -> list[str]:
        applicant = replace(RESEARCHER, id=who)
        return [Requests(requests.home).submit(applicant, APPLICATION, NOW).request for _ in range(6)]

    with ThreadPoolExecutor(3) as writers:
        made = [name for found in writers.map(submit_some, ("a", "b", "c")) for name in found]
    assert sorted(made) == sorted(requests.cases()) == sorted(f"request-{number}" for number in range(1, 19))


# ---------------------------------------------------------------------------------------------- any course of events

people = st.sampled_from([RESEARCHER, MEMBER, DOCTOR, NURSE, MANAGER, OTHER_MANAGER])
steps = st.lists(
    st.tuples(
        st.sampled_from(["submit", "approve", "reject", "revoke"]),
        people,
        st.integers(1, 3),
        st.integers(1, 120),
        st.integers(0, 40),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(steps=steps)
def test_whatever_is_tried_only_reviewed_requests_grant(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    """Written out again: what is in force was asked for by one and approved by another, a data manager, not long ago."""
    requests = Requests(tmp_path_factory.mktemp("any"))
    now = NOW
    for what, who, number, days, later in steps:
        now += later * DAY
        name = f"request-{number}"
        try:
            if what == "submit":
                requests.submit(who, APPLICATION, now)
            elif what == "approve":
                requests.approve(name, who, APPROVAL.model_copy(update={"days": days}), REASONS, now)
            elif what == "reject":
                requests.reject(name, who, REASONS, now)
            else:
                requests.revoke(name, who, REASONS, now)
        except RequestError:
            continue
    events = requests.events()
    for person in ("researcher", "member", "doctor", "nurse", "manager", "other-manager"):
        for project in requests.projects(person, now):
            asked, granted = [event for event in events if event.request == project.id]  # and nothing after
            assert (asked.what, granted.what) == (State.SUBMITTED, State.APPROVED)
            assert granted.approval is not None
            assert granted.title is Title.DATA_MANAGER
            assert granted.who not in {asked.who, "member"}
            assert person in {asked.who, "member"}
            assert granted.approval.days <= 90
            assert granted.time <= now < granted.time + granted.approval.days * DAY == project.until
