"""A site's ledger: one signed JSON line for everything that left or was refused, each chained to the line before.

A line holds ``index`` (from 0), ``time`` (UTC, ISO 8601), ``site``, ``event``, ``facts``, ``previous`` (SHA-256 of the
bytes of the line before, without the newline; 64 zeros for the first) and ``signature`` (Ed25519, over the canonical
JSON of the other fields). The first line carries the public key. Beside the ledger stands a small signed file,
``<ledger>.head``: how many lines there are and the hash of the last one. It shows lines removed at the end, which a
chain alone cannot.

A line and the head are two writes, so a process killed in between leaves a ledger one line ahead of its head. That, and
a last line without its newline, are the only irregularities that are accepted; both are said, neither is silent.

What a ledger cannot show by itself: the ledger and its head put back together to an earlier state, or written anew by
the holder of the key. Whoever keeps its head elsewhere sees both: a site and the server keep each other's (`witness`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, final

from fedprivseg.core.errors import LedgerError
from fedprivseg.core.files import sync_folder, write_durably
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto import identity
from fedprivseg.crypto.identity import SiteKey, canonical

EVENTS = (
    "access",
    "archive",
    "backup",
    "close",
    "destruction",
    "error",
    "intake",
    "key",
    "open",
    "receipt",
    "recovery",
    "refusal",
    "release",
    "storage",
    "withdrawal",
)
"""What a line can tell. Only the ledger itself writes ``key`` (its first line) and ``recovery`` (a torn line put
aside)."""

SUBJECTS = "subjects"
"""The fact of a release or a refusal that lists the pseudonyms of those whose data the payload was made of."""

SIDES = ("train", "test")
"""The facts of an intake line that list those who were taken in: nothing that is released after it is made of anybody else."""

OWN_EVENTS = ("key", "recovery")
ZEROS = "0" * 64
FORMAT = "fedprivseg ledger 1"
_WAITING = ".waiting"  # ends the name of a torn line's file until its recovery line is written
_OTHER_BYTES = "was changed: what was written after it was written after other bytes"
_NEXT = "Keep the files as they are, as evidence, and compare them with a backup."

Fact = str | int | list[Any]


@dataclass(frozen=True)
class Line:
    """One line of a ledger. index: from 0. time: UTC, ISO 8601. hash: SHA-256 of its bytes."""

    index: int
    time: str
    site: str
    event: str
    facts: Mapping[str, Fact]
    previous: str
    signature: str
    hash: str


@dataclass(frozen=True)
class Verified:
    """A ledger that holds. lines: how many. head: hash of the last line. notes: traces of a kill, in sentences."""

    lines: int
    head: str
    public_hex: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Total:
    """How many lines of one sort, and the sum of their payloads in bytes."""

    lines: int
    size: int


@dataclass(frozen=True)
class _Head:
    """The signed content of the head file: `lines` were written, the last one hashes to `hash`."""

    site: str
    lines: int
    hash: str


@final
class Ledger:
    """The ledger of one site, open for appending. One process writes it at a time; a second writer is noticed.

    Opening reads the file once but checks only its end against the head; `verify` checks every line.
    """

    def __init__(self, path: Path, key: SiteKey, site: str) -> None:
        """Open the ledger at `path`, or begin it with a ``key`` line; its folder must exist.

        A torn last line is moved to ``<ledger>.torn-<hash>`` and a ``recovery`` line records its SHA-256.
        Raises LedgerError if the ledger cannot be read or written, is another site's or key's, or disagrees with its
        head.
        """
        self.path = path
        self.site = site
        self.public_hex = key.public_hex
        self._key = key
        self._sound = True
        self._lines, self._last, self._size = 0, ZEROS, 0
        try:
            self._resume()
        except OSError as fault:
            raise LedgerError(_unusable(path, "opened", fault)) from None

    def append(self, event: str, facts: Mapping[str, Fact]) -> Line:
        """Write one line to the disk (flush and fsync) and return it.

        `event` is one of EVENTS but not the ledger's own; `facts` hold text, whole numbers and lists of these.
        Raises LedgerError if the line is not such, or could not be written; then the ledger must be opened again.
        """
        allowed = [name for name in EVENTS if name not in OWN_EVENTS]
        if event not in allowed:
            raise LedgerError(f"a ledger has no event {event!r} to append; allowed: {', '.join(allowed)}.")
        return self._append(event, facts)

    def _append(self, event: str, facts: Mapping[str, Fact]) -> Line:
        if not self._sound:
            raise LedgerError(f"an earlier write to {self.path.name} failed. Open the ledger again before appending.")
        unfit = sorted(name for name, fact in facts.items() if not _is_fact(fact))
        if unfit:
            raise LedgerError(f"facts are text, whole numbers or lists of these; not so: {', '.join(unfit)}.")
        fields = {
            "index": self._lines,
            "time": datetime.now(UTC).isoformat(timespec="microseconds"),
            "site": self.site,
            "event": event,
            "facts": dict(facts),
            "previous": self._last,
        }
        raw = canonical({**fields, "signature": self._key.sign(canonical(fields)).hex()})
        line = _parse(raw)
        # Unsound until both writes are done: a second line over a stale head would look like tampering.
        self._sound = False
        try:
            _write_line(self.path, raw + b"\n", expected=self._size)
            self._lines, self._last, self._size = self._lines + 1, line.hash, self._size + len(raw) + 1
            self._write_head()
        except OSError as fault:
            raise LedgerError(_unusable(self.path, "written", fault)) from None
        self._sound = True
        return line

    def head(self) -> str:
        """How many lines there are and the hash of the last, signed: what others are shown (`witness.Checkpoint`)."""
        head = asdict(_Head(self.site, self._lines, self._last))
        return canonical({**head, "signature": self._key.sign(canonical(head)).hex()}).decode("ascii")

    def _write_head(self) -> None:
        write_durably(_head_path(self.path), [self.head().encode("ascii") + b"\n"])

    def _resume(self) -> None:
        """Take up the chain where it ended, or begin it. The head comes first, so a ledger never lacks one."""
        if not _head_path(self.path).exists() and not self.path.exists():
            self._write_head()
        head = _read_head(self.path, self.public_hex)
        if head.site != self.site:
            raise LedgerError(f"{self.path.name} is the ledger of {head.site!r}, not of {self.site!r}. Open your own.")
        torn = b""
        if self.path.exists():
            before, last = b"", b""
            for raw in _raw_lines(self.path):
                if raw.endswith(b"\n"):
                    before, last = last, raw[:-1]
                    self._lines, self._size = self._lines + 1, self._size + len(raw)
                else:
                    torn = raw
            if self._lines:
                self._last = _hash(last)
            _check_end(self.path, head, self._lines, self._last, before, torn)
            if self._lines > head.lines:
                ahead = _check_line(self.path, last, head.lines, self.site, self.public_hex)
                if ahead.previous != head.hash:
                    _fault(self.path, max(head.lines, 1), _OTHER_BYTES)
                self._write_head()
        elif head.lines:
            _fault(self.path, 1, f"is missing: the file is gone, and its head counts {head.lines} lines")
        if torn:
            write_durably(self.path.with_name(f"{self.path.name}.torn-{_hash(torn)[:16]}{_WAITING}"), [torn])
            os.truncate(self.path, self._size)
        if not self._lines:
            self._append("key", {"format": FORMAT, "public_key": self.public_hex})
        for torn_path in sorted(self.path.parent.iterdir()):
            if torn_path.name.startswith(f"{self.path.name}.torn-") and torn_path.name.endswith(_WAITING):
                self._record_torn(torn_path)

    def _record_torn(self, waiting: Path) -> None:
        """Record the torn line in `waiting`. If killed before the file is renamed, the next opening does it again."""
        torn = waiting.read_bytes()
        kept = waiting.with_name(waiting.name.removesuffix(_WAITING))
        self._append("recovery", {"sha256": _hash(torn), "bytes": len(torn), "file": kept.name})
        os.replace(waiting, kept)


def verify(path: Path, *, public_hex: str | None = None) -> Verified:
    """Check every line of the ledger at `path`, and its end against the head file.

    `public_hex` is the key the site is known by; None trusts the key in the first line, which shows that the ledger is
    whole but not whose it is. Reads one line at a time; nobody may write meanwhile.
    Raises LedgerError that names the first line (1-based) that was changed, removed or re-ordered, and why.
    """
    count, site, trusted = 0, "", public_hex or ""
    before = last = torn = b""
    notes: list[str] = []
    for raw in _raw_lines(path):
        if not raw.endswith(b"\n"):
            torn = raw
            break
        raw = raw[:-1]
        if count == 0:
            site, trusted = _check_first(path, raw, public_hex)
        line = _check_line(path, raw, count, site, trusted)
        if line.previous != (_hash(last) if count else ZEROS):
            # This line's own signature and place are right, so it is the line before that is not the one it followed.
            _fault(path, max(count, 1), _OTHER_BYTES)
        count, before, last = count + 1, last, raw
    head = _read_head(path, trusted or None)
    _check_end(path, head, count, _hash(last) if count else ZEROS, before, torn)
    if count == 0:
        _fault(path, 1, "is missing: the ledger holds no whole line")
    if head.site != site:
        raise LedgerError(
            f"the head file of {path.name} is that of {head.site!r}, and the lines are those of {site!r}."
        )
    if count > head.lines:
        notes.append(
            f"line {count - 1} is one ahead of the head file: the writer was stopped between the two writes. "
            "What the line permits may or may not have left."
        )
    if torn:
        notes.append(
            f"after line {count - 1} stand {len(torn)} bytes without a newline: the writer was stopped within a line. "
            "Nothing left under it; opening the ledger for writing moves it aside and records that."
        )
    return Verified(count, _hash(last), trusted, tuple(notes))


def read(path: Path) -> list[Line]:
    """The lines of the ledger at `path`, unchecked (see `verify`). Raises LedgerError if one is no ledger line."""
    return list(_lines(path))


def enrolled(lines: Iterable[Line]) -> list[Any]:
    """The pseudonyms of those whom the last intake among `lines` names; nobody if there was none, or it names nobody."""
    intake = [line for line in lines if line.event == "intake"]
    sides = [intake[-1].facts.get(side) for side in SIDES] if intake else []
    return [one for people in sides if isinstance(people, list) for one in people]


def summary(path: Path) -> dict[tuple[str, str, str], Total]:
    """Lines and payload bytes by (event, kind, purpose), sorted; kind and purpose are empty where a line names none.

    Unchecked, as `read`. Raises LedgerError if a line is no ledger line.
    """
    totals: dict[tuple[str, str, str], Total] = {}
    for line in _lines(path):
        size = line.facts.get("bytes", 0)
        sort = (line.event, str(line.facts.get("kind", "")), str(line.facts.get("purpose", "")))
        old = totals.get(sort, Total(0, 0))
        totals[sort] = Total(old.lines + 1, old.size + (size if isinstance(size, int) else 0))
    return dict(sorted(totals.items()))


def _lines(path: Path) -> Iterator[Line]:
    for number, raw in enumerate(_raw_lines(path), start=1):
        if not raw.endswith(b"\n"):
            raise LedgerError(
                f"line {number - 1} of {path.name} is torn: it has no newline at its end. If its writer was killed, "
                "opening the ledger for writing moves it aside and records that; otherwise keep the file as evidence."
            )
        try:
            yield _parse(raw[:-1])
        except (ValueError, RecursionError) as fault:
            _fault(path, number, f"is no ledger line ({_why(fault)})")


def _raw_lines(path: Path) -> Iterator[bytes]:
    """The bytes of each line, newline included. Raises LedgerError if the file cannot be read."""
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as fault:
        raise LedgerError(_unusable(path, "read", fault)) from None


def _parse(raw: bytes) -> Line:
    """The line in `raw` (no newline). Raises ValueError unless it is exactly what the ledger writes, to the byte."""
    fields = json.loads(raw)
    names = {"index": int, "time": str, "site": str, "event": str, "facts": dict, "previous": str, "signature": str}
    if not isinstance(fields, dict) or fields.keys() != names.keys():
        raise ValueError(f"its fields are not {', '.join(names)}")
    if any(type(fields[name]) is not kind for name, kind in names.items()):
        raise ValueError("a field has the wrong type")
    # Spaces, escapes, doubled keys or capital hex digits parse to the same values but are not what was written.
    if canonical(fields) != raw or bytes.fromhex(fields["signature"]).hex() != fields["signature"]:
        raise ValueError("not in canonical form")
    return Line(**{**fields, "facts": MappingProxyType(fields["facts"])}, hash=_hash(raw))


def _check_first(path: Path, raw: bytes, public_hex: str | None) -> tuple[str, str]:
    """The site and public key that the first line states. Raises LedgerError if it states none or a foreign key."""
    try:
        line = _parse(raw)
    except (ValueError, RecursionError) as fault:
        _fault(path, 1, f"was changed: it is no ledger line ({_why(fault)})")
    stated = line.facts.get("public_key")
    if line.event != "key" or not isinstance(stated, str):
        _fault(path, 1, f"was changed, removed or re-ordered: a ledger begins with its key, not with {line.event!r}")
    if public_hex is not None and stated != public_hex:
        _fault(path, 1, f"states a foreign key: {stated[:16]}... where {public_hex[:16]}... was expected")
    return line.site, stated


def _check_line(path: Path, raw: bytes, index: int, site: str, public_hex: str) -> Line:
    """The line in `raw` if it is the whole, signed line `index` of `site`. Raises LedgerError naming it otherwise."""
    try:
        line = _parse(raw)
    except (ValueError, RecursionError) as fault:
        _fault(path, index + 1, f"was changed: it is no ledger line ({_why(fault)})")
    fields = {name: value for name, value in vars(line).items() if name not in ("signature", "hash")}
    if not identity.verify(public_hex, canonical({**fields, "facts": dict(line.facts)}), bytes.fromhex(line.signature)):
        _fault(path, index + 1, "was changed: its signature does not fit its text and the key of the ledger")
    if line.index != index:
        _fault(path, index + 1, f"was removed or re-ordered: index {line.index} stands where {index} belongs")
    if line.site != site:
        _fault(path, index + 1, f"is foreign: it is of site {line.site!r} in the ledger of {site!r}")
    return line


def _check_end(path: Path, head: _Head, lines: int, last: str, before: bytes, torn: bytes) -> None:
    """Raise LedgerError unless the file ends where the head says, or as a kill during one append leaves it."""
    if lines < head.lines:
        why = "was changed: its newline is gone" if torn else "is missing"
        _fault(path, lines + 1, f"{why}: the head counts {head.lines} lines, the file holds {lines}")
    if lines > head.lines + 1 or (lines > head.lines and torn):
        raise LedgerError(
            f"line {head.lines} of {path.name} and what follows are not covered by its head file, which counts "
            f"{head.lines} lines; at most one line can be ahead of it. The head file is old or was put back. {_NEXT}"
        )
    covered = last if lines == head.lines else (_hash(before) if head.lines else ZEROS)
    if covered != head.hash:
        _fault(path, max(head.lines, 1), _OTHER_BYTES)


def _read_head(path: Path, public_hex: str | None) -> _Head:
    """The head of the ledger at `path`, its signature checked if a key is given. Raises LedgerError."""
    name = _head_path(path).name
    try:
        raw = _head_path(path).read_bytes()
    except OSError as fault:
        raise LedgerError(
            f"the head file {name} could not be read ({fault.strerror or type(fault).__name__}), "
            f"so lines removed at the end would not show. {_NEXT}"
        ) from None
    try:
        fields = json.loads(raw)
        signature = bytes.fromhex(fields.pop("signature"))
        head = _Head(**fields)
        # The comparison with `raw` also refuses a right signature under another spelling.
        whole = canonical({**asdict(head), "signature": signature.hex()}) + b"\n" == raw
        shaped = type(head.site) is str and type(head.lines) is int and type(head.hash) is str
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        whole = shaped = False
    if not (whole and shaped):
        raise LedgerError(f"the head file {name} was changed: it is no ledger head. {_NEXT}")
    if public_hex is not None and not identity.verify(public_hex, canonical(asdict(head)), signature):
        raise LedgerError(f"the head file {name} was changed, or signed with a foreign key. {_NEXT}")
    return head


def _write_line(path: Path, raw: bytes, *, expected: int) -> None:
    """Append `raw` to the file of `expected` bytes, down to the disk. Raises OSError; LedgerError on another size."""
    new = expected == 0
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | (os.O_CREAT if new else 0), 0o600)
    with os.fdopen(descriptor, "ab") as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected:
            raise LedgerError(
                f"{path.name} holds {size} bytes where this writer left {expected}: another process wrote it. "
                "Let one process at a time write a site's ledger, and open it again."
            )
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_folder(path.parent)


def _is_fact(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, list) and all(_is_fact(item) for item in value))


def _head_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.head")


def _hash(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _why(fault: Exception) -> str:
    """A fault in a line, in words; never the line's text."""
    return "bad JSON" if isinstance(fault, json.JSONDecodeError | UnicodeDecodeError | RecursionError) else str(fault)


def _fault(path: Path, number: int, why: str) -> NoReturn:
    # Lines are counted here, and named by their index, as whatever refers to one names it.
    raise LedgerError(f"line {number - 1} of {path.name} {why}. {_NEXT}") from None


def _unusable(path: Path, verb: str, fault: OSError) -> str:
    return (
        f"the ledger {path.name} could not be {verb} ({fault.strerror or type(fault).__name__}). "
        "Check its folder, its owner and the free space, then open it again."
    )


def open_ledger(home: Path, site: str) -> Ledger:
    """The ledger of the hospital whose folder is `home`, open for appending; its key is made if it has none. Raises
    LedgerError, RequestError."""
    folder = SiteFolder(home)
    return Ledger(folder.ledger, SiteKey.at(folder.key), site)
