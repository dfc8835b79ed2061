"""The policy context of a site on one day in one study: its policy, and what the policy asks for, as the gate finds it.

`PolicyContext.objection` is everything that a policy has against a payload before anybody looks into its arrays: whether its
kind may leave, under which agreement, with which protections, and on whose consent. The same function answers before anything
runs (``fedprivseg policy check``) and at the gate. Nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import get_args

from fedprivseg.core.config import ProtectionConfig
from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.records import Decision
from fedprivseg.crypto.hpke import KeyCertificate
from fedprivseg.governance.policy.agreement import CLAUSE as AGREEMENT_CLAUSE
from fedprivseg.governance.policy.agreement import Agreement, objection
from fedprivseg.governance.policy.grading import Judged, judge
from fedprivseg.governance.policy.levels import Assigned, payload_level
from fedprivseg.governance.policy.profile import Purpose, SitePolicy
from fedprivseg.governance.policy.retention import Term
from fedprivseg.governance.policy.technique_table import CLAUSE as STRATEGY_CLAUSE
from fedprivseg.governance.policy.technique_table import Technique

CONSENT_ENDED = "consent.no-longer-valid"
"""The rule of a gate by which a server knows that it has to delete what the site sent before."""


@dataclass(frozen=True)
class Transfer:
    """Between whom a payload passes, and what they agreed on.

    Attributes:
        site_key: the site's public key (hex).
        server_key: the server's, None if the site knows none yet.
        agreement: what was signed, None if nothing was.
        unreadable: whether there is an agreement that cannot be read.
        card: the server's encryption key, None if it showed none.
        domain: the security domain of the site, empty if unknown.
        server_domain: the same of the server, as the site knows it.
    """

    site_key: str = ""
    server_key: str | None = None
    agreement: Agreement | None = None
    unreadable: bool = False
    card: KeyCertificate | None = None
    domain: str = ""
    server_domain: str = ""

    @property
    def within(self) -> bool:
        """Whether the server is in the site's own security domain (clause 5.3.2-c); what is unknown is not."""
        return bool(self.domain) and self.domain == self.server_domain


@dataclass(frozen=True)
class Enrolled:
    """Whose data a payload may be made of.

    Attributes:
        subjects: how many subjects are enrolled.
        revoked: of how many of them consent is not valid any more; None if no register of consent was asked.
        special: whether any of them has a disease that the site treats as special.
        identified: whether anybody's images identify directly.
        since: the day of enrolment, from which the term of retention counts; None if nobody is enrolled.
        unreadable: whether the site's record of enrolment cannot be read.
        destroyed: whether destruction of what the site holds was begun.
    """

    subjects: int = 0
    revoked: int | None = None
    special: bool = False
    identified: bool = False
    since: date | None = None
    unreadable: bool = False
    destroyed: bool = False


@dataclass(frozen=True)
class Safeguards:
    """What is done to payloads before they leave.

    Attributes:
        protections: those of the scenario, each with the kinds it is for.
        techniques: of clause 5.2, under which a payload of each kind leaves.
    """

    protections: tuple[ProtectionConfig, ...] = ()
    techniques: Mapping[KindSpec, tuple[Technique, ...]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class PolicyContext:
    """What the gate holds a payload against.

    Attributes:
        policy: the site's; None if it has none that can be read, and then nothing leaves.
        today: the day.
        transfer: between whom the payload passes.
        enrolled: whose data it is made of.
        safeguards: what is done to it.
    """

    policy: SitePolicy | None
    today: date
    transfer: Transfer = Transfer()
    enrolled: Enrolled = Enrolled()
    safeguards: Safeguards = field(default_factory=Safeguards)

    def level(self, kind: KindSpec) -> Assigned:
        """The level of a payload of `kind` (clause 5.5)."""
        who = self.enrolled
        return payload_level(kind, special=who.special, subjects=who.subjects, identified=who.identified)

    @property
    def highest(self) -> int:
        """The highest level that may leave; 0, which no payload has, without a policy."""
        return 0 if self.policy is None else self.policy.max_level

    @property
    def under(self) -> str:
        """The digest of the agreement without which nothing may leave, as a ledger line names it; empty if none is needed."""
        needed = self.policy is not None and self.policy.agreement == "required"
        agreement = self.transfer.agreement
        return agreement.terms.digest if needed and agreement is not None else ""

    def encrypts(self, level: int) -> bool:
        """Whether what leaves at `level` is encrypted to the server's key; without a policy everything would be."""
        policy = self.policy
        if policy is None or (policy.encrypt_across == "always" and not self.transfer.within):
            return True
        return policy.encrypt_from != "never" and level >= policy.encrypt_from

    def unencryptable(self, level: int) -> str | None:
        """Why what has to be encrypted at `level` cannot be; None if it can, or need not. The server is who stands in the
        site's configuration, or, where none stands there, who signed the agreement with it."""
        if not self.encrypts(level):
            return None
        transfer = self.transfer
        if transfer.card is None:
            return "It has to be encrypted to the server's key, and the server showed none that can be read."
        known = transfer.server_key
        if known is None and transfer.agreement is not None and not transfer.agreement.lacks():
            known = transfer.agreement.terms.server_key
        return transfer.card.unfit(known)

    def objection(self, kind: KindSpec, purpose: str) -> Decision | None:
        """Why no payload of `kind` for `purpose` may leave; None if the policy has nothing against it."""
        policy = self.policy
        if policy is None:
            reason = "This site has no policy that can be read, and without one nothing leaves."
            return Decision(False, "policy.absent", reason, "5.6.2-b")
        return (
            self.expired
            or self._unreadable()
            or _kind(policy, kind)
            or self._transfer(policy, kind)
            or _purpose(policy, purpose)
            or self._level(policy, kind)
            or self._agreement(policy, kind, purpose)
            or self._demands(policy, kind)
            or self._unadvised(kind)
            or self._consent(policy)
        )

    @property
    def closed(self) -> bool:
        """Whether nothing may leave whatever it is: there is no policy, the record of enrolment cannot be read, the term of
        retention has ended, or what the site held was destroyed."""
        return self.policy is None or self.enrolled.unreadable or self.expired is not None

    @property
    def expired(self) -> Decision | None:
        """Why nothing at all may leave any more, whatever it is: what the site held was destroyed, or its term of retention has
        ended (clauses 5.8-a, 5.8-b); None if neither is so. It may be kept on the last day of the term."""
        if self.enrolled.destroyed:
            reason = (
                "What this site held for this study was destroyed, or its destruction was begun: it takes no more part."
            )
            return Decision(False, "destruction.begun", reason, "5.8-a")
        since = self.enrolled.since
        if self.policy is None or self.policy.retention_days is None or since is None:
            return None
        last = Term(days=self.policy.retention_days).end(since)
        if self.today <= last:
            return None
        reason = (
            f"What was made of patients' data may be kept for {self.policy.retention_days} days at this site: they were "
            f"enrolled on {since}, the term ended on {last}, and it is {self.today}. It is to be destroyed."
        )
        return Decision(False, "retention.expired", reason, "5.8-b")

    def _unreadable(self) -> Decision | None:
        if self.enrolled.unreadable:
            return _shut("records", "The site's record of enrolment", "5.1.2-b")
        if self.transfer.unreadable:
            return _shut("agreement", "The data-use agreement at this site", AGREEMENT_CLAUSE)
        return None

    def _transfer(self, policy: SitePolicy, kind: KindSpec) -> Decision | None:
        transfer = self.transfer
        allowed = policy.within_domain if transfer.within else policy.across_domains
        if kind in allowed:
            return None
        listed = ", ".join(allowed) or "nothing"
        if transfer.within:
            reason = (
                f"Within its security domain this site's policy does not let '{kind}' pass; it lets pass: {listed}."
            )
            return Decision(False, "transfer.within-domain", reason, "5.3.2-c")
        reason = (
            f"To another security domain this site's policy does not let '{kind}' pass; it lets pass: {listed}. The site is in "
            f"{transfer.domain or 'none that is stated'}, the server in {transfer.server_domain or 'none that the site knows'}."
        )
        return Decision(False, "transfer.across-domains", reason, "5.3.2-c")

    def _level(self, policy: SitePolicy, kind: KindSpec) -> Decision | None:
        assigned = self.level(kind)
        if kind.raw and self.enrolled.identified:
            reason = f"Raw images of level {assigned.level} do not leave, whatever a policy allows: {assigned.reason}."
            return Decision(False, "level.too-high", reason, "5.5")
        if kind.raw or assigned.level <= policy.max_level:
            return None
        reason = (
            f"A payload of kind '{kind}' is of level {assigned.level} ({assigned.reason}); from this site at most level "
            f"{policy.max_level} may leave."
        )
        return Decision(False, "level.too-high", reason, "5.5")

    def _agreement(self, policy: SitePolicy, kind: KindSpec, purpose: str) -> Decision | None:
        if policy.agreement == "none":
            return None
        return objection(
            self.transfer.agreement,
            site_key=self.transfer.site_key,
            server_key=self.transfer.server_key,
            kind=kind,
            purpose=purpose,
            today=self.today,
        )

    def _demands(self, policy: SitePolicy, kind: KindSpec) -> Decision | None:
        for demand in policy.demands:
            met = any(
                kind in each.of and each.name == demand.protection and demand.met_by(each.parameters)
                for each in self.safeguards.protections
            )
            if demand.of == kind and not met:
                reason = f"This site's policy demands {demand.in_words()}, and the scenario has no such protection."
                return Decision(False, "protection.missing", reason, "5.3.2-b")
        return None

    def judged(self, kind: KindSpec) -> tuple[Judged, ...]:
        """What Table 2 says of a payload of `kind`, under each grading that the policy has for it (clause 5.2)."""
        return judge(
            () if self.policy is None else self.policy.strategy, kind, self.safeguards.techniques.get(kind, ())
        )

    def _unadvised(self, kind: KindSpec) -> Decision | None:
        for each in self.judged(kind):
            if each.refused:
                reason = f"{each.sentence} This site's policy refuses what the table advises against."
                return Decision(False, "technique.not-recommended", reason, STRATEGY_CLAUSE)
        return None

    def _consent(self, policy: SitePolicy) -> Decision | None:
        who = self.enrolled
        if policy.consent == "release" and not who.revoked:
            return None
        if who.revoked is None:
            reason = "This site's policy enrols only subjects whose consent is on file, and no register was asked."
            return Decision(False, "consent.no-register", reason, "5.1.2-b")
        if who.revoked:
            reason = "Consent of enrolled subjects was revoked or has expired; take them out, then go on."
            return Decision(False, CONSENT_ENDED, reason, "5.1.2-b")
        if not who.subjects:
            reason = "No subject's consent covers this study, so there is nobody whose data could be used."
            return Decision(False, "consent.no-subjects", reason, "5.1.2-b")
        return None


def _shut(rule: str, what: str, clause: str) -> Decision:
    return Decision(
        False, f"{rule}.unreadable", f"{what} cannot be read, and what cannot be read allows nothing.", clause
    )


def _kind(policy: SitePolicy, kind: KindSpec) -> Decision | None:
    if kind in policy.kinds and (not kind.raw or policy.raw_sharing == "allowed"):
        return None
    if kind.raw:
        reason = "Raw images and masks do not leave: this site's policy does not allow it explicitly."
        return Decision(False, "raw-data.not-allowed", reason, "5.6.2-b")
    allowed = ", ".join(policy.kinds) or "nothing"
    reason = f"This site's policy does not let '{kind}' leave; it lets out: {allowed}."
    return Decision(False, "kind.not-allowed", reason, "5.6.2-b")


def _purpose(policy: SitePolicy, purpose: str) -> Decision | None:
    if purpose in policy.purposes:
        return None
    agreed = ", ".join(policy.purposes) or "nothing"
    # A reason leaves the site, and a payload's own words may hold anything.
    given = repr(purpose) if purpose in get_args(Purpose) else "that the payload states"
    reason = f"The purpose {given} is not agreed; agreed are: {agreed}."
    return Decision(False, "purpose.not-allowed", reason, "5.1.1")
