"""What a request for access states and what an approval grants (T/SCGS 313008-2024 clauses 5.6.2-a, 5.6.2-b)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, field_validator

from fedprivseg.core.model import Frozen
from fedprivseg.governance.access.roles import MOST_CHARACTERS, MOST_MEMBERS, Action, Granularity

LONGEST_DAYS = 1826
"""Five years: the longest term that can be asked for. The standard names none; this one is ours."""

Id = Annotated[str, StringConstraints(min_length=1, max_length=MOST_CHARACTERS)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=10, max_length=2000)]
_Item = TypeVar("_Item")


class Limit(StrEnum):
    """What an approval ties the use to. The first two are the least (5.6.2-b)."""

    DE_IDENTIFICATION = "de-identification"
    ACCESS_CONTROL = "access-control"
    NO_COPIES = "no-copies"
    ENCRYPTED_STORAGE = "encrypted-storage"
    DESTRUCTION_AT_END = "destruction-at-end"


LEAST_LIMITS = frozenset({Limit.DE_IDENTIFICATION, Limit.ACCESS_CONTROL})


class Stated(Frozen):
    """A record of what somebody wrote. Its ValidationError does not repeat that: it may be about patients."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)


class Range(Stated):
    """The data that a request is about.

    Attributes:
        sources: collections.
        level: the highest, 1 to 3 (clause 5.5).
        granularities: in which detail.
        uses: what is done with it.
    """

    sources: tuple[Id, ...] = Field(min_length=1, max_length=MOST_MEMBERS)
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


class Application(Stated):
    """What the applicant states (5.6.2-a); each text in a sentence or more.

    Attributes:
        title: of the study.
        range: the data.
        scenario: for what and where it is used.
        logic: how it is used.
        effect: on personal information.
        days: the term that is asked for.
        members: ids of the project group, beside the applicant.
    """

    title: Text
    range: Range
    scenario: Text
    logic: Text
    effect: Text
    days: int = Field(ge=1, le=LONGEST_DAYS)
    members: tuple[Id, ...] = Field(default=(), max_length=MOST_MEMBERS)

    @field_validator("members")
    @classmethod
    def _sorted(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(values)


class Approval(Stated):
    """What the reviewer grants (5.6.2-b).

    Attributes:
        range: the data.
        days: the term, from the moment of approval.
        limits: at least de-identification and access control.
    """

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


def _each_once(values: tuple[_Item, ...]) -> tuple[_Item, ...]:
    # In one order, without repetition: what says the same is the same line.
    return tuple(sorted(set(values), key=str))
