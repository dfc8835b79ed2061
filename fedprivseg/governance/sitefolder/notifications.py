"""What a site does on its own to what it holds, and notifies the server of: a withdrawal carried out, a destruction.

The server writes it into its ledger with the head of the site's, so that a folder that is brought back from before contradicts
the server (T/SCGS 313008-2024 clauses 5.6.2-d, 5.8-f). The server learns that it was done and nothing of whom.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fedprivseg.core.runfolder import RunFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.checkpoints import SERVER, Checkpoint
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.ledger import Ledger


def notify_server(run: Path, site: str, event: str, facts: Mapping[str, Fact]) -> None:
    """Let the server's ledger say `facts` under `event`, the site, and how far the site's own ledger goes. Once for the same
    facts; nothing where there is no server. Raises LedgerError if one of the ledgers does not hold."""
    server = RunFolder(run).server
    if not server.key.exists():
        return
    book = Ledger(server.ledger, SiteKey.load(server.key), SERVER)
    said = {**facts, "site": site}.items()
    if any(line.event == event and said <= dict(line.facts).items() for line in ledger.read(server.ledger)):
        return
    home = RunFolder(run).site_named(site)
    key = SiteKey.load(home.key)
    head = Checkpoint.read(Ledger(home.ledger, key, site).checkpoint(), key.public_hex)
    book.append(event, {**facts, "checkpoint": head.as_fact(), "site": site})


def told(run: Path, site: str, event: str) -> tuple[int, ...]:
    """How many lines the site's ledger had each time that the server was told of such an `event` there."""
    path = RunFolder(run).server.ledger
    found = []
    for line in ledger.read(path) if path.exists() else ():
        head = line.facts.get("checkpoint")
        if line.event == event and line.facts.get("site") == site and isinstance(head, list):
            found.append(int(head[0]))
    return tuple(found)
