"""Counts in place of records, and how many records share what could tell a person: k-anonymity.

Clause 5.2 of T/SCGS 313008-2024 advises statistics where utility and confidentiality are low. Tables are as in
`metadata`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from pydantic import Field

from fedprivseg.core.errors import RequestError
from fedprivseg.core.techniques import Technique
from fedprivseg.governance.deidentify.metadata import Entry, Record, Table, listed, present
from fedprivseg.governance.deidentify.tables import Fields
from fedprivseg.protections.operation import Key, Operation

Group = tuple[tuple[str, Entry], ...]


def k_anonymity(records: Sequence[Record], quasi_identifiers: tuple[str, ...]) -> int:
    """The size of the smallest group of records that agree in all `quasi_identifiers` (Sweeney, IJUFKS 10:557, 2002).

    Values of different types differ (1 is not 1.0), so the answer is rather too small than too large. Raises RequestError
    without records or without quasi-identifiers, because any answer would then sound like a promise.
    """
    if not records or not quasi_identifiers:
        raise RequestError("k-anonymity is a property of at least one record in at least one field; none was given.")
    return min(_groups(records, quasi_identifiers).values())


@dataclass(frozen=True)
class Counts:
    """Statistics in place of records.

    How many records were left out is not told: that would give away the size of a single small group.

    Attributes:
        groups: the values of `fields` and how many records have them, none fewer than the `k` asked for, in an order that tells
            nothing.
        complete: whether no group was left out.
    """

    fields: tuple[str, ...]
    groups: tuple[tuple[tuple[Entry, ...], int], ...]
    complete: bool


@final
class Statistics(Operation[Table, Counts]):
    """Replaces records by the counts of what stands in some fields; groups of fewer than `k` records are left out."""

    name = "statistics"
    techniques: ClassVar = (Technique.STATISTICS,)
    guarantee = (
        "none: every count is over at least k records, but two tables of nearly the same people differ by one person"
    )
    reversal = "nobody: which record had which value is gone"

    fields: Fields
    k: int = Field(default=5, ge=2, description="the smallest group that is told")

    def apply(self, value: Table, key: Key) -> Counts:
        sizes = _groups(value, self.fields)
        shown = sorted(((group, size) for group, size in sizes.items() if size >= self.k), key=repr)
        groups = tuple((tuple(entry for _, entry in group), size) for group, size in shown)
        return Counts(self.fields, groups, complete=len(shown) == len(sizes))

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.STATISTICS}: counts of {listed(self.fields)}, groups under {self.k} left out"


def _groups(records: Sequence[Record], fields: tuple[str, ...]) -> Counter[Group]:
    """How many records agree in `fields`. Entries of different types differ; NaN agrees with NaN."""
    present(records, fields)
    groups: Counter[Group] = Counter()
    for record in records:
        groups[tuple((type(entry).__name__, _comparable(entry)) for entry in (record[field] for field in fields))] += 1
    return groups


def _comparable(entry: Entry) -> Entry:
    return "nan" if isinstance(entry, float) and entry != entry else entry
