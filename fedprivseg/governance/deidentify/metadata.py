"""Tables of metadata: records, the checks that every operation on them makes, and what an entry may be.

A record is a mapping from field to text, number or None; a table is a sequence of records. None says 'not known'. A field
that an operation works on must stand in every record: one that went by another name would slip through.

Errors name fields, never what stands in them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from types import MappingProxyType

from fedprivseg.core.errors import RequestError

Known = str | float | int
Entry = Known | None
Record = Mapping[str, Entry]
Table = tuple[Record, ...]

_DATE = re.compile(r"(\d{4})(-?)(\d{2})\2(\d{2})", re.ASCII)


def changed(records: Sequence[Record], fields: tuple[str, ...], change: Callable[[Known, str], Entry]) -> Table:
    """New records in which every entry of `fields` that is known is ``change(entry, field)``. Raises RequestError if a record
    lacks one of them."""
    present(records, fields)

    def renewed(record: Record) -> Record:
        entries = {field: record[field] for field in fields}
        return MappingProxyType(
            dict(record) | {field: None if entry is None else change(entry, field) for field, entry in entries.items()}
        )

    return tuple(renewed(record) for record in records)


def present(records: Sequence[Record], fields: tuple[str, ...]) -> None:
    """Raises RequestError unless every record has all `fields`."""
    for field in fields:
        missing = sum(field not in record for record in records)
        if missing:
            everywhere = set.intersection(*(set(record) for record in records))
            raise RequestError(
                f"{missing} of {len(records)} records have no field {field!r}; fields of all of them are: "
                f"{listed(sorted(everywhere)) or 'none'}. Name the fields alike in every record."
            )


def as_text(entry: Known, field: str) -> str:
    """`entry` of `field`, which must be text. Raises RequestError if it is not."""
    if isinstance(entry, str):
        return entry
    raise RequestError(f"a record's {field!r} is a {type(entry).__name__}; text is needed. Convert it first.")


def as_code(entry: Known, field: str) -> str:
    """`entry` of `field` as text; 7 and '7' are the same code. Raises RequestError unless it is text or a whole number."""
    if isinstance(entry, str) or type(entry) is int:
        return str(entry)
    raise RequestError(f"a record's {field!r} is a {type(entry).__name__}; a code is text or a whole number.")


def as_number(entry: Known, field: str) -> float | int:
    """`entry` of `field`, which must be a finite number that a float holds. Raises RequestError if it is not."""
    # The comparison is exact for whole numbers of any size, and false for NaN.
    if isinstance(entry, str | bool) or not abs(entry) <= sys.float_info.max:
        raise RequestError(f"a record's {field!r} is no finite number; convert it, or set it to None.")
    return entry


def as_day(entry: Known, field: str) -> tuple[date, str]:
    """The day that `entry` of `field` names, and the separator with which it is written ('-' or none).

    Raises RequestError unless it is a day of the calendar written ``YYYY-MM-DD`` or ``YYYYMMDD``.
    """
    found = _DATE.fullmatch(entry) if isinstance(entry, str) else None
    try:
        if found is None:
            raise ValueError
        return date(int(found[1]), int(found[3]), int(found[4])), found[2]
    except ValueError:
        raise RequestError(
            f"a record's {field!r} is no day written YYYY-MM-DD or YYYYMMDD; write it so, or set it to None."
        ) from None


def listed(fields: Sequence[str]) -> str:
    """Field names as an error or a history line shows them."""
    return ", ".join(fields)
