"""Checkpoints of ledgers, and what they prove when another party holds them (cross-signing).

With every order the server sends a signed checkpoint of its ledger, and with every reply a site sends one of its own; each
writes the other's into its next line (T/SCGS 313008-2024 clause 5.6.2-d; a signed tree head as in Certificate Transparency,
RFC 9162). Neither can then put back an earlier ledger, or rewrite one with the right key, without contradicting what the
other holds (equivocation).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedprivseg.core.errors import LedgerError
from fedprivseg.crypto.identity import SiteKey, canonical, verify
from fedprivseg.governance.ledger.format import MODEL
from fedprivseg.governance.ledger.line import Line

MOST_LINES = 2**53
"""Most lines of a ledger: a double still counts them."""

_HASH = re.compile(r"[0-9a-f]{64}")

SERVER = "server"
"""The name of the server's ledger."""


@dataclass(frozen=True)
class Checkpoint:
    """The statement that the ledger of `site` has `lines` lines, of which the last hashes to `hash` (64 zeros for no line)."""

    site: str
    lines: int
    hash: str

    @classmethod
    def read(cls, text: str, public_hex: str | None) -> Checkpoint:
        """The checkpoint in `text`, as `signed` writes it, to the byte.

        Args:
            text: JSON with a signature.
            public_hex: the key that it must be signed with; None trusts any.

        Raises:
            LedgerError: it is no checkpoint, or not of that key.
        """
        try:
            fields = json.loads(text)
            signature = bytes.fromhex(fields.pop("signature"))
            found = cls(**fields)
            shaped = type(found.site) is str and type(found.lines) is int and 0 <= found.lines <= MOST_LINES
            shaped = shaped and _HASH.fullmatch(found.hash) is not None
            # Another spelling of the same values is not what was written.
            shaped = shaped and canonical({**vars(found), "signature": signature.hex()}).decode("ascii") == text
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            shaped = False
        if not shaped:
            raise LedgerError("it is no checkpoint of a ledger")
        if public_hex is not None and not verify(public_hex, canonical(vars(found)), signature):
            raise LedgerError(f"the checkpoint of the ledger of {found.site[:60]!r} is signed with a foreign key")
        return found

    def signed(self, key: SiteKey) -> str:
        """As text with a signature, for others and for the file beside the ledger."""
        return canonical({**vars(self), "signature": key.sign(canonical(vars(self))).hex()}).decode("ascii")

    def as_fact(self) -> list[str | int]:
        """As the fact ``checkpoint`` or ``server_checkpoint`` of a line."""
        return [self.lines, self.hash]


def equivocations(server: Sequence[Line], sites: Mapping[str, Sequence[Line]]) -> tuple[str, ...]:
    """Where a ledger contradicts a checkpoint that the other side holds, and where sites were sent different models under one
    order, in sentences.

    Args:
        server: the lines of the server's ledger, which verifies by itself.
        sites: those of every site's ledger that is there. One that is not, and of which the server holds a checkpoint, is gone.
    """
    found, gone = [], {}
    for line in server:
        site, held = str(line.facts.get("site", "")), line.facts.get("checkpoint")
        if not isinstance(held, list):
            continue
        if site in sites:
            found += _differs(site, sites[site], held, f"line {line.index} of the server's ledger")
        else:
            holds = f"line {line.index} of the server's ledger holds a checkpoint of {held[0]} lines"
            gone[site] = f"the ledger of {site} is gone; {holds}"
    found += [gone[site] for site in sorted(gone)]
    for site, lines in sorted(sites.items()):
        for line in lines:
            if isinstance(held := line.facts.get("server_checkpoint"), list):
                found += _differs(SERVER, server, held, f"line {line.index} of {site}'s ledger")
    return (*found, *_inconsistent(sites))


def _inconsistent(sites: Mapping[str, Sequence[Line]]) -> list[str]:
    """Orders with which two sites were sent different weights: the server looked for what one of them answers alone."""
    sent: dict[tuple[object, ...], dict[object, str]] = {}
    for site, lines in sorted(sites.items()):
        for line in lines:
            if (model := line.facts.get(MODEL)) is not None:
                order = tuple(line.facts.get(name) for name in ("run", "action", "number"))
                sent.setdefault(order, {}).setdefault(model, site)
    return [
        f"with {action!r} {number} the server sent {' and '.join(models.values())} different models, each announced as that "
        "of every site"
        for (_, action, number), models in sent.items()
        if len(models) > 1
    ]


def _differs(name: str, lines: Sequence[Line], held: list[object], where: str) -> list[str]:
    count, expected = held
    if not isinstance(count, int) or count < 1:
        return []
    if count > len(lines):
        return [f"the ledger of {name} has {len(lines)} lines; {where} holds a checkpoint of {count}"]
    if lines[count - 1].hash != expected:
        return [f"line {count - 1} of the ledger of {name} is not the one of the checkpoint in {where}"]
    return []
