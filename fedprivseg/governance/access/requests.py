"""Requests for access and their review (T/SCGS 313008-2024 clauses 5.6.2-a to c): who may use which data, for what, how long.

A request says from which collections, in which scenario, within which range, by which logic and with which effect on personal
information data is to be used, and for how long. Somebody else, a data manager, approves it, within the range asked for or a
narrower one, for a term and under limits, or rejects it; either way with reasons. An approval lapses at its term and can be
revoked. What is approved and in force becomes a `Project` for the policies of `access`.

All of it stands in one file of the site, one JSON line an event, and lines are only ever added. Each line holds the SHA-256 of
the one before, so a line that was changed, removed or put in between shows; lines cut off at the end show to whoever kept the
hash of the last event, as a site's ledger does. A file that cannot be read, or whose lines do not follow from one another,
grants nothing. Every method that adds a line returns it as an `Event`, for the caller to write into the ledger.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from fedprivseg.core.errors import RequestError
from fedprivseg.crypto.identity import canonical
from fedprivseg.governance.access.roles import MOST_CHARACTERS, MOST_MEMBERS, Action, Granularity, Project, Staff, Title

LONGEST_DAYS = 1826
"""Five years: the longest term that can be asked for. The standard names none; this one is ours."""

MOST_BYTES = 1 << 24
ZEROS = "0" * 64

APPLICANTS = (Title.CHIEF, Title.ATTENDING, Title.RESIDENT, Title.RESEARCHER, Title.DATA_MANAGER)
REVIEWER = Title.DATA_MANAGER

_Item = TypeVar("_Item")
_Id = Annotated[str, StringConstraints(min_length=1, max_length=MOST_CHARACTERS)]
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=10, max_length=2000)]
_NEXT = "Nothing is granted from it; keep it as it is, as evidence, and put back a copy that is whole."


class State(StrEnum):
    """Where a request stands. ``lapsed`` follows from the clock; the others from the last event."""

    SUBMITTED = "submitted"
    APPROVED = "approved"
    REJECTED = "rejected"
    REVOKED = "revoked"
    LAPSED = "lapsed"


class Limit(StrEnum):
    """What an approval ties the use to. The first two are the least (5.6.2-b)."""

    DE_IDENTIFICATION = "de-identification"
    ACCESS_CONTROL = "access-control"
    NO_COPIES = "no-copies"
    ENCRYPTED_STORAGE = "encrypted-storage"
    DESTRUCTION_AT_END = "destruction-at-end"


LEAST_LIMITS = frozenset({Limit.DE_IDENTIFICATION, Limit.ACCESS_CONTROL})


class _Frozen(BaseModel):
    # No input in errors: it may be what somebody wrote about patients.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Range(_Frozen):
    """The data that a request is about. sources: collections. level: the highest, clause 5.5. uses: what is done with it."""

    sources: tuple[_Id, ...] = Field(min_length=1, max_length=MOST_MEMBERS)
    level: int = Field(ge=1, le=3)
    granularities: tuple[Granularity, ...] = Field(min_length=1)
    uses: tuple[Literal[Action.RESEARCH, Action.TRAIN, Action.RELEASE], ...] = Field(min_length=1)

    @field_validator("sources", "granularities", "uses")
    @classmethod
    def _sorted(cls, values: tuple[_Item, ...]) -> tuple[_Item, ...]:
        return _each_once(values)

    def within(self, other: Range) -> bool:
        """Whether `other` covers all of this."""
        return self.level <= other.level and all(
            set(getattr(self, name)) <= set(getattr(other, name)) for name in ("sources", "granularities", "uses")
        )


class Application(_Frozen):
    """What the applicant states (5.6.2-a); each text in a sentence or more. members: ids of the project group, beside the
    applicant. scenario: for what and where. logic: how the data is used. effect: on personal information. days: wanted term.
    Raises pydantic's ValidationError, which is a ValueError, on values that are missing or outside these."""

    title: _Text
    range: Range
    scenario: _Text
    logic: _Text
    effect: _Text
    days: int = Field(ge=1, le=LONGEST_DAYS)
    members: tuple[_Id, ...] = Field(default=(), max_length=MOST_MEMBERS)

    @field_validator("members")
    @classmethod
    def _sorted(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(values)


class Approval(_Frozen):
    """What the reviewer grants (5.6.2-b). days: the term, from the moment of approval. limits: at least de-identification and
    access control. Raises ValidationError as `Application` does."""

    range: Range
    days: int = Field(ge=1, le=LONGEST_DAYS)
    limits: tuple[Limit, ...]

    @field_validator("limits")
    @classmethod
    def _least(cls, values: tuple[Limit, ...]) -> tuple[Limit, ...]:
        missing = sorted(LEAST_LIMITS - set(values))
        if missing:
            raise ValueError(f"limits lack {', '.join(missing)}, without which nothing is approved (5.6.2-b)")
        return _each_once(values)


class Event(_Frozen):
    """One line of the file: who, when, what. index: from 0. previous: SHA-256 of the line before. reasons: of a review or
    a revocation."""

    index: int = Field(ge=0)
    time: AwareDatetime
    who: _Id
    title: Title
    what: Literal[State.SUBMITTED, State.APPROVED, State.REJECTED, State.REVOKED]
    request: _Id
    previous: str = Field(pattern=r"^[0-9a-f]{64}$")
    reasons: _Text | None = None
    application: Application | None = None
    approval: Approval | None = None

    @property
    def raw(self) -> bytes:
        """The line, without its newline."""
        return canonical(self.model_dump(mode="json"))

    @property
    def hash(self) -> str:
        """SHA-256 of the line, in hex."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a ledger line says of the event: text, whole numbers and lists of text."""
        facts: dict[str, Any] = {
            "request": self.request,
            "what": self.what.value,
            "who": self.who,
            "title": self.title.value,
            "at": self.time.isoformat(),
            "hash": self.hash,
        }
        asked = self.approval or self.application
        if self.reasons:
            facts["reasons"] = self.reasons
        if asked:
            facts |= asked.range.model_dump(mode="json")
            facts["days"] = asked.days
        if self.approval:
            facts["limits"] = [limit.value for limit in self.approval.limits]
        return MappingProxyType(facts)


@dataclass(frozen=True)
class Case:
    """A request as the events leave it. approval, until: None unless it was approved."""

    id: str
    applicant: str
    application: Application
    last: State
    approval: Approval | None = None
    until: datetime | None = None

    def state(self, now: datetime) -> State:
        """Where it stands at `now`. At the moment of its term an approval has lapsed."""
        if self.last is State.APPROVED and (self.until is None or now >= self.until):
            return State.LAPSED
        return self.last

    @property
    def group(self) -> frozenset[str]:
        """Ids of the applicant and the members of the project group."""
        return frozenset({self.applicant, *self.application.members})


@final
@dataclass(frozen=True)
class RequestFile:
    """The requests of one site. Every call reads the file anew; writers wait for each other, so several processes can
    use it. `now` is always the caller's clock, and is never before the last event. record: entered before
    an event is added, left after; what it raises keeps the event out."""

    path: Path
    record: Callable[[Event], AbstractContextManager[None]] = lambda event: nullcontext()

    def submit(self, applicant: Staff, application: Application, now: datetime) -> Event:
        """Ask for access. Raises RequestError as all these methods do: the file, the role or the state does not allow it."""
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

    def events(self, *, head: str | None = None) -> tuple[Event, ...]:
        """All events; none if there is no file. head: hash of the last one, if the caller kept it. Raises RequestError if the
        file cannot be read, an event is not possible after those before, or the last one is another."""
        return self._checked(_read(self.path), head)[0]

    def cases(self, *, head: str | None = None) -> Mapping[str, Case]:
        """All requests by id, as the events leave them. Raises RequestError as `events` does."""
        return MappingProxyType(self._checked(_read(self.path), head)[1])

    def projects(self, member: str, now: datetime, *, head: str | None = None) -> frozenset[Project]:
        """What is approved and in force at `now` for the member of staff with this id: nothing beyond the approved ranges
        (5.6.2-c). Raises RequestError as `events` does, and if `now` lies before the last event; then nothing is granted."""
        events, cases = self._checked(_read(self.path), head)
        _check_time(now, events)
        return frozenset(
            _project(case.id, case.approval.range, case.until)
            for case in cases.values()
            if member in case.group and case.approval and case.until and case.state(now) is State.APPROVED
        )

    def _checked(self, raw: bytes, head: str | None = None) -> tuple[tuple[Event, ...], dict[str, Case]]:
        events = _parse(self.path, raw)
        if head is not None and (events[-1].hash if events else ZEROS) != head:
            _distrust(self.path, "does not end with the event that is known to be its last")
        return events, _replay(self.path, events)

    def _append(self, who: Staff, what: State, request: str | None, now: datetime, **fields: Any) -> Event:
        with _locked(self.path) as descriptor:
            raw = _read(self.path, locked=True)
            events, cases = self._checked(raw)
            _check_time(now, events)
            said = {
                "index": len(events),
                "time": now.astimezone(UTC),
                "who": who.id,
                "title": who.title,
                "what": what,
                "request": f"request-{len(cases) + 1}" if request is None else request,
                "previous": events[-1].hash if events else ZEROS,
            }
            try:
                event = Event.model_validate(said | fields)
            except ValidationError as fault:
                places = sorted({".".join(map(str, each["loc"])) for each in fault.errors()})
                raise RequestError(
                    f"nothing was recorded: {', '.join(places)} cannot be taken as given. Reasons are 10 to 2000 "
                    f"characters, ids 1 to {MOST_CHARACTERS}."
                ) from None
            objection = _objection(cases, event)
            if objection is not None:
                raise RequestError(f"nothing was recorded: {objection}")
            with self.record(event):
                _write(self.path, descriptor, len(raw), event.raw + b"\n")
        return event

    def provision_sites(self, note: Path, recorded: Callable[[], str]) -> None:
        """End what a kill cut short: the event in the file `note` is added if its hash is what is `recorded` and it is not here
        yet; then the note goes. Raises RequestError as `events` does, and then the note stays."""
        if not note.exists():
            return
        with _locked(self.path) as descriptor:
            line, raw = _read(note, locked=True), _read(self.path, locked=True)
            if hashlib.sha256(line.removesuffix(b"\n")).hexdigest() == recorded() and not raw.endswith(line):
                self._checked(raw + line)
                _write(self.path, descriptor, len(raw), line)
            note.unlink(missing_ok=True)


def _objection(cases: Mapping[str, Case], event: Event) -> str | None:
    """Why `event` cannot come after those that led to `cases`; None if it can. The one place that says which roles and
    transitions there are: what is added and what is read back both pass it."""
    parts = (event.application is not None, event.approval is not None, event.reasons is not None)
    expected = _PARTS[event.what]
    if parts != expected:
        return f"an event '{event.what}' does not hold what belongs to it; make it with the methods of `RequestFile`."
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


def _replay(path: Path, events: tuple[Event, ...]) -> dict[str, Case]:
    """The requests after `events`. Raises RequestError if one of them was not possible after those before."""
    cases: dict[str, Case] = {}
    for event in events:
        objection = _objection(cases, event)
        if objection is not None:
            _distrust(path, f"holds an event in line {event.index + 1} that cannot be: {objection}")
        if event.application is not None:
            cases[event.request] = Case(event.request, event.who, event.application, State.SUBMITTED)
        else:
            case = replace(cases[event.request], last=State(event.what))
            if event.approval is not None:
                until = event.time + timedelta(days=event.approval.days)
                case = replace(case, approval=event.approval, until=until)
            cases[event.request] = case
    return cases


def _parse(path: Path, raw: bytes) -> tuple[Event, ...]:
    """The lines of the file, each following from the one before. Raises RequestError that names the line."""
    if raw and not raw.endswith(b"\n"):
        _distrust(path, "ends within a line")
    events: list[Event] = []
    previous = ZEROS
    for number, line in enumerate(raw.split(b"\n")[:-1], start=1):
        try:
            event = Event.model_validate_json(line)
        except ValidationError:
            _distrust(path, f"holds no event in line {number}")
        # Spaces, doubled keys or another order read the same, but are not what was written.
        if event.raw != line or event.index != number - 1 or event.previous != previous:
            _distrust(path, f"was changed: line {number} does not follow from the one before")
        if events and event.time < events[-1].time:
            _distrust(path, f"was changed: line {number} is older than the one before")
        events.append(event)
        previous = hashlib.sha256(line).hexdigest()
    return tuple(events)


def _project(name: str, granted: Range, until: datetime) -> Project:
    uses = frozenset(Action(use) for use in granted.uses)
    return Project(name, frozenset(granted.sources), granted.level, frozenset(granted.granularities), uses, until)


def _check_time(now: datetime, events: tuple[Event, ...]) -> None:
    if now.utcoffset() is None:
        raise RequestError("the time has no time zone, so it names no moment. Give it in UTC.")
    if events and now < events[-1].time:
        raise RequestError(
            "the clock stands before the last event in the file, so no term can be judged. Nothing is granted or "
            "recorded; set the clock."
        )


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file open for appending, made if need be, with nobody else reading or writing. Raises RequestError."""
    try:
        new = not path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as fault:
        _unusable(path, "opened", fault)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if new:
            _sync_folder(path)
        yield descriptor
    except OSError as fault:
        _unusable(path, "written", fault)
    finally:
        os.close(descriptor)


def _read(path: Path, *, locked: bool = False) -> bytes:
    """All bytes of the file, none if it does not exist. locked: by the caller; otherwise waits for a writer to end its line.
    Raises RequestError."""
    try:
        with path.open("rb") as file:
            if not locked:
                fcntl.flock(file, fcntl.LOCK_SH)
            raw = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as fault:
        _unusable(path, "read", fault)
    if len(raw) > MOST_BYTES:
        raise RequestError(f"{path.name} holds more than {MOST_BYTES} bytes. Put it away and begin a new file.")
    return raw


def _write(path: Path, descriptor: int, size: int, line: bytes) -> None:
    """Append `line` down to the disk, or leave the file at `size` bytes as it was. Raises RequestError."""
    if os.fstat(descriptor).st_size != size:
        _distrust(path, "was replaced while it was in use")
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError as fault:
        os.ftruncate(descriptor, size)
        _unusable(path, "written", fault)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _each_once(values: tuple[_Item, ...]) -> tuple[_Item, ...]:
    # In one order, without repetition: what says the same is the same line.
    return tuple(sorted(set(values), key=str))


def _distrust(path: Path, why: str) -> NoReturn:
    raise RequestError(f"{path.name} {why}. {_NEXT}") from None


def _unusable(path: Path, verb: str, fault: OSError) -> NoReturn:
    raise RequestError(
        f"{path.name} could not be {verb} ({fault.strerror or type(fault).__name__}); nothing is granted or recorded. "
        "Check its folder, its owner and the free space."
    ) from None
