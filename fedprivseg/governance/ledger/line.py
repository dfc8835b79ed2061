"""One line of a ledger, as it stands in the file and as everything above reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from fedprivseg.core.errors import LedgerError
from fedprivseg.crypto.identity import SiteKey, canonical, verify
from fedprivseg.governance.ledger.format import CURRENT, Fact, in_todays_words

ZEROS = "0" * 64
"""What stands as the hash of the line before the first."""

NEXT = "Keep the files as they are, as evidence, and compare them with a backup."

_FIELDS = MappingProxyType(
    {"index": int, "time": str, "site": str, "event": str, "facts": dict, "previous": str, "signature": str}
)


@dataclass(frozen=True)
class Line:
    """One line of a ledger, in today's words whatever its format.

    Attributes:
        index: from 0.
        time: UTC, ISO 8601.
        facts: by name.
        previous: hash of the line before, 64 zeros for the first.
        signature: Ed25519 (hex), over the line as it was written.
        hash: SHA-256 of the bytes of the line, without its newline.
    """

    index: int
    time: str
    site: str
    event: str
    facts: Mapping[str, Fact]
    previous: str
    signature: str
    hash: str


def signed_line(key: SiteKey, fields: Mapping[str, Any]) -> tuple[bytes, Line]:
    """The bytes of a line of today's format with `fields`, signed with `key`, without a newline; and the line in them."""
    content = {**fields, "format": CURRENT}
    signature = key.sign(canonical(content)).hex()
    raw = canonical({**content, "signature": signature})
    facts = MappingProxyType(dict(fields["facts"]))
    return raw, Line(**{**fields, "facts": facts}, signature=signature, hash=digest_of(raw))


def parse(raw: bytes) -> Line:
    """The line in `raw` (no newline). Raises ValueError unless it is exactly what a ledger writes, to the byte."""
    return _line(raw, _fields(raw))


def parse_signed(raw: bytes, public_hex: str) -> Line | None:
    """The line in `raw` (no newline); None if its signature does not fit its bytes and the key. Raises ValueError as
    `parse`."""
    fields = _fields(raw)
    content = {name: value for name, value in fields.items() if name != "signature"}
    return _line(raw, fields) if verify(public_hex, canonical(content), bytes.fromhex(fields["signature"])) else None


def _fields(raw: bytes) -> dict[str, Any]:
    fields = json.loads(raw)
    if not isinstance(fields, dict) or fields.keys() - {"format"} != _FIELDS.keys():
        raise ValueError(f"its fields are not {', '.join(_FIELDS)}")
    if any(type(fields[name]) is not kind for name, kind in _FIELDS.items()):
        raise ValueError("a field has the wrong type")
    if "format" in fields and (type(fields["format"]) is not int or fields["format"] != CURRENT):
        raise ValueError(f"it is of a format that this release does not read; it reads 1 to {CURRENT}")
    # Spaces, escapes, doubled keys or capital hex digits parse to the same values but are not what was written.
    if canonical(fields) != raw or bytes.fromhex(fields["signature"]).hex() != fields["signature"]:
        raise ValueError("not in canonical form")
    return fields


def _line(raw: bytes, fields: Mapping[str, Any]) -> Line:
    event, facts = fields["event"], fields["facts"]
    if "format" not in fields:
        event, facts = in_todays_words(event, facts)
    own = {name: fields[name] for name in ("index", "time", "site", "previous", "signature")}
    return Line(**own, event=event, facts=MappingProxyType(facts), hash=digest_of(raw))


def raw_lines(path: Path) -> Iterator[bytes]:
    """The bytes of each line, newline included. Raises LedgerError if the file cannot be read."""
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as fault:
        raise LedgerError(unusable(path, "read", fault)) from None


def digest_of(raw: bytes) -> str:
    """SHA-256 (hex) of a line's bytes."""
    return hashlib.sha256(raw).hexdigest()


@contextmanager
def parsing(path: Path, number: int, verb: str) -> Iterator[None]:
    """A block that parses line `number` (from 1); what is wrong with the line is raised as LedgerError, without its text."""
    try:
        yield
    except (ValueError, RecursionError) as fault:
        bad_json = isinstance(fault, json.JSONDecodeError | UnicodeDecodeError | RecursionError)
        fail(path, number, f"{verb} no ledger line ({'bad JSON' if bad_json else fault})")


def fail(path: Path, number: int, reason: str) -> NoReturn:
    """Raise the LedgerError about line `number` (from 1), named by its index as whatever refers to one names it."""
    raise LedgerError(f"line {number - 1} of {path.name} {reason}. {NEXT}") from None


def unusable(path: Path, verb: str, fault: OSError) -> str:
    """The message for a ledger that could not be `verb`."""
    return (
        f"the ledger {path.name} could not be {verb} ({fault.strerror or type(fault).__name__}). "
        "Check its folder, its owner and the free space, then open it again."
    )
