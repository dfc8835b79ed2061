"""Ledgers as an auditor reads them: checked against the key by which the other side knows its owner, and then believed."""

from __future__ import annotations

from pathlib import Path

from fedprivseg.core.errors import FolderError, LedgerError, RequestError
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.ledger import identities, ledger
from fedprivseg.governance.ledger.checkpoints import SERVER
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration

_RECEIPT = b'"event":"receipt"'
"""Stands in the server's ledger as soon as a site has answered; its record of the sites' keys is written before."""


def read_identities(run: Path) -> dict[str, str]:
    """Each site's public key (hex) as the server of a run noted it; nobody's where nobody has spoken to a server yet.

    Raises LedgerError if the server's record of them is gone or damaged.
    """
    server = RunFolder(run).server
    if not server.identities.exists() and not (server.ledger.exists() and _RECEIPT in server.ledger.read_bytes()):
        return {}
    return identities.read_identities(server.path)


def known_keys(run: Path) -> dict[str, str]:
    """The public keys (hex) by which the two sides of a run know each other: each site's as the server noted it, the server's
    as the sites have it on file. Whoever is known to nobody is left out. Raises LedgerError if that cannot be read, or if sites
    have different keys of the server on file."""
    known = read_identities(run)
    servers: set[str] = set()
    for path in (site.configuration for site in RunFolder(run).sites if site.configuration.exists()):
        try:
            on_file = SiteConfiguration.read(path).server_key
        except (FolderError, OSError, ValueError):  # what is wrong in it may name a folder of the hospital
            raise LedgerError(
                f"{path.name} of {path.parent.name} cannot be read; it has the server's key on file"
            ) from None
        servers |= set() if on_file is None else {on_file}
    if len(servers) > 1:
        raise LedgerError(f"the sites have {len(servers)} different keys of the server on file, and it has one")
    return {**known, SERVER: servers.pop()} if servers else known


def site_ledger(run: Path, site: str) -> tuple[str, tuple[Line, ...]]:
    """The public key (hex) and the lines of a site's ledger. The key is the one that the server knows; if it knows none, that
    of the ledger's first line. Raises FolderError if there is no run, RequestError if there is no such site, LedgerError if
    the ledger does not hold."""
    names = [each.name for each in RunFolder(run).sites]
    if not names:
        raise FolderError(f"{run} holds no run (no sites)")
    if site not in names:
        raise RequestError(f"unknown site {site!r}; the sites of this run are: {', '.join(names)}")
    path = RunFolder(run).site(site).ledger
    verified = ledger.verify(path, public_hex=known_keys(run).get(site))
    return verified.public_hex, tuple(ledger.read(path))
