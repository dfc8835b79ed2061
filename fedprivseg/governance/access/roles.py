"""Who asks for what, and about which patient's data: the frozen records of which access rules speak (annexes A.1 and A.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from fedprivseg.core.errors import RequestError

MOST_CHARACTERS = 128
MOST_MEMBERS = 64
MOST_DOCTORS = 8
MOST_SUPERIORS = 16
"""Bounds on names, sets, doctors in charge, and superiors in a row. The Cedar language has no loops, so what is bounded in
size is bounded in time."""

_Member = TypeVar("_Member")


class Title(StrEnum):
    """A.1.2-b, and the other roles of a site."""

    CHIEF = "chief"
    ATTENDING = "attending"
    RESIDENT = "resident"
    NURSE = "nurse"
    RESEARCHER = "researcher"
    DATA_MANAGER = "data-manager"


class Granularity(StrEnum):
    """A.1.1: names of tests, hospital, department; reports and summaries; detailed records."""

    DEFAULT = "default"
    INFORMED = "informed"
    AUTHORISED = "authorised"


class Purpose(StrEnum):
    """What somebody says the data is for."""

    TREATMENT = "treatment"
    RESEARCH = "research"
    OWN_CARE = "own-care"


class Kinship(StrEnum):
    """A.2.1-a: who may ask in place of a patient."""

    GUARDIAN = "guardian"
    CHILD = "child"


class Action(StrEnum):
    """What can be asked for. ``query`` is what patients do, ``view`` what staff do."""

    VIEW = "view"
    QUERY = "query"
    SAVE = "save"
    COPY = "copy"
    PRINT = "print"
    DOWNLOAD = "download"
    RESEARCH = "research"
    TRAIN = "train"
    RELEASE = "release"


@dataclass(frozen=True)
class Project:
    """One approved request for access, as far as it went. Raises RequestError on values outside these.

    Attributes:
        sources: collections.
        level: the highest, 1 to 3.
        until: its end, with a time zone; at that moment it has expired.
    """

    id: str
    sources: frozenset[str]
    level: int
    granularities: frozenset[Granularity]
    uses: frozenset[Action]
    until: datetime

    def __post_init__(self) -> None:
        _names("a project's id and sources", [self.id, *_few("a project's sources", self.sources)])
        _few("a project's granularities", self.granularities)
        _few("a project's uses", self.uses)
        if type(self.level) is not int or not 1 <= self.level <= 3:
            raise RequestError(f"a project reaches up to level 1, 2 or 3 (clause 5.5); given {self.level!r}.")
        aware("a project's end", self.until)


@dataclass(frozen=True)
class Staff:
    """A member of staff in a role (A.1.2). Raises RequestError on values that are too long or too many.

    Attributes:
        groups: treatment groups of `department`.
        projects: what was approved for this person.
        rights: which of save, copy, print, download the site gave.
    """

    id: str
    title: Title
    department: str
    groups: frozenset[str] = frozenset()
    superior: Staff | None = None
    projects: frozenset[Project] = frozenset()
    rights: frozenset[Action] = frozenset()

    def __post_init__(self) -> None:
        groups = _few("the groups of a member of staff", self.groups)
        _names("the id, department and groups of a member of staff", [self.id, self.department, *groups])
        _few("the rights of a member of staff", self.rights)
        names = [project.id for project in _few("the projects of a member of staff", self.projects)]
        if len(set(names)) < len(names):
            raise RequestError("two projects of a member of staff have one id; give each approved request its own.")
        if len(upwards(self)) > MOST_SUPERIORS:
            raise RequestError(f"there are more than {MOST_SUPERIORS} superiors in a row; check who is above whom.")


@dataclass(frozen=True)
class Patient:
    """A patient with an account.

    Attributes:
        verified: whether the identity was proved (A.2.1-a).
        rights: as in `Staff`.
    """

    id: str = field(repr=False)
    verified: bool = False
    rights: frozenset[Action] = frozenset()

    def __post_init__(self) -> None:
        _names("a patient's id", [self.id])
        _few("a patient's rights", self.rights)


@dataclass(frozen=True)
class Guardian:
    """Who asks in place of `patients`.

    Attributes:
        bound: whether the documents that tie the account to them were checked.
        authorised: whether the patient authorised it, which a child needs.
    """

    id: str = field(repr=False)
    kinship: Kinship
    patients: frozenset[str] = field(repr=False)
    verified: bool = False
    bound: bool = False
    authorised: bool = False
    rights: frozenset[Action] = frozenset()

    def __post_init__(self) -> None:
        _names("the ids of a guardian and of patients", [self.id, *_few("a guardian's patients", self.patients)])
        _few("a guardian's rights", self.rights)


Principal = Staff | Patient | Guardian


@dataclass(frozen=True)
class Record:
    """A part of a patient's data. Raises RequestError on values outside these.

    Attributes:
        source: the collection it belongs to.
        level: 1 to 5 (5.5).
        age_days: whole days since the report.
        doctors: who is in charge.
        group: the treatment group of `department` in charge, empty if it has none.
        treating: ids of other staff who take part in the treatment.
        attending: ids of those who attend in the sense of level 5.
        sensitive: a finding that is not shown to patients (A.2.1-b).
    """

    id: str = field(repr=False)
    patient: str = field(repr=False)
    department: str
    source: str
    level: int
    granularity: Granularity
    age_days: int
    doctors: tuple[Staff, ...] = ()
    group: str = ""
    treating: frozenset[str] = frozenset()
    attending: frozenset[str] = frozenset()
    special: bool = False
    infectious: bool = False
    sensitive: bool = False
    deidentified: bool = False

    def __post_init__(self) -> None:
        staff = [*_few("who treats", self.treating), *_few("who attends", self.attending)]
        _names(
            "the names in a record", [self.id, self.patient, self.department, self.source, self.group or "-", *staff]
        )
        if type(self.level) is not int or not 1 <= self.level <= 5:
            raise RequestError(f"a record has a level from 1 to 5 (clause 5.5); given {self.level!r}.")
        if type(self.age_days) is not int or self.age_days < 0:
            raise RequestError(f"a record's age is a whole number of days from 0; given {self.age_days!r}.")
        if not isinstance(self.doctors, tuple) or len(self.doctors) > MOST_DOCTORS:
            raise RequestError(f"the doctors in charge are a tuple of at most {MOST_DOCTORS}; name the first of them.")


@dataclass(frozen=True)
class Context:
    """The circumstances of one request, as the site attests them; the defaults allow nothing.

    Attributes:
        asked: when that was, with a time zone.
        authenticated: when the person last proved who it is, None if never.
        encrypted: whether the channel keeps data secret.
        integrity: whether the channel shows changes.
        second_factor: whether there was one, for level 5.
        controlled_place: whether the person is at a workstation of the site, for level 5.
        notified: whether the notice was shown and confirmed.
        project: id of the project that this is for.
        window_asked: how many days back a patient asks to see.
        window_approved: how many days back were approved.
    """

    asked: datetime
    authenticated: datetime | None = None
    purpose: Purpose | None = None
    encrypted: bool = False
    integrity: bool = False
    second_factor: bool = False
    controlled_place: bool = False
    notified: bool = False
    project: str = ""
    window_asked: int = 0
    window_approved: int = 0

    def __post_init__(self) -> None:
        aware("the time of a request", self.asked)
        if self.authenticated is not None:
            aware("the time of an authentication", self.authenticated)
        _names("the project of a request", [self.project or "-"])


@dataclass(frozen=True)
class Request:
    """Who asks to do what with which record, under which circumstances."""

    principal: Principal
    action: Action
    record: Record
    context: Context


def upwards(person: Staff) -> list[Staff]:
    """The superiors of `person`, nearest first. There is no circle: a frozen record names only what was made before it."""
    found: list[Staff] = []
    above = person.superior
    while above is not None and len(found) <= MOST_SUPERIORS:
        found.append(above)
        above = above.superior
    return found


def _names(what: str, values: Iterable[str]) -> None:
    if not all(isinstance(value, str) and 0 < len(value) <= MOST_CHARACTERS for value in values):
        raise RequestError(f"{what} are texts of 1 to {MOST_CHARACTERS} characters; one of those given is not.")


def _few(what: str, values: frozenset[_Member]) -> frozenset[_Member]:
    if not isinstance(values, frozenset) or len(values) > MOST_MEMBERS:
        raise RequestError(f"{what} are a frozenset of at most {MOST_MEMBERS}; given {type(values).__name__}.")
    return values


def aware(what: str, moment: datetime) -> datetime:
    """`moment`, if it names one. Raises RequestError that says `what` has no time zone."""
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise RequestError(f"{what} has no time zone, so it names no moment. Give it in UTC.")
    return moment
