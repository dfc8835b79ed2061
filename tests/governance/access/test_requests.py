"""Requests for access: who may ask, review and revoke, what an approval grants and for how long, and a file that is trusted
only as a whole."""

from __future__ import annotations

import errno
import json
import os
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

from fedprivseg.core.errors import RequestError
from fedprivseg.crypto.identity import SiteKey, canonical
from fedprivseg.governance.access import requests as module
from fedprivseg.governance.access.authorizer import CedarAuthorizer
from fedprivseg.governance.access.requests import ZEROS, Application, Approval, Event, Limit, Range, RequestFile, State
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
def file(tmp_path: Path) -> RequestFile:
    return RequestFile(tmp_path / "requests.jsonl")


def approved(file: RequestFile, approval: Approval = APPROVAL) -> Event:
    file.submit(RESEARCHER, APPLICATION, NOW)
    return file.approve("request-1", MANAGER, approval, REASONS, NOW)


def state(file: RequestFile, now: datetime = NOW, name: str = "request-1") -> State:
    return file.cases()[name].state(now)


# ---------------------------------------------------------------------------------------------- the flow


def test_a_request_is_asked_for_approved_and_lapses(file: RequestFile) -> None:
    asked = file.submit(RESEARCHER, APPLICATION, NOW)
    assert (asked.request, asked.index, asked.previous) == ("request-1", 0, ZEROS)
    assert state(file) is State.SUBMITTED
    assert file.projects("researcher", NOW) == frozenset()
    file.approve("request-1", MANAGER, APPROVAL, REASONS, NOW + DAY)
    assert state(file, NOW + DAY) is State.APPROVED
    end = NOW + DAY + 90 * DAY
    assert state(file, end - timedelta(seconds=1)) is State.APPROVED
    assert state(file, end) is State.LAPSED
    assert file.projects("researcher", end - timedelta(seconds=1))
    assert file.projects("researcher", end) == frozenset()


def test_what_is_approved_is_a_project_of_just_that_range_and_term(file: RequestFile) -> None:
    approved(file, Approval(range=NARROW, days=30, limits=LEAST))
    assert file.projects("researcher", NOW) == {
        Project(
            "request-1",
            frozenset({"cine"}),
            2,
            frozenset({Granularity.DEFAULT}),
            frozenset({Action.TRAIN}),
            NOW + 30 * DAY,
        )
    }


def test_only_the_applicant_and_the_group_get_the_project(file: RequestFile) -> None:
    approved(file)
    assert file.projects("member", NOW) == file.projects("researcher", NOW) != frozenset()
    for nobody in ("stranger", "manager", "", "Researcher"):
        assert file.projects(nobody, NOW) == frozenset()


def test_a_rejected_request_grants_nothing_for_good(file: RequestFile) -> None:
    file.submit(RESEARCHER, APPLICATION, NOW)
    file.reject("request-1", MANAGER, "The data is not needed for what the request describes.", NOW)
    assert state(file) is State.REJECTED
    assert file.projects("researcher", NOW) == frozenset()
    with pytest.raises(RequestError, match="request-1 is rejected, and only one that is submitted can be approved"):
        file.approve("request-1", MANAGER, APPROVAL, REASONS, NOW)


@pytest.mark.parametrize("by", [MANAGER, OTHER_MANAGER, RESEARCHER], ids=lambda by: by.id)
def test_a_revoked_approval_grants_nothing_for_good(file: RequestFile, by: Staff) -> None:
    approved(file)
    file.revoke("request-1", by, "The study ended before its term.", NOW + DAY)
    assert state(file, NOW + DAY) is State.REVOKED
    assert file.projects("researcher", NOW + DAY) == frozenset()
    assert state(file, NOW + 400 * DAY) is State.REVOKED
    with pytest.raises(RequestError, match="request-1 is revoked"):
        file.approve("request-1", OTHER_MANAGER, APPROVAL, REASONS, NOW + DAY)


def test_several_requests_stand_beside_each_other(file: RequestFile) -> None:
    approved(file)
    file.submit(RESEARCHER, APPLICATION.model_copy(update={"days": 10}), NOW)
    file.submit(DOCTOR, APPLICATION, NOW)
    file.approve("request-2", MANAGER, Approval(range=NARROW, days=10, limits=LEAST), REASONS, NOW)
    assert {project.id for project in file.projects("researcher", NOW)} == {"request-1", "request-2"}
    assert {project.id for project in file.projects("researcher", NOW + 10 * DAY)} == {"request-1"}
    assert state(file, name="request-3") is State.SUBMITTED
    assert file.projects("doctor", NOW) == frozenset()


def test_what_is_granted_is_what_the_policies_permit(file: RequestFile) -> None:
    """From the request to the decision: within the range yes, one thing beyond it no, after the revocation no."""
    approved(file, Approval(range=NARROW, days=30, limits=LEAST))
    record = Record("r", "p", "cardiology", "cine", 2, Granularity.DEFAULT, 10, deidentified=True)

    def allowed(action: Action, record: Record, now: datetime) -> bool:
        who = replace(RESEARCHER, projects=file.projects("researcher", now))
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
    file.revoke("request-1", MANAGER, "The study ended before its term.", NOW + DAY)
    assert not allowed(Action.TRAIN, record, NOW + DAY)


# ---------------------------------------------------------------------------------------------- who may what, and when

REFUSED: dict[str, tuple[Callable[[RequestFile], object], str]] = {
    "a nurse asks": (lambda file: file.submit(NURSE, APPLICATION, NOW), "; given nurse"),
    "a researcher reviews": (
        lambda file: file.approve("request-1", STRANGER, APPROVAL, REASONS, NOW),
        "reviewed by the title data-manager; given researcher",
    ),
    "a doctor rejects": (lambda file: file.reject("request-1", DOCTOR, REASONS, NOW), "; given attending"),
    "the applicant approves": (
        lambda file: file.approve("request-1", replace(MANAGER, id="researcher"), APPROVAL, REASONS, NOW),
        "nobody reviews a request of their own",
    ),
    "a member of the group approves": (
        lambda file: file.approve("request-1", replace(MANAGER, id="member"), APPROVAL, REASONS, NOW),
        "nobody reviews a request of their own",
    ),
    "the applicant rejects": (
        lambda file: file.reject("request-1", replace(MANAGER, id="researcher"), REASONS, NOW),
        "nobody reviews a request of their own",
    ),
    "no such request": (
        lambda file: file.approve("request-9", MANAGER, APPROVAL, REASONS, NOW),
        "there are: request-1",
    ),
    "no reasons": (lambda file: file.approve("request-1", MANAGER, APPROVAL, "", NOW), "reasons"),
    "blank reasons": (lambda file: file.reject("request-1", MANAGER, " " * 20, NOW), "reasons"),
    "a longer term than asked for": (
        lambda file: file.approve("request-1", MANAGER, APPROVAL.model_copy(update={"days": 91}), REASONS, NOW),
        "the approved term is 91 days; asked for were 90",
    ),
    "revoked before it is approved": (
        lambda file: file.revoke("request-1", MANAGER, REASONS, NOW),
        "only one that is approved",
    ),
    "before the last event": (
        lambda file: file.approve("request-1", MANAGER, APPROVAL, REASONS, NOW - timedelta(seconds=1)),
        "the clock stands before the last event",
    ),
    "at no moment": (lambda file: file.submit(RESEARCHER, APPLICATION, datetime(2024, 6, 4)), "no time zone"),
    "a title that is no title": (
        lambda file: file.submit(replace(RESEARCHER, title="king"), APPLICATION, NOW),  # type: ignore[arg-type]
        "title",
    ),
}


@pytest.mark.parametrize(("act", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_allowed_is_not_recorded(file: RequestFile, act: Callable[[RequestFile], object], why: str) -> None:
    file.submit(RESEARCHER, APPLICATION, NOW)
    before = file.path.read_bytes()
    with pytest.raises(RequestError, match=why):
        act(file)
    assert file.path.read_bytes() == before
    file.approve("request-1", MANAGER, APPROVAL, REASONS, NOW)  # what was refused was refused for its own fault


@pytest.mark.parametrize("by", [STRANGER, MEMBER, DOCTOR], ids=lambda by: by.id)
def test_others_do_not_revoke(file: RequestFile, by: Staff) -> None:
    approved(file)
    with pytest.raises(RequestError, match="revoked by the applicant or by the title data-manager"):
        file.revoke("request-1", by, REASONS, NOW)
    assert state(file) is State.APPROVED


def test_a_lapsed_approval_is_not_revoked_or_approved_again(file: RequestFile) -> None:
    approved(file)
    for act in (
        lambda: file.revoke("request-1", MANAGER, REASONS, NOW + 90 * DAY),
        lambda: file.approve("request-1", MANAGER, APPROVAL, REASONS, NOW + 90 * DAY),
    ):
        with pytest.raises(RequestError, match="request-1 is lapsed"):
            act()


WIDER = {
    "another source": {"sources": ("cine", "mri")},
    "a higher level": {"level": 3},
    "more detail": {"granularities": (Granularity.DEFAULT, Granularity.AUTHORISED)},
    "another use": {"uses": (Action.TRAIN, Action.RELEASE)},
}


@pytest.mark.parametrize("change", WIDER.values(), ids=WIDER)
def test_nothing_is_approved_beyond_what_was_asked_for(file: RequestFile, change: dict[str, Any]) -> None:
    file.submit(RESEARCHER, APPLICATION.model_copy(update={"range": NARROW}), NOW)
    beyond = APPROVAL.model_copy(update={"range": NARROW.model_copy(update=change)})
    with pytest.raises(RequestError, match="goes beyond the one that was asked for"):
        file.approve("request-1", MANAGER, beyond, REASONS, NOW)
    file.approve("request-1", MANAGER, APPROVAL.model_copy(update={"range": NARROW}), REASONS, NOW)


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


def test_events_say_who_when_and_what(file: RequestFile) -> None:
    there = timezone(timedelta(hours=8))
    file.submit(RESEARCHER, APPLICATION, NOW)
    event = file.approve("request-1", MANAGER, APPROVAL, REASONS, (NOW + DAY).astimezone(there))
    assert dict(event.facts) == {
        "request": "request-1",
        "what": "approved",
        "who": "manager",
        "title": "data-manager",
        "at": "2024-06-04T09:00:00+00:00",
        "hash": event.hash,
        "reasons": REASONS,
        "sources": ["cine", "ct"],
        "level": 3,
        "granularities": ["default", "informed"],
        "uses": ["research", "train"],
        "days": 90,
        "limits": ["access-control", "de-identification"],
    }
    assert file.events() == (file.events()[0], event)
    assert event.previous == file.events()[0].hash


def test_a_ledger_takes_every_event(file: RequestFile, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", SiteKey.create(tmp_path / "key.pem"), "centre1")
    made = [
        file.submit(RESEARCHER, APPLICATION, NOW),
        file.approve("request-1", MANAGER, APPROVAL, REASONS, NOW),
        file.revoke("request-1", MANAGER, REASONS, NOW),
        file.submit(RESEARCHER, APPLICATION, NOW),
        file.reject("request-2", MANAGER, REASONS, NOW),
    ]
    for event in made:
        ledger.append("open", dict(event.facts))
    assert [line.facts["hash"] for line in read(ledger.path)[1:]] == [event.hash for event in made]


def test_an_event_does_not_change() -> None:
    event = Event(
        index=0,
        time=NOW,
        who="a",
        title=Title.RESEARCHER,
        what=State.SUBMITTED,
        request="request-1",
        previous=ZEROS,
        application=APPLICATION,
    )
    with pytest.raises(ValidationError, match="frozen"):
        event.who = "b"
    with pytest.raises(TypeError):
        event.facts["who"] = "b"  # type: ignore[index]


def test_there_is_no_event_of_lapsing() -> None:
    with pytest.raises(ValidationError):
        Event(
            index=0,
            time=NOW,
            who="a",
            title=Title.RESEARCHER,
            what=State.LAPSED,  # type: ignore[arg-type]
            request="request-1",
            previous=ZEROS,
        )


# ---------------------------------------------------------------------------------------------- the file


def test_without_a_file_there_are_no_requests(file: RequestFile) -> None:
    assert (file.events(), dict(file.cases()), file.projects("researcher", NOW)) == ((), {}, frozenset())
    assert not file.path.exists()


def test_the_file_is_read_back_to_the_same_state(file: RequestFile) -> None:
    approved(file)
    again = RequestFile(file.path)
    assert again.events() == file.events()
    assert again.cases() == file.cases()
    assert again.projects("member", NOW) == file.projects("member", NOW)
    assert file.path.stat().st_mode & 0o777 == 0o600


def full(file: RequestFile) -> bytes:
    """A file of five lines in which request-1 was approved and then revoked and request-2 stands approved."""
    approved(file)
    file.revoke("request-1", MANAGER, REASONS, NOW)
    file.submit(STRANGER, APPLICATION, NOW)
    file.approve("request-2", MANAGER, APPROVAL, REASONS, NOW)
    assert file.projects("stranger", NOW)
    return file.path.read_bytes()


def grants_nothing(file: RequestFile, why: str = "") -> None:
    for act in (
        lambda: file.projects("researcher", NOW),
        lambda: file.projects("stranger", NOW),
        file.cases,
        file.events,
        lambda: file.submit(RESEARCHER, APPLICATION, NOW),
    ):
        before = file.path.read_bytes() if file.path.is_file() else None
        with pytest.raises(RequestError, match=why) as caught:
            act()
        assert str(file.path.parent) not in str(caught.value)
        assert before is None or file.path.read_bytes() == before


def lines(raw: bytes) -> list[bytes]:
    return raw.splitlines(keepends=True)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "no newline at the end": lambda raw: raw[:-1],
    "half a line at the end": lambda raw: raw + raw[:40],
    "the first line gone": lambda raw: b"".join(lines(raw)[1:]),
    "the revocation gone": lambda raw: b"".join(lines(raw)[:2] + lines(raw)[3:]),
    "a line twice": lambda raw: b"".join([*lines(raw), lines(raw)[-1]]),
    "two lines exchanged": lambda raw: b"".join([lines(raw)[0], lines(raw)[2], lines(raw)[1], *lines(raw)[3:]]),
    "an empty line": lambda raw: raw + b"\n",
    "a longer term": lambda raw: raw.replace(b'"days":90', b'"days":900'),
    "another applicant": lambda raw: raw.replace(b'"who":"stranger"', b'"who":"researcher"'),
    "a space": lambda raw: raw.replace(b'"index":4', b'"index": 4'),
    "a field twice": lambda raw: raw.replace(b'"index":4', b'"index":4,"index":4'),
    "a field beside": lambda raw: raw.replace(b'"index":4', b'"x":1,"index":4'),
    "no JSON": lambda raw: raw.replace(b'{"application":null', b"{application:null", 1),
    "a deep nest": lambda raw: raw + b"[" * 100_000 + b"\n",
    "noise": lambda raw: b"\xff\x00" + raw,
    "carriage returns": lambda raw: raw.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_file_that_was_changed_grants_nothing(file: RequestFile, damage: Callable[[bytes], bytes]) -> None:
    raw = full(file)
    assert damage(raw) != raw
    file.path.write_bytes(damage(raw))
    grants_nothing(file, "Nothing is granted from it")


def test_a_changed_byte_anywhere_grants_nothing(file: RequestFile) -> None:
    """The last line has no successor to hold its hash, so a change there that still is an event shows only by the head."""
    raw = full(file)
    head = file.events()[-1].hash
    last = len(raw) - len(lines(raw)[-1])

    @settings(max_examples=80, deadline=None)
    @given(position=st.integers(0, len(raw) - 1), mask=st.integers(1, 255))
    def changed(position: int, mask: int) -> None:
        body = bytearray(raw)
        body[position] ^= mask
        file.path.write_bytes(body)
        if position < last:
            with pytest.raises(RequestError):
                file.projects("stranger", NOW)
        with pytest.raises(RequestError):
            file.projects("stranger", NOW, head=head)

    changed()


def forged(file: RequestFile, **changes: Any) -> None:
    """Replace the last line by one that is well-formed and chained, with other content."""
    raw = lines(file.path.read_bytes())
    fields = json.loads(raw[-1]) | changes
    file.path.write_bytes(b"".join(raw[:-1]) + canonical(fields) + b"\n")


FORGERIES = {
    "approved by the applicant": ({"who": "researcher"}, "nobody reviews"),
    "approved by a member": ({"who": "member"}, "nobody reviews"),
    "approved by a researcher": ({"title": "researcher"}, "reviewed by the title data-manager"),
    "approved without reasons": ({"reasons": None}, "does not hold what belongs to it"),
    "approved without an approval": ({"approval": None}, "does not hold what belongs to it"),
    "approved with an application": ({"application": APPLICATION.model_dump(mode="json")}, "does not hold"),
    "approved beyond the term": (
        {"approval": APPROVAL.model_dump(mode="json") | {"days": 91}},
        "the approved term is 91 days",
    ),
    "approved beyond the range": (
        {"approval": APPROVAL.model_dump(mode="json") | {"range": WIDE.model_dump(mode="json") | {"sources": ["all"]}}},
        "goes beyond",
    ),
    "approved without limits": ({"approval": APPROVAL.model_dump(mode="json") | {"limits": []}}, "holds no event"),
    "another request": ({"request": "request-2"}, "no such request"),
    "before the request": ({"time": "2024-06-02T09:00:00Z"}, "older than the one before"),
    "a title of old": ({"title": "king"}, "holds no event"),
    "a time of no zone": ({"time": "2024-06-03T09:00:00"}, "holds no event"),
    "another place in the row": ({"index": 2}, "does not follow"),
    "no place in the chain": ({"previous": ZEROS}, "does not follow"),
}


@pytest.mark.parametrize(("changes", "why"), FORGERIES.values(), ids=FORGERIES)
def test_an_approval_that_could_not_be_made_counts_nothing(
    file: RequestFile, changes: dict[str, Any], why: str
) -> None:
    approved(file)
    forged(file)
    assert file.projects("researcher", NOW)  # the untouched line is fine: what follows is refused for the change
    forged(file, **changes)
    grants_nothing(file, why)


def test_a_revocation_cut_off_shows_to_who_kept_the_head(file: RequestFile) -> None:
    """A chain cannot show that its end is missing: the hash in the site's ledger does."""
    approved(file)
    head = file.revoke("request-1", MANAGER, REASONS, NOW).hash
    assert file.projects("researcher", NOW, head=head) == frozenset()
    file.path.write_bytes(b"".join(lines(file.path.read_bytes())[:-1]))
    assert file.projects("researcher", NOW)
    for act in (
        lambda: file.projects("researcher", NOW, head=head),
        lambda: file.cases(head=head),
        lambda: file.events(head=head),
    ):
        with pytest.raises(RequestError, match="does not end with the event"):
            act()
    file.path.unlink()
    with pytest.raises(RequestError, match="does not end with the event"):
        file.projects("researcher", NOW, head=head)


def test_a_clock_before_the_last_event_grants_nothing(file: RequestFile) -> None:
    approved(file)
    with pytest.raises(RequestError, match="the clock stands before the last event"):
        file.projects("researcher", NOW - timedelta(microseconds=1))
    with pytest.raises(RequestError, match="no time zone"):
        file.projects("researcher", datetime(2024, 6, 3, 9))


def test_a_file_that_is_a_folder_grants_nothing(file: RequestFile) -> None:
    file.path.mkdir()
    grants_nothing(file, r"could not be (read|opened)")


def test_a_file_in_no_folder_takes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="could not be opened"):
        RequestFile(tmp_path / "none" / "requests.jsonl").submit(RESEARCHER, APPLICATION, NOW)


def test_a_file_beyond_its_size_grants_nothing(file: RequestFile, monkeypatch: pytest.MonkeyPatch) -> None:
    full(file)
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    grants_nothing(file, "more than 100 bytes")


@pytest.mark.parametrize("way", ["fsync", "write", "short write"])
def test_a_write_that_fails_leaves_the_file_as_it_was(
    file: RequestFile, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    file.submit(RESEARCHER, APPLICATION, NOW)
    before = file.path.read_bytes()
    write = os.write

    def fail(*arguments: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if way == "short write":
            patch.setattr(os, "write", lambda descriptor, body: write(descriptor, body[:10]))
        else:
            patch.setattr(os, way, fail)
        with pytest.raises(RequestError, match="could not be written"):
            file.approve("request-1", MANAGER, APPROVAL, REASONS, NOW)
    assert file.path.read_bytes() == before
    assert file.projects("researcher", NOW) == frozenset()
    file.approve("request-1", MANAGER, APPROVAL, REASONS, NOW)
    assert file.projects("researcher", NOW)


def test_a_line_is_on_the_disk_before_it_counts(file: RequestFile, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        if file.path.stat().st_ino == os.fstat(descriptor).st_ino:
            seen.append(file.path.read_bytes())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    event = file.submit(RESEARCHER, APPLICATION, NOW)
    assert seen == [event.raw + b"\n"]


def test_several_writers_wait_for_each_other(file: RequestFile) -> None:
    """Each opens the file for itself, as processes do, and the lock is that of the opened file."""

    def submit_some(who: str) -> list[str]:
        applicant = replace(RESEARCHER, id=who)
        return [RequestFile(file.path).submit(applicant, APPLICATION, NOW).request for _ in range(8)]

    with ThreadPoolExecutor(3) as writers:
        made = [name for found in writers.map(submit_some, ("a", "b", "c")) for name in found]
    assert sorted(made) == sorted(file.cases()) == sorted(f"request-{number}" for number in range(1, 25))


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


@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_whatever_is_tried_only_reviewed_requests_grant(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    """Written out anew: what is in force was asked for by one and approved by another, a data manager, not long ago."""
    file = RequestFile(tmp_path_factory.mktemp("any") / "requests.jsonl")
    now = NOW
    for what, who, number, days, later in steps:
        now += later * DAY
        name = f"request-{number}"
        try:
            if what == "submit":
                file.submit(who, APPLICATION, now)
            elif what == "approve":
                file.approve(name, who, APPROVAL.model_copy(update={"days": days}), REASONS, now)
            elif what == "reject":
                file.reject(name, who, REASONS, now)
            else:
                file.revoke(name, who, REASONS, now)
        except RequestError:
            continue
    events = file.events()
    for person in ("researcher", "member", "doctor", "nurse", "manager", "other-manager"):
        for project in file.projects(person, now):
            asked, granted = [event for event in events if event.request == project.id]  # and nothing after
            assert (asked.what, granted.what) == (State.SUBMITTED, State.APPROVED)
            assert granted.approval is not None
            assert granted.title is Title.DATA_MANAGER
            assert granted.who not in {asked.who, "member"}
            assert person in {asked.who, "member"}
            assert granted.approval.days <= 90
            assert granted.time <= now < granted.time + granted.approval.days * DAY == project.until
