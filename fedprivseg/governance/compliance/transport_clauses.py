"""How a run kept the clauses about transmission (T/SCGS 313008-2024 5.3), judged on the lines of both sides' ledgers.

What had to be encrypted is read from each site's policy; that it was is what the line of its release says, and the server's
receipt of the same bytes. A channel that is encrypted (TLS) is a deployment's, and no line of a ledger shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedprivseg.core.errors import LedgerError
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.line import Line

if TYPE_CHECKING:
    from fedprivseg.governance.compliance.evidence import Evidence, Papers, Verdict

OPEN_BELOW = 3
"""Below this level data cannot identify a person (clause 5.5), and may travel in the open."""


def differs_by_need(evidence: Evidence) -> Verdict:
    """5.3.1: protection of transmission differs by need: level, and security domain."""
    released = evidence.lines("release")
    if not released:
        return "not applicable", "Nothing was sent.", [], ""
    if lapses := [_at(site, line) for site, line in released if _due(site, line) and not _closed(line)]:
        return "broken", "Payloads left open that the policy wants encrypted.", lapses, _CHANGED
    without = sorted({site.name for site, _ in released if site.policy is None or not _states(site)})
    if without:
        why = f"{', '.join(without)} encrypt nothing, whatever its level and wherever it goes."
        return "broken", why, [_at(site, line) for site, line in released][:2], _STATE_IT
    closed = [_at(site, line) for site, line in released if _closed(line)]
    why = f"Each policy says from which level on, and across which domains, content is encrypted; {len(closed)} payloads were."
    return "kept", why, closed or [_at(site, line) for site, line in released], ""


def agreed(evidence: Evidence) -> Verdict:
    """5.3.2-a: nothing was sent but under an agreement that both parties signed and that covers it."""
    without = [site.name for site in evidence.sites if site.policy is None or site.policy.agreement == "none"]
    where = [f"sites/{site.name}/agreement.json" for site in evidence.sites if site.agreement is not None]
    if without:
        why = f"{', '.join(without)} ask for no data-use agreement."
        return "broken", why, where, 'Set agreement = "required" in the policy, and [study] agreement in the scenario.'
    released = evidence.lines("release")
    unsigned = sorted({site.name for site, _ in released if site.agreement is None or site.agreement.lacks()})
    if unsigned:
        why = f"{', '.join(unsigned)} sent data, and no agreement that both parties signed can be read there."
        return "broken", why, where, "Restore the agreement from a backup, or have it signed."
    # A gate names the agreement that it has verified; one that was drawn up afterwards is none that a line names.
    other = [
        _at(site, line)
        for site, line in released
        if site.agreement is not None and line.facts.get("agreement") != site.agreement.terms.digest
    ]
    if other:
        why = "Payloads left, and their lines do not name the agreement that is on file."
        return "broken", why, other, "Put back the agreement under which they left."
    beyond = [
        _at(site, line)
        for site, line in released
        if site.agreement is not None
        and (
            line.facts.get("kind") not in site.agreement.terms.kinds
            or line.facts.get("purpose") not in site.agreement.terms.purposes
        )
    ]
    if beyond:
        return (
            "broken",
            "Payloads left that the agreement does not cover.",
            beyond,
            "Find out who changed the agreement.",
        )
    return (
        "kept",
        "The gates let nothing out without an agreement that both parties signed, nor outside its term; it covers what left.",
        where,
        "",
    )


def encrypted(evidence: Evidence) -> Verdict:
    """5.3.2-b: by class and level: encryption of channel or content, signatures, identities."""
    released = evidence.lines("release")
    if not released:
        return "not applicable", "Nothing was sent.", [], ""
    if lapses := [_at(site, line) for site, line in released if _due(site, line) and not _closed(line)]:
        return "broken", "Payloads left open that the policy wants encrypted.", lapses, _CHANGED
    closed = [(site, line) for site, line in released if _closed(line)]
    left_open = [line for _, line in released if _level(line) >= OPEN_BELOW and not _closed(line)]
    received = _received(evidence)
    lost = [_at(site, line) for site, line in closed if line.facts.get("encrypted_digest") not in received]
    if closed and lost:
        return "broken", "Encrypted payloads left that the server's ledger does not show.", lost, _COMPARE
    if closed and not left_open:
        why = (
            f"All {len(closed)} payloads that a policy wants closed, and all of level {OPEN_BELOW} or above, left encrypted to "
            "the server's key, signed for their slot; signature and sender were checked, and both ledgers name the same bytes."
        )
        return "kept", why, [_at(site, line) for site, line in closed], ""
    why = "Every payload was signed for its slot, and signature and sender were checked; the channel is a deployment's (TLS)."
    return "outside software", why, [_at(site, line) for site, line in released][:2], ""


def interfaces(evidence: Evidence) -> Verdict:
    """5.3.2-c: what passes within a security domain and between domains is what the policy lists."""
    released = evidence.lines("release")
    beyond = [
        _at(site, line)
        for site, line in released
        if site.policy is None
        or line.facts.get("kind") not in site.policy.kinds
        or line.facts.get("purpose") not in site.policy.purposes
        or line.facts.get("kind") not in (site.policy.within_domain if _within(line) else site.policy.across_domains)
    ]
    if beyond:
        return "broken", "Payloads left that the site's policy does not list.", beyond, _CHANGED
    if lapses := [_at(site, line) for site, line in released if _due(site, line) and not _closed(line)]:
        return "broken", "Payloads went to another domain in the open.", lapses, _CHANGED
    inside = sum(_within(line) for _, line in released)
    why = (
        f"What may pass within a site's security domain and to another are lists of kinds; all else is refused. {inside} "
        f"payloads passed within a domain, {len(released) - inside} to another."
    )
    return "kept", why, [f"sites/{site.name}/policy.toml" for site in evidence.sites if site.policy is not None], ""


_CHANGED = "Find out who changed the policy, and when."
_STATE_IT = 'Set encrypt_from to a level, or encrypt_across = "always", in the policy.'
_COMPARE = "Compare both ledgers: fedprivseg ledger verify."


def _at(site: Papers, line: Line) -> str:
    return f"{site.name}:{line.index}"


def _level(line: Line) -> int:
    return int(str(line.facts.get("level", 0)))


def _closed(line: Line) -> bool:
    return bool(line.facts.get("encrypted_to"))


def _within(line: Line) -> bool:
    return line.facts.get("transfer") == "within"  # what a line does not say went to another domain


def _due(site: Papers, line: Line) -> bool:
    """Whether the site's policy wants encrypted what `line` released."""
    policy = site.policy
    if policy is None or (policy.encrypt_across == "always" and not _within(line)):
        return True
    return policy.encrypt_from != "never" and _level(line) >= policy.encrypt_from


def _states(site: Papers) -> bool:
    """Whether the site's policy encrypts anything at all."""
    policy = site.policy
    return policy is not None and (policy.encrypt_from != "never" or policy.encrypt_across == "always")


def _received(evidence: Evidence) -> frozenset[object]:
    """Digests of the encrypted bytes that the server's ledger shows as received; none if it does not verify."""
    path = evidence.run / "server" / "ledger.jsonl"
    try:
        ledger.verify(path)
        return frozenset(line.facts.get("encrypted_digest") for line in ledger.read(path) if line.event == "receipt")
    except (LedgerError, OSError):
        return frozenset()
