"""De-identification of metadata, clause 5.2 of T/SCGS 313008-2024: one final class a technique.

Operations take a table of records (`deidentify_table`) and give a new one; one record alone is a table of one. None stays
None everywhere. Operations that a key undoes are in `deidentify_records_keyed`, counts in `deidentify_counts`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.deidentify.metadata import (
    Known,
    Record,
    Table,
    as_day,
    as_number,
    as_text,
    changed,
    listed,
    named,
)
from fedprivseg.governance.deidentify.operation import Done, Operation, finite, positive, whole
from fedprivseg.governance.policy.technique_table import Technique

OLDEST = 90
"""Ages over 89 stand in one band of 90 and over: HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C)."""


class RecordOperation(Operation):
    """An operation that makes a table of a table."""

    @abstractmethod
    def apply(self, records: Sequence[Record], generator: np.random.Generator) -> Done[Table]:
        """`records` as they may be shown, in new mappings, and what was done. Operations that draw do so from `generator`
        alone; all others leave it as it is. Raises RequestError if a field is missing or holds what it must not."""


@final
@dataclass(frozen=True)
class AgeBand(RecordOperation):
    """An age in years becomes a band of `years` such as '60-64'; from `cap` years on, at most 90, it is '90+'."""

    field: str
    years: int = 5
    cap: int = OLDEST

    technique = Technique.GENERALISATION
    guarantee = "none: see k_anonymity for how many share a band with the other fields"
    reversal = "nobody: the age within its band is gone"

    def __post_init__(self) -> None:
        whole(self.years, "years", 2)
        whole(self.cap, "cap", 1, OLDEST)

    def apply(self, records: Sequence[Record], generator: np.random.Generator) -> Done[Table]:
        """See `RecordOperation`."""
        line = f"{self.technique} of {self.field} to bands of {self.years} years, {self.cap}+ in one"
        return Done(changed(records, (self.field,), self._band), line)

    def _band(self, entry: Known, field: str) -> str:
        age = as_number(entry, field)
        if not 0 <= age < 150:
            raise RequestError(f"a record's {field!r} is no age from 0 to 150 years; correct the record.")
        if age >= self.cap:
            return f"{self.cap}+"
        first = int(age) // self.years * self.years
        return f"{first}-{min(first + self.years, self.cap) - 1}"


@final
@dataclass(frozen=True)
class Year(RecordOperation):
    """Dates become their year. Years before `earliest` become 'before <earliest>'.

    For dates of birth, `earliest` is the year of those who are 89 now: an earlier one would tell an age over 89.
    """

    fields: tuple[str, ...]
    earliest: int | None = None

    technique = Technique.GENERALISATION
    guarantee = "none: see k_anonymity for how many share a year with the other fields"
    reversal = "nobody: day and month are gone"

    def __post_init__(self) -> None:
        named(self.fields)
        if self.earliest is not None:
            whole(self.earliest, "earliest", 1)

    def apply(self, records: Sequence[Record], generator: np.random.Generator) -> Done[Table]:
        """See `RecordOperation`."""

        since = "" if self.earliest is None else f", those before {self.earliest} in one"
        return Done(
            changed(records, self.fields, self._year), f"{self.technique} of {listed(self.fields)} to years{since}"
        )

    def _year(self, entry: Known, field: str) -> str:
        found = as_day(entry, field)[0].year
        return f"before {self.earliest}" if self.earliest is not None and found < self.earliest else f"{found:04d}"


@final
@dataclass(frozen=True)
class Postcode(RecordOperation):
    """A postcode, as text, becomes its first `keep` characters."""

    field: str
    keep: int

    technique = Technique.GENERALISATION
    guarantee = "none: few people may live in a region; HIPAA Safe Harbor wants more than 20 000 to share a prefix"
    reversal = "nobody: the rest of the postcode is gone"

    def __post_init__(self) -> None:
        whole(self.keep, "keep", 1)

    def apply(self, records: Sequence[Record], generator: np.random.Generator) -> Done[Table]:
        """See `RecordOperation`. A postcode that is not longer than `keep` would stay whole, and is refused."""
        line = f"{self.technique} of {self.field} to its first {self.keep} characters"
        return Done(changed(records, (self.field,), self._prefix), line)

    def _prefix(self, entry: Known, field: str) -> str:
        code = as_text(entry, field).strip()
        if len(code) <= self.keep:
            raise RequestError(f"a record's {field!r} has no more than {self.keep} characters; keep fewer.")
        return code[: self.keep]


@final
@dataclass(frozen=True)
class Truncation(RecordOperation):
    """Text is cut after `length` characters."""

    field: str
    length: int

    technique = Technique.TRUNCATION
    guarantee = "none: what stays tells what it told, and shorter text stays whole"
    reversal = "nobody: what was cut off is gone"

    def __post_init__(self) -> None:
        whole(self.length, "length", 1)

    def apply(self, records: Sequence[Record], generator: np.random.Generator) -> Done[Table]:
        """See `RecordOperation`."""
        cut = changed(records, (self.field,), lambda entry, field: as_text(entry, field)[: self.length])
        return Done(cut, f"{self.technique} of {self.field} after {self.length} characters")


@final
@dataclass(frozen=True)
class Masking(RecordOperation):
    """Of a text only the first `first` and the last `last` characters stay; '***' stands for the rest, however long it was.

    Text that is not longer than what would stay is masked as a whole.
    """

    field: str
    first: int = 0
    last: int = 0

    technique = Technique.MASKING
    guarantee = "none: what stays tells what it told"
    reversal = "nobody: what was masked is gone"

    def __post_init__(self) -> None:
        whole(self.first, "first", 0)
        whole(self.last, "last", 0)

    def apply(self, records: Sequence[Record], generator: np.random.Generator) -> Done[Table]:
        """See `RecordOperation`."""
        line = f"{self.technique} of {self.field}, first {self.first} and last {self.last} characters stay"
        return Done(changed(records, (self.field,), self._masked), line)

    def _masked(self, entry: Known, field: str) -> str:
        text = as_text(entry, field)
        if len(text) <= self.first + self.last:
            return "***"
        return f"{text[: self.first]}***{text[len(text) - self.last :]}"


@final
@dataclass(frozen=True)
class NullInsertion(RecordOperation):
    """Fields become None: 'not known'."""

    fields: tuple[str, ...]

    technique = Technique.NULL_INSERTION
    guarantee = "none: these fields tell nothing, and the others tell what they told"
    reversal = "nobody: what stood there is gone"

    def __post_init__(self) -> None:
        named(self.fields)

    def apply(self, records: Sequence[Record], generator: np.random.Generator) -> Done[Table]:
        """See `RecordOperation`."""
        emptied = changed(records, self.fields, lambda entry, field: None)
        return Done(emptied, f"{self.technique} in {listed(self.fields)}")


@final
@dataclass(frozen=True)
class NumericTransform(RecordOperation):
    """Numbers v become ``gain * v + offset``; a gain above zero keeps their order."""

    field: str
    gain: float
    offset: float

    technique = Technique.NUMERIC_TRANSFORM
    guarantee = "none: order and relative distances are told exactly"
    reversal = "anybody: the history names gain and offset, and two known numbers give them away"

    def __post_init__(self) -> None:
        positive(self.gain, "gain")
        finite(self.offset, "offset")

    def apply(self, records: Sequence[Record], generator: np.random.Generator) -> Done[Table]:
        """See `RecordOperation`."""
        line = f"{self.technique} of {self.field}: gain {self.gain:g}, offset {self.offset:g}"
        return Done(changed(records, (self.field,), self._transformed), line)

    def _transformed(self, entry: Known, field: str) -> float:
        value = self.gain * as_number(entry, field) + self.offset
        if not math.isfinite(value):
            raise RequestError(f"gain or offset take {field!r} beyond what a float holds; choose smaller ones.")
        return value
