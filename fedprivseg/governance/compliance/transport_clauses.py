"""Checks of the clauses on transmission: by the lines of both sides' ledgers.

What had to be encrypted is read from each site's policy; that it was is what the line of its release says, and the server's
receipt of the same bytes. A channel that is encrypted (TLS) is a deployment's, and no line of a ledger shows it.
"""

from __future__ import annotations

from fedprivseg.core.errors import LedgerError
from fedprivseg.governance.compliance.evidence import Evidence, SiteEvidence, level_of
from fedprivseg.governance.compliance.verdict import Verdict, broken, kept, not_applicable, outside_software
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.line import Line

OPEN_BELOW = 3
"""Below this level data cannot identify a person, and may travel in plaintext."""

_NOTHING = not_applicable("Nothing was sent.")
_CHANGED = "Find out who changed the policy, and when."


def differs_by_need(evidence: Evidence) -> Verdict:
    """Protection of transmission differs by need: level, and security domain."""
    released = evidence.lines("release")
    if not released:
        return _NOTHING
    if plain := _plain(evidence):
        return broken("Payloads left in plaintext that the policy wants encrypted.", plain, _CHANGED)
    where = evidence.where("release")
    without = sorted({site.name for site, _ in released if not _encrypts(site)})
    if without:
        fix = 'Set encrypt_from to a level, or encrypt_across = "always", in the policy.'
        return broken(f"{', '.join(without)} encrypt nothing, whatever its level and recipient.", where[:2], fix)
    closed = [site.at(line) for site, line in released if _closed(line)]
    why = f"Each policy says from which level on, and across which domains, content is encrypted; {len(closed)} payloads were."
    return kept(why, closed or where)


def agreed(evidence: Evidence) -> Verdict:
    """Nothing was sent but under an agreement that both parties signed and that covers it."""
    where = [evidence.relative(site.folder.agreement) for site in evidence.sites if site.agreement is not None]
    without = [site.name for site in evidence.sites if site.policy is None or site.policy.agreement == "none"]
    if without:
        fix = 'Set agreement = "required" in the policy, and [study] agreement in the scenario.'
        return broken(f"{', '.join(without)} ask for no data-use agreement.", where, fix)
    released = evidence.lines("release")
    unsigned = sorted({site.name for site, _ in released if site.agreement is None or site.agreement.lacks()})
    if unsigned:
        why = f"{', '.join(unsigned)} sent data, and no agreement that both parties signed can be read there."
        return broken(why, where, "Restore the agreement from a backup, or have it signed.")
    under = [(site, line, site.agreement.terms) for site, line in released if site.agreement is not None]
    # A gate names the agreement that it has verified; one that was drawn up afterwards is none that a line names.
    if other := [site.at(line) for site, line, terms in under if line.facts.get("agreement") != terms.digest]:
        why = "Payloads left, and their lines do not name the agreement that is on file."
        return broken(why, other, "Put back the agreement under which they left.")
    beyond = [
        site.at(line)
        for site, line, terms in under
        if line.facts.get("kind") not in terms.kinds or line.facts.get("purpose") not in terms.purposes
    ]
    if beyond:
        return broken("Payloads left that the agreement does not cover.", beyond, "Find out who changed the agreement.")
    why = "The gates let nothing out without an agreement that both parties signed, nor outside its term; it covers what left."
    return kept(why, where)


def encrypted(evidence: Evidence) -> Verdict:
    """By class and level: encryption of channel or content, signatures, identities."""
    released = evidence.lines("release")
    if not released:
        return _NOTHING
    if plain := _plain(evidence):
        return broken("Payloads left in plaintext that the policy wants encrypted.", plain, _CHANGED)
    closed = [(site, line) for site, line in released if _closed(line)]
    received = _received(evidence)
    lost = [site.at(line) for site, line in closed if line.facts.get("encrypted_digest") not in received]
    if lost:
        fix = "Compare both ledgers: fedprivseg ledger verify."
        return broken("Encrypted payloads left that the server's ledger does not show.", lost, fix)
    if closed and not any(level_of(line) >= OPEN_BELOW and not _closed(line) for _, line in released):
        why = (
            f"All {len(closed)} payloads that a policy wants encrypted, and all of level {OPEN_BELOW} or above, left encrypted "
            "to the server's key, signed for their message; signature and sender were checked, and both ledgers name the same "
            "bytes."
        )
        return kept(why, [site.at(line) for site, line in closed])
    why = "Every payload was signed for its message; signature and sender were checked; the channel is a deployment's (TLS)."
    return outside_software(why, evidence.where("release")[:2])


def interfaces(evidence: Evidence) -> Verdict:
    """What passes within a security domain and between domains is what the policy lists."""
    released = evidence.lines("release")
    beyond = [
        site.at(line)
        for site, line in released
        if site.policy is None
        or line.facts.get("kind") not in site.policy.kinds
        or line.facts.get("purpose") not in site.policy.purposes
        or line.facts.get("kind") not in (site.policy.within_domain if _within(line) else site.policy.across_domains)
    ]
    if beyond:
        return broken("Payloads left that the site's policy does not list.", beyond, _CHANGED)
    if plain := _plain(evidence):
        return broken("Payloads went to another domain in plaintext.", plain, _CHANGED)
    inside = sum(_within(line) for _, line in released)
    why = (
        f"What may pass within a site's security domain and to another are lists of kinds; all else is refused. {inside} "
        f"payloads passed within a domain, {len(released) - inside} to another."
    )
    return kept(why, evidence.policies)


def _plain(evidence: Evidence) -> list[str]:
    """Where something left in plaintext that the site's policy wants encrypted."""
    return [site.at(line) for site, line in evidence.lines("release") if _due(site, line) and not _closed(line)]


def _closed(line: Line) -> bool:
    return bool(line.facts.get("encrypted_to"))


def _within(line: Line) -> bool:
    return line.facts.get("transfer") == "within"  # what a line does not say went to another domain


def _due(site: SiteEvidence, line: Line) -> bool:
    """Whether the site's policy wants encrypted what `line` released."""
    policy = site.policy
    if policy is None or (policy.encrypt_across == "always" and not _within(line)):
        return True
    return policy.encrypt_from != "never" and level_of(line) >= policy.encrypt_from


def _encrypts(site: SiteEvidence) -> bool:
    """Whether the site's policy encrypts anything at all."""
    policy = site.policy
    return policy is not None and (policy.encrypt_from != "never" or policy.encrypt_across == "always")


def _received(evidence: Evidence) -> frozenset[object]:
    """Digests of the encrypted bytes that the server's ledger shows as received; none if it does not verify."""
    path = evidence.run.server.ledger
    try:
        ledger.verify(path)
        return frozenset(line.facts.get("encrypted_digest") for line in ledger.read(path) if line.event == "receipt")
    except (LedgerError, OSError):
        return frozenset()
