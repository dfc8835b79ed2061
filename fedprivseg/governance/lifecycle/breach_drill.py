"""The breach drill: if this had leaked, what went out, to whom, under which protections, and who is told by when.

T/SCGS 313008-2024 clauses 5.3.2-a (an emergency plan for a leak), 5.6.2-d (audit). It answers from ledger lines and a response
plan alone, sends nothing and opens no connection. Check the ledger first (`ledger.verify`): a drill believes its lines.

When in doubt it counts as leaked: a release that does not say whose data is in it concerns every subject whom the site took
in before it, or every subject if that is not known; a line that states no level is of the highest, and a payload that no
ledger knows, or a leaked key, is treated as of the highest level.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fedprivseg.core.errors import RequestError
from fedprivseg.core.model import Frozen
from fedprivseg.governance.ledger.format import SIDES, SUBJECTS
from fedprivseg.governance.ledger.line import Line

CLAUSE = "5.3.2-a"
HIGHEST = 5
RECIPIENT = "recipient"
"""The fact that names who got a payload. A line without it went to the server of its run."""


class Contact(Frozen):
    """Who is told of a leak. role: such as ``data protection officer``. reach: an office's number or address, no person's.
    hours: within how many after discovery. levels: of which sensitivity (5.5)."""

    role: str = Field(min_length=3)
    reach: str = Field(min_length=3)
    hours: Annotated[float, Field(gt=0, le=8760)]
    levels: tuple[int, ...] = Field(min_length=1)

    @field_validator("levels")
    @classmethod
    def _known(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if not set(levels) <= {1, 2, 3, 4, 5}:
            raise ValueError("levels are 1, 2, 3, 4 and 5")
        return tuple(sorted(set(levels)))


class ResponsePlan(Frozen):
    """A site's plan for a leak: each role once, and somebody for the highest level, or it is no plan."""

    contacts: tuple[Contact, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> ResponsePlan:
        roles = [contact.role for contact in self.contacts]
        if len(set(roles)) < len(roles):
            raise ValueError("a role stands twice in the plan; give its earliest deadline and all of its levels in one")
        if not any(HIGHEST in contact.levels for contact in self.contacts):
            raise ValueError(f"nobody in the plan is told of a leak of level {HIGHEST}")
        return self


@dataclass(frozen=True)
class Leak:
    """What is supposed to have leaked: one thing.

    what: ``payload`` (with its SHA-256), ``subject`` (a pseudonym), ``key`` (the site's public key, 64 hex digits: its private
    half) or ``period`` (everything released in it). which: that thing, empty for a period. since, until: only lines of this
    time concern the leak; None for no bound. A key that leaked concerns what was signed while it may have been known. Raises
    RequestError if `what` and `which` do not go together, or the times have no time zone or are in the wrong order.
    """

    what: Literal["payload", "subject", "key", "period"]
    which: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        if (self.what == "period") == bool(self.which):
            raise RequestError(
                "a leak of a payload, subject or key says which; that of a period gives its times instead."
            )
        if self.what == "period" and self.since is None and self.until is None:
            raise RequestError("a leak of a period gives its beginning, its end, or both.")
        if any(bound is not None and bound.tzinfo is None for bound in (self.since, self.until)):
            raise RequestError("the times of a leak have a time zone, such as +00:00.")
        if self.since is not None and self.until is not None and self.until < self.since:
            raise RequestError("the period of a leak ends before it begins.")


@dataclass(frozen=True)
class Exposure:
    """One release that the leak concerns. certain: whether the ledger says so, or cannot exclude it. says: a sentence."""

    site: str
    index: int
    time: str
    digest: str
    kind: str
    purpose: str
    level: int
    size: int
    recipient: str
    protections: tuple[str, ...]
    certain: bool
    says: str


@dataclass(frozen=True)
class Notice:
    """Who is told, how, by when, and a sentence that says so."""

    role: str
    reach: str
    by: datetime
    says: str


@dataclass(frozen=True)
class Drill:
    """What a leak would have meant. level: the highest concerned. exposures: in the order of the ledger. notices: the
    earliest deadline first. findings: what the drill could not tell, and what the plan lacks, in sentences."""

    level: int
    exposures: tuple[Exposure, ...]
    notices: tuple[Notice, ...]
    findings: tuple[str, ...]


def drill(lines: Iterable[Line], plan: ResponsePlan, leak: Leak, found: datetime) -> Drill:
    """Who would be told what by when if `leak` were found at the time `found`, which has a time zone.

    lines: those of one ledger or of several, each from its beginning, for its first line says which key signs it. Raises
    RequestError if a line's time is none.
    """
    if found.tzinfo is None:
        raise RequestError("the time of discovery has a time zone, such as +00:00.")
    exposures: list[Exposure] = []
    keys: dict[str, str] = {}
    taken: dict[str, list[object] | None] = {}
    known = False
    for line in lines:
        if line.event == "key":
            keys[line.site] = str(line.facts.get("public_key", ""))
            known = known or (leak.what == "key" and keys[line.site] == leak.which)
        if line.event == "enrolment":
            taken[line.site] = _taken_in(line)
        if line.event == "release" and (certain := _concerned(line, leak, keys, taken)) is not None:
            exposures.append(_exposure(line, certain))
    known = known or any(exposure.certain for exposure in exposures)
    unknown = not known and leak.what in ("payload", "key")
    level = max((exposure.level for exposure in exposures), default=0)
    if unknown or leak.what == "key":  # whoever has the key may have signed anything
        level = HIGHEST
    notices = tuple(
        sorted(
            (_notice(contact, level, exposures, found) for contact in plan.contacts if level in contact.levels),
            key=_order,
        )
    )
    return Drill(level, tuple(exposures), notices, tuple(_findings(leak, exposures, level, bool(notices), unknown)))


def _concerned(
    line: Line, leak: Leak, keys: Mapping[str, str], taken: Mapping[str, list[object] | None]
) -> bool | None:
    """Whether a release is concerned: True if the line says so, False if it cannot be excluded, None if it is not."""
    if not _within(line, leak):
        return None
    if leak.what == "payload":
        return True if line.facts.get("digest") == leak.which else None
    if leak.what == "key":
        key = keys.get(line.site, "")
        return (True if key == leak.which else None) if key else False
    if leak.what == "subject":
        subjects = line.facts.get(SUBJECTS)
        if isinstance(subjects, list):
            return True if leak.which in subjects else None
        people = taken.get(line.site)
        return None if people is not None and leak.which not in people else False
    return True


def _taken_in(line: Line) -> list[object] | None:
    """Whom an intake line lists; None if it lists nobody, so that nobody can be excluded."""
    sides = [people for side in SIDES if isinstance(people := line.facts.get(side), list)]
    return [one for people in sides for one in people] if len(sides) == len(SIDES) else None


def _within(line: Line, leak: Leak) -> bool:
    try:
        time = datetime.fromisoformat(line.time)
        return (leak.since is None or leak.since <= time) and (leak.until is None or time <= leak.until)
    except (ValueError, TypeError):
        raise RequestError(
            f"line {line.index} of a ledger states no time that can be read. Check the ledger before the drill."
        ) from None


def _exposure(line: Line, certain: bool) -> Exposure:
    facts = line.facts
    level, size, history = facts.get("level"), facts.get("bytes"), facts.get("history")
    stated = type(level) is int and 1 <= level <= HIGHEST
    kind, purpose = str(facts.get("kind", "unknown")), str(facts.get("purpose", "unknown"))
    recipient = str(facts.get(RECIPIENT) or f"the server of run {facts.get('run', 'unknown')}")
    protections = tuple(str(step) for step in history) if isinstance(history, list) else ()
    under = ", ".join(protections) or "no protection that the ledger names"
    of = f"level {level}" if stated else f"a level that the ledger does not state (taken as {HIGHEST})"
    doubt = "" if certain else " The ledger does not exclude that it is concerned."
    return Exposure(
        site=line.site,
        index=line.index,
        time=line.time,
        digest=str(facts.get("digest", "")),
        kind=kind,
        purpose=purpose,
        level=level if stated and isinstance(level, int) else HIGHEST,
        size=size if isinstance(size, int) else 0,
        recipient=recipient,
        protections=protections,
        certain=certain,
        says=f"{line.site} released {size} bytes of kind {kind} for {purpose}, of {of}, to {recipient} on {line.time}, under "
        f"{under}.{doubt}",
    )


def _notice(contact: Contact, level: int, exposures: list[Exposure], found: datetime) -> Notice:
    try:
        by = found + timedelta(hours=contact.hours)
    except OverflowError:
        raise RequestError(
            "the deadline of a contact lies beyond the calendar. Correct the time of discovery."
        ) from None
    sites = len({exposure.site for exposure in exposures})
    return Notice(
        contact.role,
        contact.reach,
        by,
        f"The {contact.role} is told by {by.isoformat(timespec='minutes')} ({contact.hours:g} hours after discovery) of a leak "
        f"of level {level}: {_many(len(exposures), 'release')} of {_many(sites, 'site')}.",
    )


def _order(notice: Notice) -> tuple[datetime, str]:
    return notice.by, notice.role


def _findings(leak: Leak, exposures: list[Exposure], level: int, told: bool, unknown: bool) -> Iterable[str]:
    if unknown and leak.what == "payload":
        yield (
            "No release in these ledgers, within the times given, is the payload that leaked: it is foreign, or it left past "
            f"the gate. It is treated as of level {HIGHEST}; compare it with what the sites hold."
        )
    elif unknown:
        yield f"No ledger given here is signed with the key that leaked. It is treated as of level {HIGHEST}."
    elif not exposures:
        yield "The ledgers show no release that this leak concerns."
    if leak.what == "key":
        yield (
            "Whoever has the key can sign in the site's name: what it signed since it may have been known proves nothing. "
            "Revoke it, begin a new ledger under a new key, and compare the old one's head with the copy kept elsewhere."
        )
    unsure = sum(not exposure.certain for exposure in exposures)
    if unsure:
        yield (
            f"Of {_many(len(exposures), 'release')}, {unsure} cannot be told to be unconcerned: the ledger does not say whose "
            "data they hold, or which key signed them."
        )
    bare = sum(not exposure.protections for exposure in exposures)
    if bare:
        yield f"Of {_many(len(exposures), 'release')}, {bare} left under no protection that the ledger names."
    if level and not told:
        yield f"The plan tells nobody of a leak of level {level}. Name a contact for it."


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
