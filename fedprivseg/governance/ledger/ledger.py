"""A site's ledger: one signed JSON line for everything that left or was refused, each chained to the line before.

A line holds ``index`` (from 0), ``time`` (UTC, ISO 8601), ``site``, ``event``, ``facts``, ``format`` (`format`), ``previous``
(SHA-256 of the bytes of the line before, without the newline; 64 zeros for the first) and ``signature`` (Ed25519, over the
canonical JSON of the other fields). The first line carries the public key. Beside the ledger stands its signed checkpoint,
``<ledger>.head``: how many lines there are and the hash of the last one. It shows lines removed at the end, which a
chain alone cannot.

A line and the checkpoint are two writes, so a process killed in between leaves a ledger one line ahead of its checkpoint.
That, and a last line without its newline, are the only irregularities that are accepted; both are said, neither is silent.

A writer may bring the lines of a stage to the disk together (`Ledger`, `grouped`). Such a line says so itself, by the fact
`GROUPED`, and only such lines may be ahead of the checkpoint in numbers: it is written when they are on the disk.

A ledger cannot show by itself that it was put back to an earlier state together with its checkpoint, or was written again
by the holder of the key. Whoever holds a checkpoint of it sees both: a site and the server hold each other's (`checkpoints`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from fedprivseg.core.errors import LedgerError
from fedprivseg.core.files import read_small, sync, write_durably
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.checkpoints import Checkpoint
from fedprivseg.governance.ledger.format import CURRENT, EVENTS, GROUPED, OWN_EVENTS, SIDES, Fact
from fedprivseg.governance.ledger.line import (
    NEXT,
    ZEROS,
    Line,
    digest_of,
    fail,
    parse,
    parse_signed,
    parsing,
    raw_lines,
    signed_line,
    unusable,
)

_WAITING = ".waiting"  # ends the name of a torn line's file until its recovery line is written
_OTHER_BYTES = "was changed: what was written after it was written after other bytes"

_SECTOR = 512
"""Bytes of the file of a checkpoint, spaces at its end: it is written in place, and a disk writes a sector whole or not."""


@dataclass(frozen=True)
class Verified:
    """A ledger that holds.

    Attributes:
        lines: how many.
        head: hash of the last one.
        public_hex: the key that signed them.
        notes: traces of a kill, in sentences.
    """

    lines: int
    head: str
    public_hex: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Total:
    """How many lines of one sort, and the sum of their payloads in bytes."""

    lines: int
    size: int


@final
class Ledger:
    """The ledger of one site, open for appending. One process writes it at a time; a second writer is noticed.

    Opening reads the file once but checks only its end against the checkpoint; `verify` checks every line.
    """

    def __init__(self, path: Path, key: SiteKey, site: str, *, grouped: bool = False) -> None:
        """Open the ledger at `path`, or begin it with a ``key`` line; its folder must exist.

        grouped: lines go to the disk at the next `commit`. Until then they outlive the end of the process, and not a power cut.

        A torn last line is moved to ``<ledger>.torn-<hash>`` and a ``recovery`` line records its SHA-256.
        Raises LedgerError if the ledger cannot be read or written, is another site's or key's, or disagrees with its
        checkpoint.
        """
        self.path = path
        self._checkpoint_path = _checkpoint_path(path)
        self.site = site
        self.public_hex = key.public_hex
        self.grouped = grouped
        self._key = key
        self._sound = True
        self._lines, self._last, self._size = 0, ZEROS, 0
        self._raw, self._head, self._signed = b"", b"", ""
        try:
            self._resume()
        except OSError as fault:
            raise LedgerError(unusable(path, "opened", fault)) from None

    def append(self, event: str, facts: Mapping[str, Fact]) -> Line:
        """Write one line, down to the disk unless the ledger is `grouped`, and return it.

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
            "facts": {**facts, **({GROUPED: 1} if self.grouped else {})},
            "previous": self._last,
        }
        raw, line = signed_line(self._key, fields)
        # Unsound until both writes are done: a second line over a stale checkpoint would look like tampering.
        self._sound = False
        try:
            _write_line(self.path, raw + b"\n", expected=self._size, durable=not self.grouped)
            self._lines, self._last, self._size = self._lines + 1, line.hash, self._size + len(raw) + 1
            self._raw, self._signed = raw, ""
            if not self.grouped:
                self._write_checkpoint()
        except OSError as fault:
            raise LedgerError(unusable(self.path, "written", fault)) from None
        self._sound = True
        return line

    def commit(self) -> None:
        """Bring the lines that are not there yet to the disk, then their checkpoint. Raises LedgerError if that cannot be done;
        then the ledger must be opened again."""
        if self._head == _of_a_sector(self.checkpoint()):
            return
        self._sound = False
        try:
            sync(self.path)
            self._write_checkpoint()
        except OSError as fault:
            raise LedgerError(unusable(self.path, "written", fault)) from None
        self._sound = True

    def checkpoint(self) -> str:
        """The signed checkpoint of what is written so far, as others receive it (`Checkpoint.read`)."""
        if not self._signed:
            self._signed = Checkpoint(self.site, self._lines, self._last).signed(self._key)
        return self._signed

    @property
    def is_current(self) -> bool:
        """Whether the ledger and its checkpoint still end as this writer left them: whoever wrote or changed them since is
        not overlooked, but for what `verify` alone finds."""
        last = self._raw + b"\n"
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:
            return False
        try:
            size = os.fstat(descriptor).st_size
            end = os.pread(descriptor, len(last), max(0, self._size - len(last)))
        except OSError:  # a folder stands in its place
            return False
        finally:
            os.close(descriptor)
        return self._sound and size == self._size and end == last and read_small(self._checkpoint_path) == self._head

    def _write_checkpoint(self) -> None:
        path, new = self._checkpoint_path, _of_a_sector(self.checkpoint())
        if path.exists():
            descriptor = os.open(path, os.O_WRONLY)
            try:
                os.pwrite(descriptor, new, 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        else:
            write_durably(path, [new])
        self._head = new

    def _resume(self) -> None:
        """Take up the chain where it ended, or begin it. The checkpoint comes first, so a ledger never lacks one."""
        if not self._checkpoint_path.exists() and not self.path.exists():
            self._write_checkpoint()
        end = _read_checkpoint(self.path, self.public_hex)
        if end.site != self.site:
            raise LedgerError(f"{self.path.name} is the ledger of {end.site!r}, not of {self.site!r}. Open your own.")
        torn = b""
        if self.path.exists():
            covered, ahead = b"", []
            for raw in raw_lines(self.path):
                if not raw.endswith(b"\n"):
                    torn = raw
                    continue
                self._lines, self._size, self._raw = self._lines + 1, self._size + len(raw), raw[:-1]
                if self._lines == end.lines:
                    covered = self._raw
                elif self._lines > end.lines:
                    ahead.append(self._raw)
            if self._lines:
                self._last = digest_of(self._raw)
            lines = [
                _check_line(self.path, raw, end.lines + n, self.site, self.public_hex) for n, raw in enumerate(ahead)
            ]
            grouped = all(GROUPED in line.facts for line in lines)
            _check_end(self.path, end, self._lines, digest_of(covered) if end.lines else ZEROS, torn, grouped)
            before = end.hash
            for line in lines:
                if line.previous != before:
                    fail(self.path, max(line.index, 1), _OTHER_BYTES)
                before = line.hash
            if lines:
                sync(self.path)
                self._write_checkpoint()
        elif end.lines:
            fail(self.path, 1, f"is missing: the file is gone, and its checkpoint counts {end.lines} lines")
        if torn:
            write_durably(self.path.with_name(f"{self.path.name}.torn-{digest_of(torn)[:16]}{_WAITING}"), [torn])
            os.truncate(self.path, self._size)
        self._head = self._checkpoint_path.read_bytes()
        if not self._lines:
            self._append("key", {"format": f"fedprivseg ledger {CURRENT}", "public_key": self.public_hex})
        for torn_path in sorted(self.path.parent.iterdir()):
            if torn_path.name.startswith(f"{self.path.name}.torn-") and torn_path.name.endswith(_WAITING):
                self._record_torn(torn_path)

    def _record_torn(self, waiting: Path) -> None:
        """Record the torn line in `waiting`. If killed before the file is renamed, the next opening does it again."""
        torn = waiting.read_bytes()
        kept = waiting.with_name(waiting.name.removesuffix(_WAITING))
        self._append("recovery", {"sha256": digest_of(torn), "bytes": len(torn), "file": kept.name})
        os.replace(waiting, kept)


def verify(path: Path, *, public_hex: str | None = None) -> Verified:
    """Check every line of the ledger at `path`, and its end against the checkpoint.

    `public_hex` is the key the site is known by; None trusts the key in the first line, which shows that the ledger is
    whole but not whose it is. Reads one line at a time; nobody may write meanwhile.
    Raises LedgerError that names the first line (1-based) that was changed, removed or re-ordered, and why.
    """
    site, trusted = "", public_hex or ""
    hashes: list[str] = []
    grouped, torn = 0, b""
    notes: list[str] = []
    for raw in raw_lines(path):
        if not raw.endswith(b"\n"):
            torn = raw
            break
        raw = raw[:-1]
        if not hashes:
            site, trusted = _check_first(path, raw, public_hex)
        line = _check_line(path, raw, len(hashes), site, trusted)
        if line.previous != (hashes[-1] if hashes else ZEROS):
            # This line's own signature and place are right, so it is the line before that is not the one it followed.
            fail(path, max(len(hashes), 1), _OTHER_BYTES)
        hashes.append(line.hash)
        grouped = grouped + 1 if GROUPED in line.facts else 0
    count = len(hashes)
    end = _read_checkpoint(path, trusted or None)
    ahead = count - end.lines
    _check_end(path, end, count, hashes[end.lines - 1] if 0 < end.lines <= count else ZEROS, torn, 0 < ahead <= grouped)
    if count == 0:
        fail(path, 1, "is missing: the ledger holds no whole line")
    if end.site != site:
        raise LedgerError(
            f"the checkpoint of {path.name} is that of {end.site!r}, and the lines are those of {site!r}."
        )
    if 0 < ahead <= grouped:
        notes.append(
            f"lines {end.lines} to {count - 1} are ahead of the checkpoint: their writer brings the lines of a stage to the "
            "disk together, and had not yet. What they permit may have left."
        )
    elif ahead:
        notes.append(
            f"line {count - 1} is one ahead of the checkpoint: the writer was stopped between the two writes. "
            "What the line permits may or may not have left."
        )
    if torn:
        notes.append(
            f"after line {count - 1} stand {len(torn)} bytes without a newline: the writer was stopped within a line. "
            "Nothing left under it; opening the ledger for writing moves it aside and records that."
        )
    return Verified(count, hashes[-1], trusted, tuple(notes))


def read(path: Path) -> list[Line]:
    """The lines of the ledger at `path`, unchecked (see `verify`). Raises LedgerError if one is no ledger line."""
    return list(_lines(path))


def enrolled(lines: Iterable[Line]) -> list[Any]:
    """The pseudonyms of those whom the last enrolment among `lines` lists; nobody if there was none, or it lists nobody."""
    enrolments = [line for line in lines if line.event == "enrolment"]
    sides = [enrolments[-1].facts.get(side) for side in SIDES] if enrolments else []
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
    for number, raw in enumerate(raw_lines(path), start=1):
        if not raw.endswith(b"\n"):
            raise LedgerError(
                f"line {number - 1} of {path.name} is torn: it has no newline at its end. If its writer was killed, "
                "opening the ledger for writing moves it aside and records that; otherwise keep the file as evidence."
            )
        with parsing(path, number, "is"):
            line = parse(raw[:-1])
        yield line


def _check_first(path: Path, raw: bytes, public_hex: str | None) -> tuple[str, str]:
    """The site and public key that the first line states. Raises LedgerError if it states none or a foreign key."""
    with parsing(path, 1, "was changed: it is"):
        line = parse(raw)
    stated = line.facts.get("public_key")
    if line.event != "key" or not isinstance(stated, str):
        fail(path, 1, f"was changed, removed or re-ordered: a ledger begins with its key, not with {line.event!r}")
    if public_hex is not None and stated != public_hex:
        fail(path, 1, f"states a foreign key: {stated[:16]}... where {public_hex[:16]}... was expected")
    return line.site, stated


def _check_line(path: Path, raw: bytes, index: int, site: str, public_hex: str) -> Line:
    """The line in `raw` if it is the whole, signed line `index` of `site`. Raises LedgerError naming it otherwise."""
    with parsing(path, index + 1, "was changed: it is"):
        line = parse_signed(raw, public_hex)
    if line is None:
        fail(path, index + 1, "was changed: its signature does not fit its text and the key of the ledger")
    if line.index != index:
        fail(path, index + 1, f"was removed or re-ordered: index {line.index} stands where {index} belongs")
    if line.site != site:
        fail(path, index + 1, f"is foreign: it is of site {line.site!r} in the ledger of {site!r}")
    return line


def _check_end(path: Path, end: Checkpoint, lines: int, covered: str, torn: bytes, grouped: bool) -> None:
    """Raise LedgerError unless the file ends where the checkpoint says, or as a kill during one append leaves it.

    covered: the hash of the last line of which the checkpoint tells. grouped: whether every line after it says that it was to
    come to the disk with others.
    """
    if lines < end.lines:
        reason = "was changed: its newline is gone" if torn else "is missing"
        fail(path, lines + 1, f"{reason}: the checkpoint counts {end.lines} lines, the file holds {lines}")
    if not grouped and (lines > end.lines + 1 or (lines > end.lines and torn)):
        raise LedgerError(
            f"line {end.lines} of {path.name} and what follows are not covered by its checkpoint, which counts "
            f"{end.lines} lines; at most one line can be ahead of it. The checkpoint is old or was put back. {NEXT}"
        )
    if covered != end.hash:
        fail(path, max(end.lines, 1), _OTHER_BYTES)


def _read_checkpoint(path: Path, public_hex: str | None) -> Checkpoint:
    """The checkpoint beside the ledger at `path`, its signature checked if a key is given. Raises LedgerError."""
    own = _checkpoint_path(path)
    try:
        raw = own.read_bytes()
    except OSError as fault:
        raise LedgerError(
            f"the checkpoint {own.name} could not be read ({fault.strerror or type(fault).__name__}), "
            f"so lines removed at the end would not show. {NEXT}"
        ) from None
    try:
        if not raw.endswith(b"\n"):
            raise LedgerError("it has no newline at its end")
        return Checkpoint.read(raw[:-1].rstrip(b" ").decode("latin-1"), public_hex)
    except LedgerError as fault:
        raise LedgerError(f"the checkpoint {own.name} was changed: {fault}. {NEXT}") from None


def _of_a_sector(text: str) -> bytes:
    return text.encode("ascii").ljust(_SECTOR - 1) + b"\n"


def _write_line(path: Path, raw: bytes, *, expected: int, durable: bool = True) -> None:
    """Append `raw` to the file of `expected` bytes, down to the disk if `durable`. Raises OSError; LedgerError on another
    size."""
    new = expected == 0
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | (os.O_CREAT if new else 0), 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size != expected:
            raise LedgerError(
                f"{path.name} holds {size} bytes where this writer left {expected}: another process wrote it. "
                "Let one process at a time write a site's ledger, and open it again."
            )
        while raw:
            raw = raw[os.write(descriptor, raw) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if new:
        sync(path.parent)


def _is_fact(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, list) and all(_is_fact(item) for item in value))


def _checkpoint_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.head")


def open_ledger(home: Path, site: str) -> Ledger:
    """The ledger of the hospital whose folder is `home`, open for appending; its key is made if it has none. Raises
    LedgerError, RequestError."""
    folder = SiteFolder(home)
    return Ledger(folder.ledger, SiteKey.at(folder.key), site)
