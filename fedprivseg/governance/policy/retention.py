"""Retention: how long data of a class and level is kept, and what must be done with which object on which day.

T/SCGS 313008-2024 clauses 5.7-a, 5.7-b (archive by stage and life cycle), 5.8-b, 5.8-c (destruction by class and level). The
standard names no terms: a site states its own, with the law, consent or agreement that they rest on. An object for which no
rule is stated is an error, so that nothing is kept for ever by an oversight.

Every function takes the day on which it is asked. A simulation lets years pass by giving another day; nothing here reads a
clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from pydantic import Field, field_validator, model_validator

from fedprivseg.core.errors import RequestError
from fedprivseg.core.model import Frozen
from fedprivseg.governance.policy.levels import DataClass

CLAUSES = ("5.7-b", "5.8-b")
"""The clauses that ask for the acts: to archive, to destroy."""

Act = Literal["archive", "destroy", "review"]


class Term(Frozen):
    """A length of time: full years, then days."""

    years: int = Field(default=0, ge=0, le=200)
    days: int = Field(default=0, ge=0, le=36_500)

    def end(self, start: date) -> date:
        """The first day after the term that begins on `start`. Raises RequestError beyond the year 9999.

        A year from 29 February ends on 1 March: a term is never cut short.
        """
        try:
            try:
                after = start.replace(year=start.year + self.years)
            except ValueError:
                after = date(start.year + self.years, 3, 1)
            return after + timedelta(days=self.days)
        except (ValueError, OverflowError):
            raise RequestError(
                "a term ends after the year 9999. Shorten it, or correct the day on which it starts."
            ) from None


class Rule(Frozen):
    """How long data of one class and of some levels is kept, counted from the day on which it was made.

    archive_after: when it is archived and leaves daily use, None for never. destroy_after: when it is destroyed. basis: the
    law, consent or agreement that the term rests on.
    """

    data_class: DataClass
    levels: tuple[int, ...] = Field(min_length=1)
    archive_after: Term | None = None
    destroy_after: Term
    basis: str = Field(min_length=10)

    @field_validator("levels")
    @classmethod
    def _known(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if not set(levels) <= {1, 2, 3, 4, 5}:
            raise ValueError("levels are 1, 2, 3, 4 and 5")
        return tuple(sorted(set(levels)))

    @model_validator(mode="after")
    def _in_order(self) -> Rule:
        # Compared from a day on which leap years do not decide.
        day = date(2001, 1, 1)
        if self.archive_after is not None and self.archive_after.end(day) >= self.destroy_after.end(day):
            raise ValueError("archive_after is not before destroy_after")
        return self


class Schedule(Frozen):
    """The rules of a site: at most one for each class and level."""

    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unambiguous(self) -> Schedule:
        named = [(rule.data_class, level) for rule in self.rules for level in rule.levels]
        twice = sorted({f"{name.value} at level {level}" for name, level in named if named.count((name, level)) > 1})
        if twice:
            raise ValueError(f"more than one rule for {', '.join(twice)}")
        return self

    def rule(self, data_class: DataClass, level: int) -> Rule:
        """The rule for a class and level. Raises RequestError if there is none."""
        for rule in self.rules:
            if rule.data_class == data_class and level in rule.levels:
                return rule
        stated = sorted(f"{rule.data_class.value} at {', '.join(map(str, rule.levels))}" for rule in self.rules)
        raise RequestError(
            f"no retention rule for {data_class!s} at level {level}; there are rules for: {'; '.join(stated)}. State one, so "
            "that it is not kept for ever."
        )


@dataclass(frozen=True)
class Kept:
    """One object that a site keeps: a record set, a subject's images, a model.

    name: a pseudonym or a number. made: the day from which its term counts. archived: whether it is archived. ends: a day on
    which it must go earlier than its rule says (consent was withdrawn, the agreement ends), with `ends_because`. hold: why it
    must not be destroyed for now (a dispute, an audit), empty if nothing stands against it.
    """

    name: str
    data_class: DataClass
    level: int
    made: date
    archived: bool = False
    ends: date | None = None
    ends_because: str = ""
    hold: str = ""

    def __post_init__(self) -> None:
        if (self.ends is None) != (not self.ends_because):
            raise RequestError("an object that ends early says on which day and why; give both, or neither.")


@dataclass(frozen=True)
class Duty:
    """What must be done with an object: the act, the day from which on, the clause, and a sentence that says why."""

    name: str
    act: Act
    day: date
    clause: str
    reason: str


def duties(objects: Iterable[Kept], schedule: Schedule) -> tuple[Duty, ...]:
    """Everything that will have to be done with `objects`, in the order of days: each archived unless it is or has no such
    term, and each destroyed. What is on hold is not destroyed: on that day its hold is to be reviewed. Raises RequestError if
    a rule is missing or two objects have one name."""
    objects = tuple(objects)
    if len({kept.name for kept in objects}) < len(objects):
        raise RequestError(
            "two objects have the same name, so that an act could be meant for either. Rename one of them."
        )
    found = [duty for kept in objects for duty in _duties(kept, schedule.rule(kept.data_class, kept.level))]
    return tuple(sorted(found, key=lambda duty: (duty.day, duty.name, duty.act)))


def due(objects: Iterable[Kept], schedule: Schedule, today: date) -> tuple[Duty, ...]:
    """What must be done by now: of each object the last of its acts whose day has come, so that nothing is archived that must
    be destroyed. The longest overdue first. Raises RequestError if a rule is missing."""
    last = {duty.name: duty for duty in duties(objects, schedule) if duty.day <= today}
    return tuple(sorted(last.values(), key=lambda duty: (duty.day, duty.name)))


def _duties(kept: Kept, rule: Rule) -> Iterable[Duty]:
    archive, destroy = CLAUSES
    end = rule.destroy_after.end(kept.made)
    because = f"Its term ended under the rule: {rule.basis}."
    if kept.ends is not None and kept.ends < end:
        end, because = kept.ends, f"It ends before its term: {kept.ends_because}."
    if rule.archive_after is not None and not kept.archived:
        day = rule.archive_after.end(kept.made)
        if day < end:
            yield Duty(kept.name, "archive", day, archive, f"Its time in daily use ended under the rule: {rule.basis}.")
    if kept.hold:
        yield Duty(kept.name, "review", end, destroy, f"{because} It is kept all the same: {kept.hold}.")
    else:
        yield Duty(kept.name, "destroy", end, destroy, because)
