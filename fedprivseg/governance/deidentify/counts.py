"""Counts in place of records, and how many records share what could tell a person: k-anonymity.

Clause 5.2 of T/SCGS 313008-2024 advises statistics where utility and confidentiality are low. Tables are as in
`deidentify_table`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.deidentify.metadata import Entry, Record, listed, named, present
from fedprivseg.governance.deidentify.operation import Done, Operation, whole
from fedprivseg.governance.policy.technique_table import Technique

Key = tuple[tuple[str, Entry], ...]


def k_anonymity(records: Sequence[Record], quasi_identifiers: tuple[str, ...]) -> int:
    """The size of the smallest group of records that agree in all `quasi_identifiers` (Sweeney, IJUFKS 10:557, 2002).

    Values of different types differ (1 is not 1.0), so the answer is rather too small than too large. Raises RequestError
    without records or without quasi-identifiers, because any answer would then sound like a promise.
    """
    named(quasi_identifiers)
    if not records:
        raise RequestError("no records were given; k-anonymity is a property of at least one.")
    return min(_groups(records, quasi_identifiers).values())


@dataclass(frozen=True)
class Counts:
    """Statistics in place of records. groups: the values of `fields` and how many records have them, none fewer than the `k`
    asked for, in an order that tells nothing. complete: whether no group was left out. How many records were left out is not
    told: that would give away the size of a single small group."""

    fields: tuple[str, ...]
    groups: tuple[tuple[tuple[Entry, ...], int], ...]
    complete: bool


@final
@dataclass(frozen=True)
class Statistics(Operation):
    """Replaces records by the counts of what stands in `fields`; groups of fewer than `k` records are left out."""

    fields: tuple[str, ...]
    k: int = 5

    technique = Technique.STATISTICS
    guarantee = (
        "none: every count is over at least k records, but two tables of nearly the same people differ by one person"
    )
    reversal = "nobody: which record had which value is gone"

    def __post_init__(self) -> None:
        named(self.fields)
        whole(self.k, "k", 2)

    def apply(self, records: Sequence[Record]) -> Done[Counts]:
        """The counts of `records`, and what was done. Raises RequestError if a field is missing."""
        sizes = _groups(records, self.fields)
        shown = sorted(((key, size) for key, size in sizes.items() if size >= self.k), key=repr)
        groups = tuple((tuple(entry for _, entry in key), size) for key, size in shown)
        counts = Counts(self.fields, groups, complete=len(shown) == len(sizes))
        return Done(counts, f"{self.technique}: counts of {listed(self.fields)}, groups under {self.k} left out")


def _groups(records: Sequence[Record], fields: tuple[str, ...]) -> Counter[Key]:
    """How many records agree in `fields`. An entry is told apart by its type too; NaN agrees with NaN."""
    present(records, fields)
    groups: Counter[Key] = Counter()
    for record in records:
        groups[tuple((type(entry).__name__, _comparable(entry)) for entry in (record[field] for field in fields))] += 1
    return groups


def _comparable(entry: Entry) -> Entry:
    return "nan" if isinstance(entry, float) and entry != entry else entry
