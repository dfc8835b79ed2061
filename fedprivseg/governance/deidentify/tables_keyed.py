"""De-identification of tables by a secret, clause 5.2 of T/SCGS 313008-2024: what the holder of the secret undoes.

Pseudonyms and date offsets follow from the site's secret and the subject's own code, so that the same subject is treated alike
in every table; orders are drawn from the secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import ClassVar, final

import numpy as np
from pydantic import Field

from fedprivseg.core.errors import RequestError
from fedprivseg.core.techniques import Technique
from fedprivseg.governance.deidentify.metadata import (
    Entry,
    Known,
    Record,
    Table,
    as_code,
    as_day,
    changed,
    listed,
    present,
)
from fedprivseg.governance.deidentify.tables import FieldOperation, Fields, TableOperation
from fedprivseg.protections.operation import Key

PSEUDONYM_DIGITS = 16


def pseudonym(key: Key, code: str) -> str:
    """The pseudonym of `code`: the first 16 hex digits of its HMAC-SHA-256 with the site's secret.

    Who does not know the secret cannot try codes out. Two of a million codes share one with a chance of 3 in 100 million.
    """
    return key.digest("pseudonym", code).hex()[:PSEUDONYM_DIGITS]


@final
class Substitution(FieldOperation):
    """Codes become pseudonyms, the same code always the same one (`pseudonym`)."""

    name = "substitution"
    techniques: ClassVar = (Technique.SUBSTITUTION,)
    guarantee = "computational: without the secret a pseudonym tells only which records are of one subject"
    reversal = "key holder: by making the pseudonyms of all codes that may be meant"

    def entry(self, entry: Known, field: str, key: Key) -> str:
        return pseudonym(key, as_code(entry, field))

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.SUBSTITUTION} of {self.field} by {PSEUDONYM_DIGITS} hex digits of HMAC-SHA-256, keyed"


@final
class DateShift(TableOperation):
    """All dates of one subject move by the same number of days, 1 to `days` to either side, so that intervals survive.

    Dates are ``YYYY-MM-DD`` or ``YYYYMMDD`` and stay in their form. Apply it before the subject's code is replaced, or the
    offsets are other ones.
    """

    name = "date-shift"
    techniques: ClassVar = (Technique.RANDOM_PERTURBATION,)
    guarantee = "none: intervals between a subject's dates are told exactly; a known date gives the offset away"
    reversal = "key holder: exactly, with the subject's own code"

    fields: Fields
    subject: str = Field(
        description="the field that says whose record it is; the offset follows from it and the secret"
    )
    days: int = Field(default=365, ge=1, le=3650, description="the most that dates move")

    def apply(self, value: Table, key: Key) -> Table:
        return self._shifted(value, key, 1)

    def undo(self, value: Table, key: Key) -> Table:
        return self._shifted(value, key, -1)

    def history(self, shape: tuple[int, ...] = ()) -> str:
        keyed = f"keyed by {self.subject}"
        return f"{Technique.RANDOM_PERTURBATION} of {listed(self.fields)} by up to {self.days} days, {keyed}"

    def _shifted(self, records: Table, key: Key, sign: int) -> Table:
        present(records, (*self.fields, self.subject))

        def shifted(record: Record) -> Record:
            offset = timedelta(days=sign * self._offset(record[self.subject], key))
            return changed((record,), self.fields, lambda entry, field: _moved(entry, field, offset))[0]

        return tuple(shifted(record) for record in records)

    def _offset(self, subject: Entry, key: Key) -> int:
        if subject is None:
            raise RequestError(
                f"a record without {self.subject!r} has no offset for its dates; leave such records out."
            )
        draw = int.from_bytes(key.digest("date shift", as_code(subject, self.subject)), "big")
        # 256 bits over fewer than 2**13 values: the bias of the remainder is below 2**-240. Never zero.
        place = draw % (2 * self.days) - self.days
        return place if place < 0 else place + 1


@final
class Permutation(TableOperation):
    """The values of some fields change hands among the records, together, in a keyed order; the other fields stay."""

    name = "permutation"
    techniques: ClassVar = (Technique.PERMUTATION,)
    guarantee = "none: all values are told, and some may stay where they were"
    reversal = "key holder: exactly; and anybody as far as the other fields give the values away"

    fields: Fields

    def apply(self, value: Table, key: Key) -> Table:
        return self._taken(value, _order(value, key))

    def undo(self, value: Table, key: Key) -> Table:
        return self._taken(value, np.argsort(_order(value, key)))

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.PERMUTATION} of {listed(self.fields)} among the records, keyed"

    def _taken(self, records: Table, order: np.ndarray) -> Table:
        present(records, self.fields)
        return tuple(
            MappingProxyType(dict(record) | {field: records[place][field] for field in self.fields})
            for record, place in zip(records, order.tolist(), strict=True)
        )


@final
class Rearrangement(TableOperation):
    """Whole records change places in a keyed order, so that a place in the table tells nothing."""

    name = "rearrangement"
    techniques: ClassVar = (Technique.REARRANGEMENT,)
    guarantee = "none: all records are told"
    reversal = "key holder: exactly"

    def apply(self, value: Table, key: Key) -> Table:
        return tuple(MappingProxyType(dict(value[place])) for place in _order(value, key).tolist())

    def undo(self, value: Table, key: Key) -> Table:
        return tuple(MappingProxyType(dict(value[place])) for place in np.argsort(_order(value, key)).tolist())

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.REARRANGEMENT} of the records, keyed"


def _order(records: Sequence[Record], key: Key) -> np.ndarray:
    if len(records) < 2:
        raise RequestError(f"{len(records)} records were given; at least two are needed for places to change.")
    return key.fixed().permutation(len(records))


def _moved(entry: Known, field: str, offset: timedelta) -> str:
    day, separator = as_day(entry, field)
    try:
        moved = day + offset
    except OverflowError:
        raise RequestError(
            f"a record's {field!r} would leave the calendar; shift by fewer days, or set it to None."
        ) from None
    return separator.join((f"{moved.year:04d}", f"{moved.month:02d}", f"{moved.day:02d}"))
