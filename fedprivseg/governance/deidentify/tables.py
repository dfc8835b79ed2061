"""De-identification of tables, clause 5.2 of T/SCGS 313008-2024: entries that are made coarser, cut, covered or emptied.

Operations take a table of records (`metadata`) and give a new one; one record alone is a table of one. None stays None
everywhere. Operations that a key undoes are in `tables_keyed`, counts in `counts`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, ClassVar, final

from pydantic import Field

from fedprivseg.core.errors import RequestError
from fedprivseg.core.techniques import Technique
from fedprivseg.governance.deidentify.metadata import (
    Entry,
    Known,
    Table,
    as_day,
    as_number,
    as_text,
    changed,
    listed,
)
from fedprivseg.protections.operation import Key, Operation

OLDEST = 90
"""Ages over 89 stand in one band of 90 and over: HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C)."""

TableOperation = Operation[Table, Table]
Fields = Annotated[tuple[str, ...], Field(min_length=1, description="names of fields")]


class EntryOperation(TableOperation):
    """An operation that changes the known entries of some fields one by one."""

    @property
    @abstractmethod
    def of(self) -> tuple[str, ...]:
        """The names of these fields."""

    @abstractmethod
    def entry(self, entry: Known, field: str, key: Key) -> Entry:
        """What stands in the place of `entry`. Raises RequestError, which names the field, if it is not what it must be."""

    def apply(self, value: Table, key: Key) -> Table:
        return changed(value, self.of, lambda entry, field: self.entry(entry, field, key))


class FieldOperation(EntryOperation):
    """One that changes a single field."""

    field: str = Field(description="name of the field")

    @property
    def of(self) -> tuple[str, ...]:
        """See `EntryOperation`."""
        return (self.field,)


@final
class AgeBand(FieldOperation):
    """An age in years becomes a band such as '60-64'; from `cap` years on it is '90+'."""

    name = "age-band"
    techniques: ClassVar = (Technique.GENERALISATION,)
    guarantee = "none: see k_anonymity for how many share a band with the other fields"
    reversal = "nobody: the age within its band is gone"

    years: int = Field(default=5, ge=2, description="width of a band")
    cap: int = Field(default=OLDEST, ge=1, le=OLDEST, description="from this age on there is one band")

    def entry(self, entry: Known, field: str, key: Key) -> str:
        age = as_number(entry, field)
        if not 0 <= age < 150:
            raise RequestError(f"a record's {field!r} is no age from 0 to 150 years; correct the record.")
        if age >= self.cap:
            return f"{self.cap}+"
        first = int(age) // self.years * self.years
        return f"{first}-{min(first + self.years, self.cap) - 1}"

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.GENERALISATION} of {self.field} to bands of {self.years} years, {self.cap}+ in one"


@final
class Year(EntryOperation):
    """Dates become their year. Years before `earliest` become 'before <earliest>'.

    For dates of birth, `earliest` is the year of those who are 89 now: an earlier one would tell an age over 89.
    """

    name = "year"
    techniques: ClassVar = (Technique.GENERALISATION,)
    guarantee = "none: see k_anonymity for how many share a year with the other fields"
    reversal = "nobody: day and month are gone"

    fields: Fields
    earliest: int | None = Field(default=None, ge=1, description="the first year that is told")

    @property
    def of(self) -> tuple[str, ...]:
        return self.fields

    def entry(self, entry: Known, field: str, key: Key) -> str:
        found = as_day(entry, field)[0].year
        return f"before {self.earliest}" if self.earliest is not None and found < self.earliest else f"{found:04d}"

    def history(self, shape: tuple[int, ...] = ()) -> str:
        since = "" if self.earliest is None else f", those before {self.earliest} in one"
        return f"{Technique.GENERALISATION} of {listed(self.fields)} to years{since}"


@final
class Postcode(FieldOperation):
    """A postcode, as text, becomes its first characters. One that is not longer would stay whole, and is refused."""

    name = "postcode"
    techniques: ClassVar = (Technique.GENERALISATION,)
    guarantee = "none: few people may live in a region; HIPAA Safe Harbor wants more than 20 000 to share a prefix"
    reversal = "nobody: the rest of the postcode is gone"

    keep: int = Field(ge=1, description="characters that stay")

    def entry(self, entry: Known, field: str, key: Key) -> str:
        code = as_text(entry, field).strip()
        if len(code) <= self.keep:
            raise RequestError(f"a record's {field!r} has no more than {self.keep} characters; keep fewer.")
        return code[: self.keep]

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.GENERALISATION} of {self.field} to its first {self.keep} characters"


@final
class Truncation(FieldOperation):
    """Text is cut after some characters."""

    name = "truncation"
    techniques: ClassVar = (Technique.TRUNCATION,)
    guarantee = "none: what stays tells what it told, and shorter text stays whole"
    reversal = "nobody: what was cut off is gone"

    length: int = Field(ge=1, description="characters that stay")

    def entry(self, entry: Known, field: str, key: Key) -> str:
        return as_text(entry, field)[: self.length]

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.TRUNCATION} of {self.field} after {self.length} characters"


@final
class Masking(FieldOperation):
    """Of a text only the first and the last characters stay; '***' stands for the rest, however long it was.

    Text that is not longer than what would stay is masked as a whole.
    """

    name = "masking"
    techniques: ClassVar = (Technique.MASKING,)
    guarantee = "none: what stays tells what it told"
    reversal = "nobody: what was masked is gone"

    first: int = Field(default=0, ge=0, description="characters at the beginning that stay")
    last: int = Field(default=0, ge=0, description="characters at the end that stay")

    def entry(self, entry: Known, field: str, key: Key) -> str:
        text = as_text(entry, field)
        if len(text) <= self.first + self.last:
            return "***"
        return f"{text[: self.first]}***{text[len(text) - self.last :]}"

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.MASKING} of {self.field}, first {self.first} and last {self.last} characters stay"


@final
class NullInsertion(EntryOperation):
    """Fields become None: 'not known'."""

    name = "null-insertion"
    techniques: ClassVar = (Technique.NULL_INSERTION,)
    guarantee = "none: these fields tell nothing, and the others tell what they told"
    reversal = "nobody: what stood there is gone"

    fields: Fields

    @property
    def of(self) -> tuple[str, ...]:
        return self.fields

    def entry(self, entry: Known, field: str, key: Key) -> None:
        return None

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.NULL_INSERTION} in {listed(self.fields)}"


@final
class NumericTransform(FieldOperation):
    """Numbers v become ``gain * v + offset``; a gain above zero keeps their order."""

    name = "numeric-transform"
    techniques: ClassVar = (Technique.NUMERIC_TRANSFORM,)
    guarantee = "none: order and relative distances are told exactly"
    reversal = "anybody: the history names gain and offset, and two known numbers give them away"

    gain: float = Field(gt=0, allow_inf_nan=False, description="factor")
    offset: float = Field(allow_inf_nan=False, description="that is added")

    def entry(self, entry: Known, field: str, key: Key) -> float:
        value = self.gain * as_number(entry, field) + self.offset
        if not math.isfinite(value):
            raise RequestError(f"gain or offset take {field!r} beyond what a float holds; choose smaller ones.")
        return value

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.NUMERIC_TRANSFORM} of {self.field}: gain {self.gain:g}, offset {self.offset:g}"
