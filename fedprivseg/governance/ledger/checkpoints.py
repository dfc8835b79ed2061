"""Heads of ledgers that others keep: two parties that note each other's head can neither of them rewrite its past alone.

With every order the server sends the signed head of its ledger, and with every reply a site sends that of its own; each
writes the other's into its next line (T/SCGS 313008-2024 clause 5.6.2-d; the idea of a checkpoint that is witnessed, as in
Certificate Transparency, RFC 9162). Who puts back an earlier ledger, or writes it anew with the right key, contradicts what
the other holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedprivseg.core.errors import LedgerError
from fedprivseg.crypto.identity import canonical, verify
from fedprivseg.governance.ledger.ledger import Line

MOST_LINES = 2**53
"""Most lines of a ledger: a double still counts them."""

_HASH = re.compile(r"[0-9a-f]{64}")

SERVER = "server"
"""The name of the server's ledger."""


@dataclass(frozen=True)
class Checkpoint:
    """That the ledger of `site` had `lines` lines, the last of which hashed to `hash`."""

    site: str
    lines: int
    hash: str

    @classmethod
    def read(cls, text: str, public_hex: str | None) -> Checkpoint:
        """The head in `text`, as `Ledger.head` writes it. public_hex: the key it has to be signed with; None trusts any. Raises
        LedgerError if it is none, or not of that key."""
        try:
            fields = json.loads(text)
            signature = bytes.fromhex(fields.pop("signature"))
            head = cls(**fields)
            shaped = type(head.site) is str and type(head.lines) is int and 0 <= head.lines <= MOST_LINES
            shaped = shaped and _HASH.fullmatch(head.hash) is not None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            shaped = False
        if not shaped:
            raise LedgerError("what came as the head of a ledger is none")
        if public_hex is not None and not verify(public_hex, canonical(vars(head)), signature):
            raise LedgerError(f"the head of the ledger of {head.site[:60]!r} is not signed with the key that is known")
        return head

    def noted(self) -> list[str | int]:
        """As a fact of a ledger line."""
        return [self.lines, self.hash]


def equivocations(server: Sequence[Line], sites: Mapping[str, Sequence[Line]]) -> tuple[str, ...]:
    """Where a ledger is not what the other side was shown, in sentences. Each ledger is taken to verify by itself. sites: every
    ledger that there is; one of which the server was shown heads, and which is not among them, is gone."""
    found, gone = [], {}
    for line in server:
        site, noted = str(line.facts.get("site", "")), line.facts.get("head")
        if site in sites and isinstance(noted, list):
            found += _differs(site, sites[site], noted, f"line {line.index} of the server's ledger")
        elif isinstance(noted, list):
            gone[site] = (
                f"the ledger of {site} is gone; line {line.index} of the server's ledger was shown {noted[0]} lines"
            )
    found += [gone[site] for site in sorted(gone)]
    for site, lines in sorted(sites.items()):
        for line in lines:
            noted = line.facts.get("server_head")
            if isinstance(noted, list):
                found += _differs(SERVER, server, noted, f"line {line.index} of {site}'s ledger")
    return tuple(found)


def _differs(name: str, lines: Sequence[Line], noted: list[object], where: str) -> list[str]:
    count, expected = noted
    if not isinstance(count, int) or count < 1:
        return []
    if count > len(lines):
        return [f"the ledger of {name} has {len(lines)} lines; {where} was shown {count}"]
    if lines[count - 1].hash != expected:
        return [f"line {count - 1} of the ledger of {name} is not the one that {where} was shown"]
    return []
