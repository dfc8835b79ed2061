"""A preview of what the gates of a scenario's sites would refuse: their rules on empty payloads, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import get_args

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedprivseg.core.config import Scenario, SiteConfig
from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.records import Decision, Payload
from fedprivseg.core.study_config import AgreementConfig
from fedprivseg.crypto.hpke import EncryptionKey, KeyCertificate
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.policy.agreement import Agreement, BreachPlan, Terms
from fedprivseg.governance.policy.gate import Gate
from fedprivseg.governance.policy.grading import Judged
from fedprivseg.governance.policy.policy_context import Enrolled, PolicyContext, Safeguards, Transfer
from fedprivseg.governance.policy.profile import Purpose, SitePolicy, meet, parse_policy
from fedprivseg.governance.policy.technique_table import Technique


@dataclass(frozen=True)
class PolicyPreview:
    """What a site's gate would decide on a payload of `kind` for `purpose`, and what clause 5.2 says of it."""

    site: str
    kind: KindSpec
    purpose: str
    decision: Decision
    judged: tuple[Judged, ...]


def effective(scenario: Scenario, site: SiteConfig) -> SitePolicy | None:
    """The policy of a simulated hospital: its own, narrowed by what the scenario restricts; None if it has none. Raises
    ScenarioError for one that cannot be read."""
    if not site.policy:
        return None
    policy = parse_policy(site.policy, f"policy of {site.name}")
    for name in ("all", site.name):
        if name in scenario.policy.restrict:
            policy = meet(policy, parse_policy(scenario.policy.restrict[name], f"policy.restrict.{name}"))
    if scenario.policy.raw_sharing == "forbidden":
        policy = policy.model_copy(update={"raw_sharing": "forbidden"})
    return policy


@dataclass(frozen=True)
class Parties:
    """The parties of the data-use agreement at one site, with their keys, and the agreement if there is one that can be read.
    unreadable: there is one that cannot."""

    site: SiteKey
    server: SiteKey
    agreement: Agreement | None
    unreadable: bool = False


def terms_of(
    config: AgreementConfig, scenario: Scenario, site: str, exports: frozenset[KindSpec], keys: Parties
) -> Terms:
    """The terms between `site` and the server for `scenario`. Unless `config` names kinds they are `exports`, those that
    the method declares."""
    return Terms(
        site=site,
        server="server",
        site_key=keys.site.public_hex,
        server_key=keys.server.public_hex,
        study=scenario.question or scenario.name,
        kinds=config.kinds or tuple(sorted(exports)),
        purposes=tuple(sorted(get_args(Purpose))),
        start=config.start,
        end=config.end,
        protections=config.protections,
        duties=config.duties,
        breach=BreachPlan(**config.breach.model_dump()),
    )


def draw_up(
    scenario: Scenario, site: str, exports: frozenset[KindSpec], site_key: SiteKey, server_key: SiteKey
) -> Agreement | None:
    """The agreement that the scenario's simulated parties sign, with both signatures; None if it states none."""
    config = scenario.study.agreement
    if config is None:
        return None
    terms = terms_of(config, scenario, site, exports, Parties(site_key, server_key, None))
    return Agreement(terms=terms).signed("site", site_key).signed("server", server_key)


def preview_policy(
    scenario: Scenario,
    exports: frozenset[KindSpec],
    techniques: Mapping[KindSpec, tuple[Technique, ...]],
    parties: Mapping[str, Parties] = MappingProxyType({}),
) -> tuple[PolicyPreview, ...]:
    """What every site's gate would decide on every kind that the method declares, for each purpose. Where a register of
    consent is needed, it is assumed to cover somebody: only the site knows.

    Args:
        exports: the kinds that the method declares.
        techniques: those under which each kind leaves.
        parties: by site, the agreements that exist already; elsewhere the scenario's is drawn up.
    """
    found = []
    encryption = EncryptionKey(X25519PrivateKey.generate())
    for site in scenario.sites:
        own, server = SiteKey.new(), SiteKey.new()
        there = parties.get(site.name) or Parties(own, server, draw_up(scenario, site.name, exports, own, server))
        policy = effective(scenario, site)
        today = scenario.study.today or date.today()
        context = PolicyContext(
            policy=policy,
            today=today,
            transfer=Transfer(
                site_key=there.site.public_hex,
                server_key=there.server.public_hex,
                agreement=there.agreement,
                unreadable=there.unreadable,
                card=KeyCertificate.issue(there.server, encryption),
                domain=site.domain,
                server_domain=scenario.server.domain,
            ),
            enrolled=Enrolled(
                subjects=1,
                revoked=None if scenario.study.consent is None else 0,
                since=scenario.study.intake or today,
            ),
            safeguards=Safeguards(scenario.protections, techniques),
        )
        gate = Gate(exports, site.name, context)
        for kind in sorted(exports):
            for purpose in kind.purposes:
                empty = {"values": np.zeros(0, np.float32)}
                payload = Payload(kind, site.name, purpose, empty, level=context.level(kind).level)
                found.append(PolicyPreview(site.name, kind, purpose, gate.decide(payload), context.judged(kind)))
    return tuple(found)
