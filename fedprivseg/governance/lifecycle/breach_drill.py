"""The breach drill: if this had leaked, what went out, to whom, under which protections, and who is notified by when.

T/SCGS 313008-2024 clauses 5.3.2-a (an emergency plan for a leak), 5.6.2-d (audit). It answers from ledger lines and a response
plan alone, sends nothing and opens no connection. Check the ledger first (`ledger.verify`): a drill believes its lines.

When in doubt it counts as leaked: a release that does not say whose data is in it concerns every subject whom the site
enrolled before it, or every subject if that is not known; a line that states no level is of the highest, and a payload that no
ledger knows, or a leaked key, is treated as of the highest level.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from fedprivseg.core.errors import RequestError
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.format import SIDES, SUBJECTS
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle.response_plan import HIGHEST, Contact, ResponsePlan, breaks, read_plan
from fedprivseg.governance.policy.agreement import read_agreement
from fedprivseg.governance.policy.consent import Register

What = Literal["payload", "subject", "key", "period"]


@dataclass(frozen=True)
class Leak:
    """What is supposed to have leaked: one thing. A key that leaked concerns what was signed while it may have been known.

    Attributes:
        what: sort of thing.
        which: a payload's SHA-256, a subject's pseudonym, the public key (64 hex digits) whose private half leaked, or nothing
            for everything that was released in a period.
        since: only lines of this time or later concern the leak; None for no bound.
        until: only lines of this time or earlier do.

    Raises:
        RequestError: `what` and `which` do not go together, or the times have no time zone or are in the wrong order.
    """

    what: What
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
    """One release that the leak concerns.

    Attributes:
        index: of its line in the ledger.
        digest: SHA-256 of the payload.
        size: in bytes.
        certain: whether the ledger says that it is concerned, or cannot exclude it.
        says: the same in a sentence.
    """

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
class Notification:
    """Who is notified, how, by when, and a sentence that says so."""

    role: str
    reach: str
    by: datetime
    says: str


@dataclass(frozen=True)
class Drill:
    """What a leak would have meant.

    Attributes:
        level: the highest concerned.
        exposures: in the order of the ledger.
        notifications: the earliest deadline first.
        findings: what the drill could not tell, and what the plan lacks, in sentences.
    """

    level: int
    exposures: tuple[Exposure, ...]
    notifications: tuple[Notification, ...]
    findings: tuple[str, ...]


def drill(lines: Iterable[Line], plan: ResponsePlan, leak: Leak, found: datetime) -> Drill:
    """Who would be notified of what by when.

    Args:
        lines: of one ledger or of several, each from its beginning, for its first line says which key signs it.
        plan: of the site.
        leak: what is supposed to have leaked.
        found: the time of its discovery, with a time zone.

    Raises:
        RequestError: the time of a line is none.
    """
    if found.tzinfo is None:
        raise RequestError("the time of discovery has a time zone, such as +00:00.")
    exposures: list[Exposure] = []
    keys: dict[str, str] = {}
    people: dict[str, list[object] | None] = {}
    known = False
    for line in lines:
        if line.event == "key":
            keys[line.site] = str(line.facts.get("public_key", ""))
            known = known or (leak.what == "key" and keys[line.site] == leak.which)
        if line.event == "enrolment":
            people[line.site] = _enrolled(line)
        if line.event == "release" and (certain := _concerned(line, leak, keys, people)) is not None:
            exposures.append(_exposure(line, certain))
    known = known or any(exposure.certain for exposure in exposures)
    unknown = not known and leak.what in ("payload", "key")
    level = max((exposure.level for exposure in exposures), default=0)
    if unknown or leak.what == "key":  # whoever has the key may have signed anything
        level = HIGHEST
    told = [_notification(contact, level, exposures, found) for contact in plan.contacts if level in contact.levels]
    findings = _findings(leak, exposures, level, bool(told), unknown)
    return Drill(
        level=level,
        exposures=tuple(exposures),
        notifications=tuple(sorted(told, key=lambda each: (each.by, each.role))),
        findings=tuple(findings),
    )


def rehearse(run: Path, site: str, lines: Sequence[Line], leak: Leak, found: datetime) -> Drill:
    """`drill` at one site, by its response plan. The findings say too where the plan does less than the data-use agreement
    promises.

    Args:
        run: the run's folder.
        site: its name.
        lines: of its ledger, which verifies.
        leak: what is supposed to have leaked.
        found: the time of its discovery, with a time zone.

    Raises:
        RequestError: the site has no plan.
    """
    folder = RunFolder(run).site(site)
    path = folder.response_plan
    if not path.exists():
        raise RequestError(
            f"{site} has no plan for a leak: its folder holds no {path.name}. Write one: a [[contacts]] table an "
            "office, with role, reach, hours and levels"
        )
    plan = read_plan(path)
    answer = drill(lines, plan, leak, found)
    agreement = read_agreement(folder.agreement)
    less = () if agreement is None else breaks(plan, agreement.terms.breach)
    return replace(answer, findings=(*answer.findings, *less))


def pseudonym(run: Path, site: str, lines: Sequence[Line], code: str) -> str:
    """What stands in the site's ledger, `lines`, for the subject `code`. Raises RequestError if the site has no key yet, or
    knows no such subject: a code with a slip in it must not come out as a leak that concerns nobody."""
    folder = RunFolder(run).site(site)
    if not folder.key.exists():
        raise RequestError(f"{site} has no key yet, so no line of its ledger names any subject")
    name, register = SiteKey.load(folder.key).pseudonym(code), folder.register
    # Lists alone: a line on access names whoever was asked for, known or not.
    lists = (line.facts.get(fact) for line in lines for fact in (*SIDES, SUBJECTS))
    enrolled = any(name in each for each in lists if isinstance(each, list))
    if not enrolled and not (register.exists() and code in Register.read(register).consents):
        raise RequestError(
            f"{site} knows no such subject: neither its ledger nor a register of consent names the code. Give it as it stands "
            "in the register or in the table of the release; `fedprivseg data check` reads the release."
        )
    return name


def _concerned(
    line: Line, leak: Leak, keys: Mapping[str, str], people: Mapping[str, list[object] | None]
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
        listed = people.get(line.site)
        return None if listed is not None and leak.which not in listed else False
    return True


def _enrolled(line: Line) -> list[object] | None:
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
    recipient = f"the server of run {facts.get('run', 'unknown')}"
    protections = tuple(str(step) for step in history) if isinstance(history, list) else ()
    under = ", ".join(protections) or "no protection that the ledger names"
    of = f"level {level}" if stated else f"a level that the ledger does not state (taken as {HIGHEST})"
    uncertainty = "" if certain else " The ledger does not exclude that it is concerned."
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
        f"{under}.{uncertainty}",
    )


def _notification(contact: Contact, level: int, exposures: list[Exposure], found: datetime) -> Notification:
    try:
        by = found + timedelta(hours=contact.hours)
    except OverflowError:
        raise RequestError(
            "the deadline of a contact lies beyond the calendar. Correct the time of discovery."
        ) from None
    sites = len({exposure.site for exposure in exposures})
    return Notification(
        contact.role,
        contact.reach,
        by,
        f"The {contact.role} is notified by {by.isoformat(timespec='minutes')} ({contact.hours:g} hours after discovery) of a "
        f"leak of level {level}: {_many(len(exposures), 'release')} of {_many(sites, 'site')}.",
    )


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
        yield f"The plan notifies nobody of a leak of level {level}. Name a contact for it."


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
