"""What came to the server and what it answered, as its signed ledger tells: for counting bytes and for trusting what is stored.

A receipt is on the disk before its payload is used, so that no kill loses one. A payload that is asked for again after an
interruption counts once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from fedprivseg.governance.ledger.line import Line

SENT = "sent"
"""The fact of a receipt that says how many bytes of an answer went with the order."""

STAGE, CENTISECONDS = "stage", "centiseconds"
"""The facts of a receipt that say in which stage of the run the order was given, and how long the site took by its clock."""

_UNCOUNTED = "describe"
"""The roll call, which costs every method the same."""


@final
class Receipts:
    """The receipts among `lines` of the server's own ledger, which verifies; `note` adds those to come."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self.digests: dict[tuple[str, str, int], str] = {}
        """SHA-256 of the last payload that came from a site, for an action, under a number."""
        self._attempt = 0
        self._sizes: dict[str, dict[tuple[int, str, int], tuple[int, int]]] = {}
        self._totals: dict[str, tuple[int, int]] = {}
        for line in lines:
            self.note(line)

    def note(self, line: Line) -> None:
        """Count a line of the ledger, if it is a receipt. After a withdrawal all is made again, and counts besides."""
        if line.event == "withdrawal":
            self._attempt += 1
        action = line.facts.get("action")
        if line.event != "receipt" or action == _UNCOUNTED:
            return
        site, number = str(line.facts.get("site")), int(str(line.facts.get("number")))
        if "digest" in line.facts:
            self.digests[site, str(action), number] = str(line.facts["digest"])
        up, down = (int(str(line.facts.get(fact, 0))) for fact in ("bytes", SENT))
        slot = (self._attempt, str(action), number)
        own = self._sizes.setdefault(site, {})
        before, total = own.get(slot, (0, 0)), self._totals.get(site, (0, 0))
        own[slot] = now = (
            max(up, before[0]),
            max(down, before[1]),
        )  # what came once is not taken back by what fails later
        self._totals[site] = total[0] + now[0] - before[0], total[1] + now[1] - before[1]

    def size(self, site: str) -> tuple[int, int]:
        """Bytes of encoded payloads from `site`, and to it."""
        return self._totals.get(site, (0, 0))

    @property
    def orders(self) -> frozenset[tuple[str, int]]:
        """The orders, by action and number, to which any site has answered."""
        return frozenset((action, number) for own in self._sizes.values() for _, action, number in own)
