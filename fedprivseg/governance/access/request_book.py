"""A site's requests for access as its ledger records them: an event counts once the signed ledger names it.

An event is put down beside the file first (``requests.jsonl.next``), then named in the ledger, then added to the file. After a
kill in between the file does not end where the ledger says, and nothing is granted from it; whoever opens it next ends what was
begun: what the ledger names comes into the file, what it does not name was never recorded and goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedprivseg.core.disk import unusable, write_whole
from fedprivseg.core.errors import RequestError
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.access.requests import ZEROS, Event, RequestFile
from fedprivseg.governance.ledger.ledger import Ledger, read

REQUESTS, LEDGER, KEY = "requests.jsonl", "ledger.jsonl", "vault/key.pem"
"""Files in a site's folder: the requests for access, the ledger, and the key that signs it."""

_NEXT = f"{REQUESTS}.next"


def open_requests(home: Path) -> RequestFile:
    """The requests of the site whose folder is `home`. Each event that is added is a line of its ledger, if it has a key to
    sign one. Raises RequestError or LedgerError if what was begun cannot be ended."""
    RequestFile(home / REQUESTS).provision_sites(home / _NEXT, lambda: recorded(home))
    if not (home / KEY).exists():
        return RequestFile(home / REQUESTS)

    @contextmanager
    def record(event: Event) -> Iterator[None]:
        book = Ledger(home / LEDGER, SiteKey.load(home / KEY), home.resolve().name)
        try:
            write_whole(home / _NEXT, [event.raw + b"\n"])
        except OSError as fault:
            raise RequestError(unusable(_NEXT, "written", fault)) from None
        book.append("access", event.facts)
        yield
        (home / _NEXT).unlink()

    return RequestFile(home / REQUESTS, record)


def recorded(home: Path) -> str:
    """The hash of the last event that the ledger of `home` names; zeros if it names none."""
    hashes = [
        str(line.facts["hash"])
        for line in (read(home / LEDGER) if (home / LEDGER).exists() else ())
        if line.event == "access" and "hash" in line.facts
    ]
    return hashes[-1] if hashes else ZEROS
