"""How the clauses of destruction (T/SCGS 313008-2024, 5.8-a to 5.8-f) are judged: by ledger lines, certificates, and files.

A certificate counts only if it verifies, the ledger names it, and nothing that it tells of can be read again
(`disposal.proof`). What was destroyed on a patient's withdrawal counts by its ledger line and by what is left of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from fedprivseg.core.errors import FedprivsegError
from fedprivseg.governance.lifecycle.destruction.certificates import Certificate
from fedprivseg.governance.lifecycle.destruction.expiry import review
from fedprivseg.governance.lifecycle.destruction.order import requirement
from fedprivseg.governance.lifecycle.destruction.proof import Proof, approved_by_another, prove
from fedprivseg.governance.policy.context import CONSENT_ENDED

if TYPE_CHECKING:
    from fedprivseg.governance.compliance.evidence import Evidence

State = Literal["kept", "broken", "not applicable", "outside software"]
Verdict = tuple[State, str, list[str], str]
"""(state, why, evidence, what would mend it)."""

_NOTHING: Verdict = ("not applicable", "Nothing was to be destroyed in this run.", [], "")
_PROVES_NOTHING = "overwriting proves nothing"
_AGAIN = "Carry it out again: fedprivseg destroy carry-out, or fedprivseg withdraw."


class Destructions:
    """What a run's folder tells of destructions, read once for all six clauses."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    @cached_property
    def proofs(self) -> list[tuple[str, Proof]]:
        """Every destruction that was begun or done, with its site. A site whose ledger does not hold proves nothing."""
        return [
            (site.name, proof)
            for site in self._evidence.sites
            if site.lines
            for proof in prove(self._evidence.run, site.name, str(site.lines[0].facts["public_key"]), site.lines)
        ]

    @property
    def certificates(self) -> list[tuple[str, Certificate]]:
        """Those that verify."""
        return [(site, proof.certificate) for site, proof in self.proofs if proof.certificate is not None]

    @property
    def faults(self) -> list[str]:
        """What does not hold, and what is left of subjects who withdrew."""
        return [*(fault for _, proof in self.proofs for fault in proof.faults), *self._evidence.left_traces]

    @property
    def withdrawn(self) -> list[str]:
        """Where the ledgers tell of withdrawals."""
        return [f"{site.name}:{line.index}" for site, line in self._evidence.lines("withdrawal")]

    @cached_property
    def overdue(self) -> list[str]:
        """What is kept beyond its term, in sentences."""
        return list(self._overdue())

    def _overdue(self) -> Iterator[str]:
        for site in self._evidence.sites:
            if site.policy is not None and site.lines:
                try:
                    found = review(self._evidence.run, site.name, site.lines)
                except (FedprivsegError, OSError):
                    yield f"{site.name} cannot tell what it holds"
                    continue
                yield from (f"{site.name}: {duty.name} was due on {duty.day}" for duty in found.due)

    @property
    def lapsed(self) -> list[str]:
        """Where a gate refused since consent of somebody taken in had lapsed, and nothing was done about it yet."""
        done = {site for site, _ in self.certificates}
        found: dict[str, str] = {}
        for site in self._evidence.sites:
            for line in site.lines:
                if line.event == "withdrawal":
                    found.pop(site.name, None)
                elif line.event == "refusal" and line.facts.get("rule") == CONSENT_ENDED and site.name not in done:
                    found.setdefault(site.name, f"{site.name}:{line.index}")
        return list(found.values())

    def where(self, what: str = "certificate") -> list[str]:
        """The files of records, relative to the run."""
        return [
            f"sites/{site}/{proof.id}.{what}.json"
            for site, proof in self.proofs
            if (self._evidence.run / "sites" / site / f"{proof.id}.{what}.json").exists()
        ]

    def line_of(self, site: str, certificate: Certificate) -> list[str]:
        """Where the site's ledger names a certificate."""
        sha256 = hashlib.sha256(certificate.to_json().encode("ascii")).hexdigest()
        (papers,) = [each for each in self._evidence.sites if each.name == site]
        return [f"{site}:{line.index}" for line in papers.of("destruction") if line.facts.get("certificate") == sha256]


def effective(evidence: Evidence) -> Verdict:
    """5.8-a: deletion is managed, and nothing can be recovered."""
    found = evidence.destructions
    if found.faults:
        return "broken", " ".join(found.faults), [*found.where(), *found.withdrawn], _AGAIN
    if found.overdue:
        mend = "Destroy it: fedprivseg retention names what is due, fedprivseg destroy begins."
        return "broken", f"Kept beyond its term: {'; '.join(found.overdue)}.", [], mend
    if found.lapsed:
        why = (
            "Consent of somebody who was taken in does not stand any more, and what was made of the data is still held."
        )
        return "broken", why, found.lapsed, "Carry the withdrawal out: fedprivseg withdraw RUN SITE SUBJECT."
    if not found.certificates and not found.withdrawn:
        return _NOTHING
    why = "What was to go is gone: no file of the site or the server holds it, and no key that is left opens it."
    return "kept", why, [*found.where(), *found.withdrawn], ""


def approved(evidence: Evidence) -> Verdict:
    """5.8-b: ordered and approved by two people."""
    found = evidence.destructions
    lines = {site.name: site.lines for site in evidence.sites}
    alone = [
        f"{site}: {certificate.id}"
        for site, certificate in found.certificates
        if not approved_by_another(certificate, lines[site])
    ]
    where = [at for site, certificate in found.certificates for at in found.line_of(site, certificate)]
    if alone:
        why = f"The ledger shows no approval by somebody else: {', '.join(alone)}."
        return "broken", why, found.where(), "Have destructions approved by somebody else: fedprivseg destroy approve."
    if found.certificates:
        return "kept", "Each was ordered by one and approved by another, both in the site's ledger.", where, ""
    if found.withdrawn:
        return "kept", "Ordered by the patients who withdrew; what goes is fixed.", found.withdrawn, ""
    return _NOTHING


def by_level(evidence: Evidence) -> Verdict:
    """5.8-c: the method follows class and level."""
    found = evidence.destructions
    if not found.certificates:
        return _NOTHING
    weak = [
        f"{site}: {each.id} by {each.method} at level {each.level}"
        for site, each in found.certificates
        if each.method not in requirement(each.data_class, each.level).methods
    ]
    if weak:
        return "broken", f"The method is too weak: {'; '.join(weak)}.", found.where(), "Order a stronger method."
    done = sorted({f"{each.method} ({each.data_class}, level {each.level})" for _, each in found.certificates})
    return "kept", f"By {'; '.join(done)}, as class and level ask.", found.where(), ""


def at_network(evidence: Evidence) -> Verdict:
    """5.8-d: what lies elsewhere than at the site."""
    found = evidence.destructions
    left = [
        site for site, _ in found.certificates if any((evidence.run / "server/codes" / site).rglob("*.safetensors"))
    ]
    if left:
        return "broken", f"The server still has shards of {', '.join(left)}.", found.where(), _AGAIN
    count = sum(item.what == "shard" for _, each in found.certificates for item in each.items)
    if count:
        why = (
            f"{count} files are gone at the server, found by SHA-256 and overwritten; that it kept no copy is its word."
        )
        return "kept", why, found.where(), ""
    if found.withdrawn:
        return "kept", "The server's shards of those who withdrew are deleted.", found.withdrawn, ""
    return _NOTHING


def at_media(evidence: Evidence) -> Verdict:
    """5.8-e: flash, disk, tape, disc."""
    found = evidence.destructions
    if not found.certificates:
        return _NOTHING
    loose = sorted(
        {site for site, each in found.certificates if any(_PROVES_NOTHING in limit for limit in each.limits)}
    )
    if loose:
        why = (
            f"At {', '.join(loose)} overwriting proves nothing; to destroy the medium is for people, and the certificate "
            "says what was arranged."
        )
        return "outside software", why, found.where(), ""
    return (
        "kept",
        "Overwritten in place, or sealed under a key that was: each certificate tells the medium.",
        found.where(),
        "",
    )


def irreversible(evidence: Evidence) -> Verdict:
    """5.8-f: content and copies, irreversibly, proved by a certificate."""
    found = evidence.destructions
    if found.faults:
        return "broken", " ".join(found.faults), [*found.where(), *found.withdrawn], _AGAIN
    elsewhere = [f"{site}: {copy}" for site, each in found.certificates for copy in each.elsewhere]
    if elsewhere:
        why = f"Copies out of reach are listed, and are for people to destroy: {'; '.join(elsewhere)}."
        return "outside software", why, found.where(), ""
    if found.certificates:
        return "kept", "Every certificate verifies, and its ledger line stands.", found.where(), ""
    if found.withdrawn:
        return (
            "kept",
            "What was made of those who withdrew is deleted, and made anew without them.",
            found.withdrawn,
            "",
        )
    return _NOTHING


CLAUSES: tuple[tuple[str, str, Callable[[Evidence], Verdict]], ...] = (
    ("5.8-a", "Deletion is managed; nothing can be recovered from the medium.", effective),
    ("5.8-b", "Destruction is ordered and approved; object and flow are stated.", approved),
    ("5.8-c", "The method follows class and level.", by_level),
    ("5.8-d", "What is stored over the network is destroyed too.", at_network),
    ("5.8-e", "Flash, disks, tapes and discs are destroyed hard or soft.", at_media),
    ("5.8-f", "Content and copies go irreversibly.", irreversible),
)
"""Each clause, what it asks in a few words, and how it is judged."""
