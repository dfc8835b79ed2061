"""The table as people save it: read for what it is, or refused with what was seen; never read in a wrong way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fedprivseg.imaging.mnms.table import NoTable, read_table

HEADER = ["", "External code", "VendorName", "Vendor", "Centre", "ED", "ES", "Age", "Pathology", "Sex"]
ROWS = [
    ["0", "A1B2", "Siemens", "A", "1", "0", "9", "61", "Myokarditis (Löffler)", "F"],
    ["1", "C3", "Philips", "B", "2", "1", "8", "", "HCM, apical", "M"],
]
READ = [
    {"External code": "A1B2", "VendorName": "Siemens", "Centre": "1", "ED": "0", "ES": "9", "Sex": "F",
     "Pathology": "Myokarditis (Löffler)"},
    {"External code": "C3", "VendorName": "Philips", "Centre": "2", "ED": "1", "ES": "8", "Sex": "M",
     "Pathology": "HCM, apical"},
]  # fmt: skip


def text(delimiter: str, header: list[str] = HEADER) -> str:
    quoted = [[f'"{cell}"' if delimiter in cell else cell for cell in row] for row in (header, *ROWS)]
    return "\r\n".join(delimiter.join(row) for row in quoted)


def read(folder: Path, body: bytes):
    (folder / "table.csv").write_bytes(body)
    return read_table(folder / "table.csv")


def refusal(folder: Path, body: bytes) -> str:
    with pytest.raises(NoTable) as caught:
        read(folder, body)
    return str(caught.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_every_encoding_with_every_delimiter_gives_the_same_rows(tmp_path, encoding, delimiter):
    table = read(tmp_path, text(delimiter).encode(encoding))
    assert [dict(row) for row in table.rows] == READ
    assert table.guessed == ("Myokarditis (Löffler)" if encoding == "cp1252" else "")
    assert not table.overlong


@pytest.mark.parametrize("change", [str.lower, str.upper, lambda name: f"  {name.replace(' ', '   ')} "])
def test_names_of_columns_in_any_case_and_with_blanks(tmp_path, change: Callable[[str], str]):
    table = read(tmp_path, text(",", [change(name) for name in HEADER]).encode())
    assert [dict(row) for row in table.rows] == READ


def test_excel_says_its_delimiter_in_a_line_of_its_own(tmp_path):
    assert [dict(row) for row in read(tmp_path, ("sep=;\r\n" + text(";")).encode()).rows] == READ
    assert [dict(row) for row in read(tmp_path, ("sep=|\r\n" + text("|")).encode()).rows] == READ


def test_ascii_is_no_guess(tmp_path):
    assert read(tmp_path, text(",").replace("ö", "oe").encode()).guessed == ""


@pytest.mark.parametrize("again", ["ED", "es", " Centre", "External  code", "vendorname", "Pathology", "sex"])
def test_a_column_that_is_read_stands_there_once(tmp_path, again):
    """The last one won: with ED and ES appended in the other order, the two were exchanged."""
    said = refusal(tmp_path, text(",", [*HEADER, again]).encode())
    assert " ".join(again.split()).casefold() in said.casefold()
    assert "more than one column" in said


def test_a_column_that_is_not_read_may_stand_there_twice(tmp_path):
    assert len(read(tmp_path, text(",", ["Vendor", *HEADER[1:]]).encode()).rows) == 2


def test_what_lacks_is_said_with_what_was_seen(tmp_path):
    said = refusal(tmp_path, b"External code;Centre;\xd6ffnung\r\nC3;1;2\r\n")
    assert said == (
        "read as cp1252 with a semicolon between cells, it lacks the columns VendorName, ED, ES; its first line is: "
        "External code, Centre, \\xd6ffnung"
    )
    assert "its first line is: empty" in refusal(tmp_path, b"")


def test_an_encoding_that_cannot_be_told_is_refused(tmp_path):
    """Read as cp1252 these would be tables too, with every disease spelt in nonsense."""
    chinese, russian = text(",").replace("Löffler", "心肌病"), text(",").replace("Löffler", "миокардит")
    for body in (chinese.encode("gb18030"), russian.encode("cp1251"), b"\xff\xfe\x00\x01\x00", b"\x81,\x8d"):
        assert "save it as UTF-8" in refusal(tmp_path, body)


def test_rows_with_a_bare_delimiter_are_known(tmp_path):
    body = text(",").replace('"HCM, apical"', "HCM, apical").encode()
    assert read(tmp_path, body).overlong == {1}
    empty_tail = text(",").replace('apical",M', 'apical",M,,,').encode()
    assert not read(tmp_path, empty_tail).overlong


def test_empty_lines_are_no_rows_and_short_ones_lack_their_tail(tmp_path):
    body = text(",") + "\r\n\r\n,,,,\r\n2,D4,GE,C,4,0,3\r\n"
    rows = read(tmp_path, body.encode()).rows
    assert [row["External code"] for row in rows] == ["A1B2", "C3", "D4"]
    assert (rows[2]["ES"], rows[2]["Sex"]) == ("3", "")
