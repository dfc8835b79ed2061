"""A site's ledger as the report shows it: verified and summarised."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fedprivseg.core.errors import LedgerError
from fedprivseg.governance.ledger import ledger


@dataclass(frozen=True)
class LedgerSummary:
    """A site's ledger as the report shows it.

    Attributes:
        fault: why it does not verify, or "".
        head: the hash of its last line if it verifies.
        known: whether it was checked with the key by which the server knows the site.
        notes: what the verification has to say.
        totals: lines and bytes by (event, kind, purpose).
        refused: lines by (rule, reason).
        unread: why there are no totals, or "".
    """

    fault: str = ""
    head: str = ""
    known: bool = False
    notes: tuple[str, ...] = ()
    totals: tuple[tuple[tuple[str, str, str], ledger.Total], ...] = ()
    refused: tuple[tuple[tuple[str, str], int], ...] = ()
    unread: str = ""

    def lines(self, event: str = "") -> int:
        """How many lines there are of `event`, or of all events."""
        return sum(total.lines for (name, _, _), total in self.totals if event in ("", name))

    def released(self) -> list[tuple[str, str, ledger.Total]]:
        """What was released: (kind, purpose, total)."""
        return [(kind, purpose, total) for (event, kind, purpose), total in self.totals if event == "release"]


def summarise_ledger(path: Path, public_hex: str | None) -> LedgerSummary:
    """The ledger at `path`; what is wrong with it is part of the summary, not an error.

    Args:
        path: the ledger's file.
        public_hex: the key by which the server knows the site; None trusts the one that the ledger states.
    """
    fault, head, unread = "", "", ""
    notes: tuple[str, ...] = ()
    try:
        verdict = ledger.verify(path, public_hex=public_hex)
        head, notes = verdict.head, verdict.notes
    except LedgerError as error:
        fault = str(error)
    totals: dict[tuple[str, str, str], ledger.Total] = {}
    refused: Counter[tuple[str, str]] = Counter()
    try:
        totals = ledger.summary(path)
        refused.update(
            (str(line.facts.get("rule", "")), str(line.facts.get("reason", "")))
            for line in ledger.read(path)
            if line.event == "refusal"
        )
    except LedgerError as error:
        unread = str(error)
    return LedgerSummary(
        fault, head, public_hex is not None, notes, tuple(totals.items()), tuple(sorted(refused.items())), unread
    )
