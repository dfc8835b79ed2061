"""Whether what a site's records say of a destruction is true: signatures, approvals, ledger, and files (clause 5.8-f).

Reads what anybody may read who audits: it needs neither the site's private key nor its staff.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedprivseg.core.errors import FedprivsegError
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.crypto.sealed_files import wants_passphrase
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle import inventory
from fedprivseg.governance.lifecycle.destruction.certificate import Certificate, DestructionError
from fedprivseg.governance.lifecycle.destruction.destruction_session import APPROVED, DONE, ORDERED
from fedprivseg.governance.sitefolder.history import DESTRUCTION
from fedprivseg.governance.sitefolder.vault import sealing_key


@dataclass(frozen=True)
class Proof:
    """One destruction.

    Attributes:
        certificate: None if there is none that verifies.
        faults: what is not true, in sentences.
    """

    id: str
    certificate: Certificate | None
    faults: tuple[str, ...]


def prove(run: Path, site: str, public_hex: str, lines: Sequence[Line]) -> tuple[Proof, ...]:
    """Every destruction at a site that was begun or done, by its id.

    Args:
        run: the run's folder.
        site: its name.
        public_hex: the key by which the site is known.
        lines: of its ledger, which verifies.
    """
    root = RunFolder(run.resolve())
    folder = root.site(site)
    own = [line for line in lines if line.event == DESTRUCTION]
    named = {str(line.facts["id"]) for line in own if line.facts.get("what") == DONE}
    records = [path for what in ("begun", "certificate") for path in folder.path.glob(f"{DESTRUCTION}-*.{what}.json")]
    found = []
    for name in sorted(named | {path.name.split(".")[0] for path in records}):
        certificate: Certificate | None = None
        path = folder.path / f"{name}.certificate.json"
        if not path.exists():
            faults = ["its certificate is gone" if name in named else "it was begun and is not finished"]
        elif (certificate := _read(path, public_hex, site)) is None:
            faults = ["its certificate was changed, or is not the site's"]
        else:
            faults = [*_unrecorded(certificate, own), *_left(root, folder, certificate)]
        found.append(Proof(name, certificate, tuple(f"{name}: {fault}." for fault in faults)))
    return tuple(found)


def _read(path: Path, public_hex: str, site: str) -> Certificate | None:
    """The certificate of this site, None for what is none or does not verify."""
    try:
        certificate = Certificate.from_json(path.read_bytes())
    except DestructionError:
        return None
    return certificate if certificate.verify(public_hex) and certificate.site == site else None


def _unrecorded(certificate: Certificate, lines: Sequence[Line]) -> Iterator[str]:
    """What the ledger does not say of a certificate."""
    sha256 = certificate.facts["certificate"]
    if not any(line.facts.get("what") == DONE and line.facts.get("certificate") == sha256 for line in lines):
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


def _left(run: RunFolder, folder: SiteFolder, certificate: Certificate) -> Iterator[str]:
    """What can still be read, or read again."""
    gone = {item.id for item in certificate.items if item.what != "key"}
    stay = {one for one in gone if any(one in text for text in certificate.derived)}
    yield from inventory.holding(run, inventory.within_reach(run, folder.name), gone - stay)
    keys = {one for item in certificate.items if item.what == "key" for one in item.id.split()}
    if folder.sealing_key.exists() and _key_id(folder) in keys:
        yield "the key that was destroyed is back"


def _key_id(folder: SiteFolder) -> str:
    """The id of the site's sealing key; empty for a file that is no such key. Raises RequestError without its passphrase."""
    try:
        return sealing_key(folder.path).id
    except FedprivsegError:
        if wants_passphrase(folder.sealing_key):
            raise
        return ""
