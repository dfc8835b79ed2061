"""Requests for access and their review (T/SCGS 313008-2024 clauses 5.6.2-a to c): who may use which data, for what, how long.

A request says from which collections, in which scenario, within which range, by which logic and with which effect on personal
information data is to be used, and for how long. Somebody else, a data manager, approves it, within the range asked for or a
narrower one, for a term and under limits, or rejects it; either way with reasons. An approval expires at its term and can be
revoked. What is approved and in force becomes a `Project` for the policies of `authorizer`.

All of it stands in the site's ledger and nowhere else: one signed line of event ``access`` for each step. A ledger that does
not hold, and a line that cannot follow from those before it, grants nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, final

from pydantic import AwareDatetime, Field, ValidationError

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import unusable
from fedprivseg.core.lock import locked
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.access.application import Application, Approval, Id, Range, Stated, Text
from fedprivseg.governance.access.roles import MOST_CHARACTERS, Action, Project, Staff, Title
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.ledger import open_ledger, read, verify
from fedprivseg.governance.ledger.line import Line

APPLICANTS = (Title.CHIEF, Title.ATTENDING, Title.RESIDENT, Title.RESEARCHER, Title.DATA_MANAGER)
REVIEWER = Title.DATA_MANAGER

_UNTOLD = "Not told: the ledger of an earlier release names the range and the term alone."
"""Stands for the texts of a request that an earlier release recorded; they were in a file beside the ledger."""


class State(StrEnum):
    """Where a request stands. ``expired`` follows from the clock; the others are what the last event says."""

    SUBMITTED = "submitted"
    APPROVED = "approved"
    REJECTED = "rejected"
    REVOKED = "revoked"
    EXPIRED = "expired"


class Event(Stated):
    """One step of a request: who, when, what.

    Attributes:
        line: index of the ledger's line that tells it.
        time: by the clock of whoever recorded it.
        reasons: of a review or a revocation.
        application: of what was submitted.
        approval: of what was approved.
    """

    line: int = Field(ge=0)
    time: AwareDatetime
    who: Id
    title: Title
    what: Literal[State.SUBMITTED, State.APPROVED, State.REJECTED, State.REVOKED]
    request: Id
    reasons: Text | None = None
    application: Application | None = None
    approval: Approval | None = None


@dataclass(frozen=True)
class Case:
    """A request as its events leave it.

    Attributes:
        last: what the last event says.
        approval: None unless it was approved.
        until: the end of the approval's term; None unless it was approved.
    """

    id: str
    applicant: str
    application: Application
    last: State
    approval: Approval | None = None
    until: datetime | None = None

    def state(self, now: datetime) -> State:
        """Where it stands at `now`. At the moment of its term an approval has expired."""
        if self.last is State.APPROVED and (self.until is None or now >= self.until):
            return State.EXPIRED
        return self.last

    @property
    def group(self) -> frozenset[str]:
        """Ids of the applicant and the members of the project group."""
        return frozenset({self.applicant, *self.application.members})


@final
@dataclass(frozen=True)
class Requests:
    """The requests of one site. Every call reads the ledger again; writers wait for each other.

    Every method raises RequestError if role, state or clock do not allow what is asked, LedgerError if the ledger does not
    hold; then nothing is recorded or granted.

    Attributes:
        home: the folder of the site. Its key and ledger are made with the first event.
    """

    home: Path

    def submit(self, applicant: Staff, application: Application, now: datetime) -> Event:
        """Ask for access. now: the caller's clock, never before the last event."""
        return self._append(applicant, State.SUBMITTED, None, now, application=application)

    def approve(self, request: str, reviewer: Staff, approval: Approval, reasons: str, now: datetime) -> Event:
        """Approve a submitted request, within what it asks for."""
        return self._append(reviewer, State.APPROVED, request, now, approval=approval, reasons=reasons)

    def reject(self, request: str, reviewer: Staff, reasons: str, now: datetime) -> Event:
        """Reject a submitted request."""
        return self._append(reviewer, State.REJECTED, request, now, reasons=reasons)

    def revoke(self, request: str, by: Staff, reasons: str, now: datetime) -> Event:
        """End an approval before its term: by a data manager, or by the applicant."""
        return self._append(by, State.REVOKED, request, now, reasons=reasons)

    def events(self) -> tuple[Event, ...]:
        """All events; none if there is no ledger."""
        folder = SiteFolder(self.home)
        if not any(self.home.glob(f"{folder.ledger.name}*")):
            return ()
        verify(folder.ledger, public_hex=SiteKey.load(folder.key).public_hex)
        return events_of(read(folder.ledger))

    def cases(self) -> Mapping[str, Case]:
        """All requests by id, as the events leave them."""
        return MappingProxyType(_replay(self.events()))

    def projects(self, member: str, now: datetime) -> frozenset[Project]:
        """What is approved and in force at `now` for the member of staff with this id: nothing beyond the approved ranges
        (5.6.2-c)."""
        events = self.events()
        _check_time(now, events)
        return frozenset(
            _project(case.id, case.approval.range, case.until)
            for case in _replay(events).values()
            if member in case.group and case.approval and case.until and case.state(now) is State.APPROVED
        )

    def _append(self, who: Staff, what: State, request: str | None, now: datetime, **fields: Any) -> Event:
        try:
            with locked(self.home):
                folder, site = SiteFolder(self.home), self.home.resolve().name
                if folder.ledger.exists() and folder.key.exists():
                    open_ledger(self.home, site)  # sets aside a line that a kill cut off
                events = self.events()
                cases = _replay(events)
                _check_time(now, events)
                name = f"request-{len(cases) + 1}" if request is None else request
                said = {"line": 0, "time": now.astimezone(UTC), "who": who.id, "title": who.title, "what": what}
                event = _checked(said | {"request": name} | fields)
                objection = _objection(cases, event)
                if objection is not None:
                    raise RequestError(f"nothing was recorded: {objection}")
                if what is State.APPROVED and cases[name].application.logic == _UNTOLD:
                    raise RequestError(
                        f"nothing was recorded: {name} was submitted under an earlier release, whose ledger does not tell what "
                        "it states. Reject it, and have it submitted again."
                    )
                line = open_ledger(self.home, site).append("access", _facts(event))
        except OSError as fault:
            raise RequestError(unusable("the site's folder", "used", fault)) from None
        return event.model_copy(update={"line": line.index})


def is_request(line: Line) -> bool:
    """Whether a ledger's line tells an event of a request."""
    return line.event == "access" and line.facts.get("what") in tuple(State)


def events_of(lines: Iterable[Line]) -> tuple[Event, ...]:
    """The events that the lines of a site's ledger tell. Raises RequestError if one of them cannot follow from those before."""
    events: list[Event] = []
    for line in lines:
        if is_request(line):
            try:
                events.append(_event(line))
            except (ValidationError, TypeError):
                raise _impossible(line.index, "it lacks or misstates something") from None
    _replay(events)
    return tuple(events)


def _facts(event: Event) -> dict[str, Fact]:
    """What the ledger's line says of `event`; `_event` reads it back."""
    facts: dict[str, Fact] = {
        "request": event.request,
        "what": event.what.value,
        "who": event.who,
        "title": event.title.value,
        "at": event.time.isoformat(),
    }
    if event.reasons:
        facts["reasons"] = event.reasons
    stated = event.approval or event.application
    if stated is not None:
        facts |= stated.range.model_dump(mode="json") | stated.model_dump(mode="json", exclude={"range", "title"})
    if event.application is not None:
        facts["study"] = event.application.title
    return facts


def _event(line: Line) -> Event:
    """The event that `line` tells. Raises ValidationError, TypeError if it tells none."""
    facts = dict(line.facts)
    if facts.pop("hash", None) and facts.get("what") == State.SUBMITTED:
        facts |= dict.fromkeys(("study", "scenario", "logic", "effect"), _UNTOLD)
    said: dict[str, Any] = {"line": line.index, "time": facts.pop("at", None)}
    said |= {name: facts.pop(name) for name in ("request", "what", "who", "title", "reasons") if name in facts}
    if facts:
        span = {name: facts.pop(name) for name in Range.model_fields if name in facts}
        title = {"title": facts.pop("study")} if "study" in facts else {}
        said["application" if title else "approval"] = {**facts, **title, "range": span}
    return Event.model_validate_json(json.dumps(said))


def _checked(said: dict[str, Any]) -> Event:
    try:
        return Event.model_validate(said)
    except ValidationError as fault:
        places = sorted({".".join(map(str, each["loc"])) for each in fault.errors()})
        raise RequestError(
            f"nothing was recorded: {', '.join(places)} cannot be taken as given. Reasons are 10 to 2000 "
            f"characters, ids 1 to {MOST_CHARACTERS}."
        ) from None


def _objection(cases: Mapping[str, Case], event: Event) -> str | None:
    """Why `event` cannot come after those that led to `cases`; None if it can. The one place that says which roles and
    transitions there are: what is added and what is read back both pass it."""
    parts = (event.application is not None, event.approval is not None, event.reasons is not None)
    expected = _PARTS[event.what]
    if parts != expected:
        return f"an event '{event.what}' does not hold what belongs to it; make it with the methods of `Requests`."
    if event.what is State.SUBMITTED:
        if event.title not in APPLICANTS:
            return f"access is asked for by titles {', '.join(APPLICANTS)}; given {event.title}."
        if event.request != f"request-{len(cases) + 1}":
            return f"the next request is request-{len(cases) + 1}, not another."
        return None
    case = cases.get(event.request)
    if case is None:
        return f"there is no such request; there are: {', '.join(cases) or 'none'}."
    state = case.state(event.time)
    needed = State.APPROVED if event.what is State.REVOKED else State.SUBMITTED
    if state is not needed:
        return f"{case.id} is {state}, and only one that is {needed} can be {event.what}. Submit a new request."
    if event.what is State.REVOKED:
        if event.who == case.applicant or event.title is REVIEWER:
            return None
        return f"an approval is revoked by the applicant or by the title {REVIEWER}; given another {event.title}."
    if event.title is not REVIEWER:
        return f"requests are reviewed by the title {REVIEWER}; given {event.title}."
    if event.who in case.group:
        return "nobody reviews a request of their own or of their project group; ask another data manager."
    if event.approval is not None and not event.approval.range.within(case.application.range):
        return "the approved range goes beyond the one that was asked for; approve that or a narrower one."
    if event.approval is not None and event.approval.days > case.application.days:
        return f"the approved term is {event.approval.days} days; asked for were {case.application.days}, the most allowed."
    return None


_PARTS: Mapping[State, tuple[bool, bool, bool]] = MappingProxyType(
    {
        State.SUBMITTED: (True, False, False),
        State.APPROVED: (False, True, True),
        State.REJECTED: (False, False, True),
        State.REVOKED: (False, False, True),
    }
)
"""Whether an event holds an application, an approval, reasons."""


def _replay(events: Iterable[Event]) -> dict[str, Case]:
    """The requests after `events`. Raises RequestError if one of them was not possible after those before."""
    cases: dict[str, Case] = {}
    last: datetime | None = None
    for event in events:
        objection = "it is older than the one before" if last and event.time < last else _objection(cases, event)
        if objection is not None:
            raise _impossible(event.line, objection)
        last = event.time
        if event.application is not None:
            cases[event.request] = Case(event.request, event.who, event.application, State.SUBMITTED)
        else:
            case = replace(cases[event.request], last=State(event.what))
            if event.approval is not None:
                until = event.time + timedelta(days=event.approval.days)
                case = replace(case, approval=event.approval, until=until)
            cases[event.request] = case
    return cases


def _impossible(line: int, why: str) -> RequestError:
    return RequestError(
        f"line {line} of the ledger tells an event of a request that cannot be: {why.rstrip('.')}. Nothing is granted from "
        "it; keep the ledger as it is, as evidence, and find out who wrote the line."
    )


def _project(name: str, granted: Range, until: datetime) -> Project:
    uses = frozenset(Action(use) for use in granted.uses)
    return Project(name, frozenset(granted.sources), granted.level, frozenset(granted.granularities), uses, until)


def _check_time(now: datetime, events: tuple[Event, ...]) -> None:
    if now.utcoffset() is None:
        raise RequestError("the time has no time zone, so it names no moment. Give it in UTC.")
    if events and now < events[-1].time:
        raise RequestError(
            "the clock stands before the last event of a request, so no term can be judged. Nothing is granted or "
            "recorded; set the clock."
        )
