"""A site's ledger as an auditor reads it: checked against the key by which the server knows the site, and then believed."""

from __future__ import annotations

import json
from pathlib import Path

from fedprivseg.errors import FolderError, RequestError
from fedprivseg.policy import ledger
from fedprivseg.policy.ledger import Line
from fedprivseg.site.station import station_folder


def site_ledger(run: Path, site: str) -> tuple[str, tuple[Line, ...]]:
    """The public key (hex) and the lines of a site's ledger. The key is the one that the server knows; if it knows none, that
    of the ledger's first line. Raises FolderError if there is no run, RequestError if there is no such site, LedgerError if
    the ledger does not hold."""
    names = sorted(path.name for path in (run / "sites").glob("*") if path.is_dir())
    if not names:
        raise FolderError(f"{run} holds no run (no sites)")
    if site not in names:
        raise RequestError(f"unknown site {site!r}; the sites of this run are: {', '.join(names)}")
    identities = run / "server" / "identities.json"
    known = json.loads(identities.read_text(encoding="utf-8")) if identities.exists() else {}
    path = station_folder(run, site) / "ledger.jsonl"
    verified = ledger.verify(path, public_hex=known.get(site))
    return verified.public_hex, tuple(ledger.read(path))
