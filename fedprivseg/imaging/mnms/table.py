"""The table of a release: CSV as people and spreadsheets save it.

What varies is found out from the file: the encoding (UTF-8 with or without a byte order mark, UTF-16, or Windows' Western
code page), the delimiter (comma, semicolon or tab), and the case of the column names. What cannot be told is refused in a
sentence that says what was seen: a table that is read in a wrong way would exchange subjects, frames or diseases.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TABLE = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
COLUMNS = ("External code", "VendorName", "Centre", "ED", "ES")
"""The columns without which a table is not the table of a release."""

OPTIONAL = ("Sex", "Pathology")
"""Columns that are read if they are there; no others are."""

SUFFIXES = (".csv", ".tsv", ".txt")
"""How the name of a table ends, in any case."""

DELIMITERS: Mapping[str, str] = {",": "a comma", ";": "a semicolon", "\t": "a tab"}

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_NOT_WESTERN = re.compile(rb"[\x80-\xff]{3}")  # Western words have letters beyond ASCII one at a time, seldom two
_SEP = re.compile(r"sep=(.)\s*")  # Excel's own first line


class NoTable(Exception):
    """A file is not the table of a release. Its text says what was seen instead; it names columns and no cell."""


@dataclass(frozen=True)
class Table:
    """The rows of a release's table.

    Attributes:
        path: The file.
        rows: One mapping a subject, from the names of `COLUMNS` and of those of `OPTIONAL` that are there to cells without
            blanks around them.
        overlong: Places in `rows` whose line has more cells than there are columns: some cell holds a bare delimiter.
        guessed: The first cell beyond ASCII of a file whose encoding nothing tells; it was read as cp1252. Else empty.
    """

    path: Path
    rows: tuple[Mapping[str, str], ...]
    overlong: frozenset[int]
    guessed: str


def read_table(path: Path) -> Table:
    """The table in the file `path`.

    Raises:
        NoTable: Encoding or columns are not those of a table, or a column that is read stands there twice.
        OSError: The file cannot be read.
    """
    text, encoding = _decoded(path.read_bytes())
    stated = _SEP.match(text)
    if stated:
        text = text[stated.end() :]
    delimiters = [stated[1]] if stated else list(DELIMITERS)
    try:
        headers = {each: next(_lines(text, each), []) for each in delimiters}
        delimiter = max(delimiters, key=lambda each: len(_known(headers[each])))
        first, *lines = list(_lines(text, delimiter)) or [[]]
    except (csv.Error, TypeError, ValueError) as fault:
        raise NoTable(f"read as {encoding}, it is no CSV ({fault})") from None
    header = [_plain(name) for name in first]
    seen = f"read as {encoding} with {DELIMITERS.get(delimiter, repr(delimiter))} between cells"
    if missing := [name for name in COLUMNS if _plain(name) not in header]:
        shown = ", ".join(ascii(name)[1:-1][:32] for name in first[:12])
        raise NoTable(f"{seen}, it lacks the columns {', '.join(missing)}; its first line is: {shown or 'empty'}")
    times = Counter(header)
    if repeated := [name for name in (*COLUMNS, *OPTIONAL) if times[_plain(name)] > 1]:
        raise NoTable(
            f"{seen}, it has more than one column {' and '.join(repeated)}; nothing tells which counts, so keep one of each"
        )
    places = {name: header.index(_plain(name)) for name in (*COLUMNS, *OPTIONAL) if _plain(name) in header}
    cells = [[cell.strip() for cell in line] for line in lines if any(cell.strip() for cell in line)]
    rows = tuple({name: line[place] if place < len(line) else "" for name, place in places.items()} for line in cells)
    overlong = frozenset(at for at, line in enumerate(cells) if any(line[len(header) :]))
    beyond = "" if encoding != "cp1252" else next((c for line in cells for c in line if not c.isascii()), "a column")
    return Table(path, rows, overlong, beyond)


def _decoded(body: bytes) -> tuple[str, str]:
    """The text of a file and the encoding in which it was read. Raises NoTable."""
    encoding = next((name for mark, name in _MARKS if body.startswith(mark)), "")
    if not encoding:  # UTF-16 without its mark: the other byte of nearly every character is 0
        halves = {name: body[start::2].count(0) for name, start in (("utf-16-le", 1), ("utf-16-be", 0))}
        likely = max(halves, key=lambda name: halves[name])
        encoding = likely if halves[likely] * 4 > len(body) else "utf-8"
    try:
        return body.decode(encoding), encoding.removesuffix("-sig")
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise NoTable(f"it begins like {encoding.removesuffix('-sig')} and is not; save it as UTF-8") from None
    try:
        if not _NOT_WESTERN.search(body):
            return body.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        pass  # refused below, as text that is plainly not Western is
    raise NoTable("its encoding is none of UTF-8, UTF-16 and cp1252; save it as UTF-8")


def _lines(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _plain(name: str) -> str:
    """A column's name as it is compared."""
    return " ".join(name.split()).casefold()


def _known(header: list[str]) -> set[str]:
    return {_plain(name) for name in COLUMNS} & {_plain(name) for name in header}
