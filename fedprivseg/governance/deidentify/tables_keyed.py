"""De-identification of metadata by a secret, clause 5.2 of T/SCGS 313008-2024: what the holder of the secret undoes.

Tables are as in `deidentify_table`. Pseudonyms and date offsets follow from the site's secret and the subject's own code, so
that the same subject is treated alike in every table; orders come from a generator made from the secret.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import final

import numpy as np

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.deidentify.metadata import (
    Entry,
    Known,
    Record,
    Table,
    as_code,
    as_day,
    changed,
    listed,
    named,
    present,
)
from fedprivseg.governance.deidentify.operation import Done, Secret, whole
from fedprivseg.governance.deidentify.tables import RecordOperation
from fedprivseg.governance.policy.technique_table import Technique

PSEUDONYM_DIGITS = 16


class KeyedRecordOperation(RecordOperation):
    """An operation that the holder of its key undoes. The key is a generator made from a secret (`Secret.generator`)."""

    @abstractmethod
    def undo(self, records: Sequence[Record], generator: np.random.Generator) -> Table:
        """What `apply` was given, if `generator` is in the state in which `apply` was given it."""


def pseudonym(secret: Secret, code: str) -> str:
    """The pseudonym of `code`: the first 16 hex digits of HMAC-SHA-256 with the site's secret.

    Who does not know the secret cannot try codes out. Two of a million codes share one with a chance of 3 in 100 million.
    """
    return secret.digest("pseudonym", code).hex()[:PSEUDONYM_DIGITS]


@final
@dataclass(frozen=True)
class Substitution(RecordOperation):
    """Codes become pseudonyms, the same code always the same one (`pseudonym`)."""

    field: str
    secret: Secret

    technique = Technique.SUBSTITUTION
    guarantee = "computational: without the secret a pseudonym tells only which records are of one subject"
    reversal = "key holder: by making the pseudonyms of all codes that may be meant"

    def apply(self, records: Sequence[Record], generator: np.random.Generator) -> Done[Table]:
        """See `RecordOperation`."""
        replaced = changed(records, (self.field,), lambda entry, field: pseudonym(self.secret, as_code(entry, field)))
        line = f"{self.technique} of {self.field} by {PSEUDONYM_DIGITS} hex digits of HMAC-SHA-256, keyed"
        return Done(replaced, line)


@final
@dataclass(frozen=True)
class DateShift(RecordOperation):
    """All dates of one subject move by the same number of days, 1 to `days` to either side, so that intervals survive.

    subject: the field that says whose record it is; the offset follows from it and the secret. Dates are ``YYYY-MM-DD`` or
    ``YYYYMMDD`` and stay in their form. Apply it before the subject's code is replaced, or the offsets are other ones.
    """

    fields: tuple[str, ...]
    subject: str
    secret: Secret
    days: int = 365

    technique = Technique.RANDOM_PERTURBATION
    guarantee = "none: intervals between a subject's dates are told exactly; a known date gives the offset away"
    reversal = "key holder: exactly, with the subject's own code"

    def __post_init__(self) -> None:
        named(self.fields)
        whole(self.days, "days", 1, 3650)

    def apply(self, records: Sequence[Record], generator: np.random.Generator) -> Done[Table]:
        """See `RecordOperation`. Raises RequestError for a record without a subject, or a date that leaves the calendar."""
        line = f"{self.technique} of {listed(self.fields)} by up to {self.days} days, keyed by {self.subject}"
        return Done(self._shifted(records, 1), line)

    def undo(self, records: Sequence[Record]) -> Table:
        """The dates as they were, for records that still have the subject's own code."""
        return self._shifted(records, -1)

    def _shifted(self, records: Sequence[Record], sign: int) -> Table:
        present(records, (*self.fields, self.subject))
        return tuple(self._shifted_one(record, sign) for record in records)

    def _shifted_one(self, record: Record, sign: int) -> Record:
        offset = timedelta(days=sign * self._offset(record[self.subject]))
        return changed((record,), self.fields, lambda entry, field: _moved(entry, field, offset))[0]

    def _offset(self, subject: Entry) -> int:
        if subject is None:
            raise RequestError(
                f"a record without {self.subject!r} has no offset for its dates; leave such records out."
            )
        draw = int.from_bytes(self.secret.digest("date shift", as_code(subject, self.subject)), "big")
        # 256 bits over fewer than 2**13 values: the bias of the remainder is below 2**-240. Never zero.
        place = draw % (2 * self.days) - self.days
        return place if place < 0 else place + 1


@final
@dataclass(frozen=True)
class Permutation(KeyedRecordOperation):
    """The values of `fields` change hands among the records, together, in a keyed order; the other fields stay."""

    fields: tuple[str, ...]

    technique = Technique.PERMUTATION
    guarantee = "none: all values are told, and some may stay where they were"
    reversal = "key holder: exactly; and anybody as far as the other fields give the values away"

    def __post_init__(self) -> None:
        named(self.fields)

    def apply(self, records: Sequence[Record], generator: np.random.Generator) -> Done[Table]:
        """See `RecordOperation`."""
        moved = self._taken(records, generator.permutation(_several(records)))
        return Done(moved, f"{self.technique} of {listed(self.fields)} among the records, keyed")

    def undo(self, records: Sequence[Record], generator: np.random.Generator) -> Table:
        """See `KeyedRecordOperation`."""
        return self._taken(records, np.argsort(generator.permutation(_several(records))))

    def _taken(self, records: Sequence[Record], order: np.ndarray) -> Table:
        present(records, self.fields)
        return tuple(
            MappingProxyType(dict(record) | {field: records[place][field] for field in self.fields})
            for record, place in zip(records, order.tolist(), strict=True)
        )


@final
@dataclass(frozen=True)
class Rearrangement(KeyedRecordOperation):
    """Whole records change places in a keyed order, so that a place in the table tells nothing."""

    technique = Technique.REARRANGEMENT
    guarantee = "none: all records are told"
    reversal = "key holder: exactly"

    def apply(self, records: Sequence[Record], generator: np.random.Generator) -> Done[Table]:
        """See `RecordOperation`."""
        order = generator.permutation(_several(records)).tolist()
        return Done(tuple(_copy(records[place]) for place in order), f"{self.technique} of the records, keyed")

    def undo(self, records: Sequence[Record], generator: np.random.Generator) -> Table:
        """See `KeyedRecordOperation`."""
        order = np.argsort(generator.permutation(_several(records))).tolist()
        return tuple(_copy(records[place]) for place in order)


def _several(records: Sequence[Record]) -> int:
    if len(records) < 2:
        raise RequestError(f"{len(records)} records were given; at least two are needed for places to change.")
    return len(records)


def _copy(record: Record) -> Record:
    return MappingProxyType(dict(record))


def _moved(entry: Known, field: str, offset: timedelta) -> str:
    day, separator = as_day(entry, field)
    try:
        moved = day + offset
    except OverflowError:
        raise RequestError(
            f"a record's {field!r} would leave the calendar; shift by fewer days, or set it to None."
        ) from None
    return separator.join((f"{moved.year:04d}", f"{moved.month:02d}", f"{moved.day:02d}"))
