"""The server's ledger as it grows: read once, line by line, and counted by site."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from fedprivseg.governance.ledger.line import Line, parse
from fedprivseg.governance.ledger.receipts import CENTISECONDS, Receipts

MOST_BLOCKED = 200
"""Of so many blocked payloads the latest are kept; all are counted."""


@dataclass(frozen=True)
class Blocked:
    """A payload that a site's gate kept.

    Attributes:
        time: UTC, ISO 8601, when the server was told.
        site: whose.
        action: what had been ordered.
        rule: of the site's policy.
    """

    time: str
    site: str
    action: str
    rule: str


@dataclass
class SiteTally:
    """What the server's ledger tells of one site.

    Attributes:
        heard: UTC, ISO 8601, of its last answer; empty before the first.
        orders: that it answered.
        errors: that it answered with.
        seconds: by its own clock.
        ledger_lines: of its own ledger, by the last checkpoint that it showed.
        ledger_head: hash of the last of them.
        blocked: rule -> payloads that its gate kept.
    """

    heard: str = ""
    orders: int = 0
    errors: int = 0
    seconds: float = 0.0
    ledger_lines: int = 0
    ledger_head: str = ""
    blocked: Counter[str] = field(default_factory=Counter)


@final
class Tally:
    """What the ledger at `path` tells so far. A line is counted once it is whole; one that cannot be read ends the counting."""

    def __init__(self, path: Path) -> None:
        self.sites: dict[str, SiteTally] = {}
        self.blocked: deque[Blocked] = deque(maxlen=MOST_BLOCKED)
        self.receipts = Receipts()
        self.lines, self.head, self.first, self.last = 0, "", "", ""
        self.fault = ""
        self._path, self._read = path, 0

    def update(self) -> None:
        """Count what was written since the last time."""
        if self.fault or not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                try:
                    self._count(parse(raw[:-1]))
                except (ValueError, KeyError, TypeError):
                    self.fault = f"line {self.lines} cannot be read; `fedprivseg ledger verify` says more"
                    return
                self._read += len(raw)

    def _count(self, line: Line) -> None:
        self.lines, self.head, self.last = line.index + 1, line.hash, line.time
        self.first = self.first or line.time
        self.receipts.note(line)
        if line.event != "receipt":
            return
        facts, site = line.facts, str(line.facts["site"])
        own = self.sites.setdefault(site, SiteTally())
        own.heard, own.orders = line.time, own.orders + 1
        own.seconds += int(str(facts.get(CENTISECONDS, 0))) / 100
        own.errors += "error" in facts
        if isinstance(held := facts.get("checkpoint"), list):
            own.ledger_lines, own.ledger_head = int(held[0]), str(held[1])
        if "rule" in facts:
            own.blocked[rule := str(facts["rule"])] += 1
            self.blocked.append(Blocked(line.time, site, str(facts.get("action", "")), rule))
