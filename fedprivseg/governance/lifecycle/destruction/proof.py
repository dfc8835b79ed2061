"""Whether what a site's records say of a destruction holds: signatures, approvals, ledger, and files (clause 5.8-f).

Reads what anybody may read who audits: it needs neither the site's private key nor its staff.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedprivseg.core.errors import FedprivsegError
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.crypto.sealed_files import wants_passphrase
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle import inventory
from fedprivseg.governance.lifecycle.destruction.certificates import Certificate, DestructionError
from fedprivseg.governance.lifecycle.destruction.custody import APPROVED, DONE, ORDERED
from fedprivseg.governance.sitefolder.history import DESTRUCTION
from fedprivseg.governance.sitefolder.vault import SEALING_KEY, sealing_key

_UNREADABLE = "its certificate was changed, or is not the site's"


@dataclass(frozen=True)
class Proof:
    """One destruction. certificate: None if there is none that verifies. faults: what does not hold, in sentences."""

    id: str
    certificate: Certificate | None
    faults: tuple[str, ...]


def prove(run: Path, site: str, public_hex: str, lines: Sequence[Line]) -> tuple[Proof, ...]:
    """Every destruction at `site` that was begun or done, by its id. public_hex: the key by which the site is known. lines: of
    its ledger, which verifies."""
    run = run.resolve()
    home = RunFolder(run).site(site).path
    own = [line for line in lines if line.event == "destruction"]
    named = {str(line.facts["id"]) for line in own if line.facts.get("what") == DONE}
    records = [*home.glob(f"{DESTRUCTION}-*.begun.json"), *home.glob(f"{DESTRUCTION}-*.certificate.json")]
    found = []
    for name in sorted(named | {path.name.split(".")[0] for path in records}):
        path = home / f"{name}.certificate.json"
        if not path.exists():
            lost = "its certificate is gone" if name in named else "it was begun and is not finished"
            found.append(Proof(name, None, (f"{name}: {lost}.",)))
            continue
        raw = path.read_bytes()
        try:
            certificate = Certificate.from_json(raw)
        except DestructionError:
            found.append(Proof(name, None, (f"{name}: {_UNREADABLE}.",)))
            continue
        if not certificate.verify(public_hex) or certificate.site != site:
            found.append(Proof(name, None, (f"{name}: {_UNREADABLE}.",)))
            continue
        faults = [*_unrecorded(certificate, hashlib.sha256(raw).hexdigest(), own), *_left(run, site, certificate)]
        found.append(Proof(name, certificate, tuple(f"{name}: {fault}." for fault in faults)))
    return tuple(found)


def _unrecorded(certificate: Certificate, sha256: str, lines: Sequence[Line]) -> Iterator[str]:
    """What the ledger does not say of a certificate."""
    done = [line for line in lines if line.facts.get("what") == DONE and line.facts.get("certificate") == sha256]
    if not done:
        yield "no line of the site's ledger names its certificate"
    if not approved_by_another(certificate, lines):
        yield "the site's ledger does not show that somebody else approved it than who ordered it"


def approved_by_another(certificate: Certificate, lines: Sequence[Line]) -> bool:
    """Whether the ledger shows an order and, after it, its approval by somebody else, which the certificate is of (5.8-b)."""
    for line in lines:
        if line.facts.get("what") == APPROVED and line.facts.get("order") == certificate.order:
            return any(
                each.facts.get("what") == ORDERED
                and each.facts.get("order") == line.facts.get("ordered")
                and each.facts.get("by") != line.facts.get("by")
                and each.index < line.index
                for each in lines
            )
    return False


def _left(run: Path, site: str, certificate: Certificate) -> Iterator[str]:
    """What can still be read, or read again."""
    gone = {item.id for item in certificate.items if item.what != "key"}
    stay = {one for one in gone if any(one in text for text in certificate.derived)}
    yield from inventory.holding(run, inventory.within_reach(run, site), gone - stay)
    home = RunFolder(run).site(site).path
    keys = {one for item in certificate.items if item.what == "key" for one in item.id.split()}
    if (home / SEALING_KEY).exists() and _key_id(home) in keys:
        yield "the key that was destroyed is back"


def _key_id(home: Path) -> str:
    """The id of the site's sealing key; empty for a file that is no such key. Raises RequestError without its passphrase."""
    try:
        return sealing_key(home).id
    except FedprivsegError:
        if wants_passphrase(home / SEALING_KEY):
            raise
        return ""
