"""The gate as a table: every kind of payload under every state of policy, level, agreement, consent, purpose and content.

One line of `STATES` is one thing that is not as it should be, with the rule that then decides for each kind it is about.
The tables below are that list crossed with all kinds, alone and in pairs; of two objections the earlier in `STATES` decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedprivseg.core.config import ProtectionConfig
from fedprivseg.core.kinds import (
    IMAGE_CODE,
    KINDS,
    MASK_CODE,
    MASK_SHARE,
    MASKED_WEIGHTS,
    METRIC,
    PUBLIC_ANSWERS,
    PUBLIC_START,
    RAW,
    STATUS,
    WEIGHTS,
    KindSpec,
    kind_named,
)
from fedprivseg.core.records import Payload
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.policy.agreement import Agreement, BreachPlan, Terms
from fedprivseg.governance.policy.gate import Gate
from fedprivseg.governance.policy.policy_context import Enrolled, PolicyContext, Safeguards, Transfer
from fedprivseg.governance.policy.profile import Demand, SitePolicy

SITE, SERVER, OTHER = (SiteKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2, 3))  # for tests
PURPOSES = ("train", "infer", "measure")
TERMS = Terms(
    site="centre1",
    server="server",
    site_key=SITE.public_hex,
    server_key=SERVER.public_hex,
    study="Does the right ventricle gain from other centres?",
    kinds=tuple(KINDS),
    purposes=PURPOSES,
    start=date(2026, 1, 1),
    end=date(2026, 6, 30),
    protections=("signed payloads",),
    duties=("destroy codes at the end",),
    breach=BreachPlan(contact="data protection office", hours=24, steps=("stop",)),
)
DRAFT = Agreement(terms=TERMS)


def signed(**changes: Any) -> Agreement:
    return Agreement(terms=TERMS.model_copy(update=changes)).signed("site", SITE).signed("server", SERVER)


SIGNED = signed()
POLICY = SitePolicy(
    profile="scgs-313008",
    says="A policy of the tests: all kinds may leave on consent and agreement.",
    kinds=tuple(KINDS),
    purposes=("train", "infer"),
    max_level=4,
    raw_sharing="allowed",
    consent="register",
    agreement="required",
    at_rest="plain",
    encrypt_from="never",
    within_domain=tuple(KINDS),
    across_domains=tuple(KINDS),
    encrypt_across="by-level",
)
NOISE = Demand(of="image-code", protection="noise", at_least={"multiplier": 1.0})

# Clause 5.5 as the package assigns it: pictures, codes and weights could be told again, counts identify nobody.
LEVEL = {
    RAW: 3,
    **dict.fromkeys((IMAGE_CODE, MASK_CODE, WEIGHTS, PUBLIC_ANSWERS), 3),
    **dict.fromkeys((METRIC, STATUS, MASKED_WEIGHTS, MASK_SHARE, PUBLIC_START), 2),
}
TOLD_AGAIN = (IMAGE_CODE, MASK_CODE, WEIGHTS, PUBLIC_ANSWERS)
COUNTS = (METRIC, STATUS, MASKED_WEIGHTS, MASK_SHARE, PUBLIC_START)
CODED = (*TOLD_AGAIN, *COUNTS)  # all but raw


@dataclass(frozen=True)
class Situation:
    """What the gate finds; as it stands everything may leave. level: of the payload, None for what it is by rule."""

    policy: Mapping[str, Any] = field(default_factory=dict)
    has_policy: bool = True
    declared: bool = True
    agreement: Agreement | None = SIGNED
    server_key: str | None = SERVER.public_hex
    today: date = date(2026, 3, 1)
    protections: tuple[ProtectionConfig, ...] = ()
    enrolled: Enrolled = field(default_factory=lambda: Enrolled(10, 0))
    site: str = "centre1"
    purpose: str = "train"
    level: int | None = None
    array: Any = 0.0

    def decide(self, kind: KindSpec) -> Any:
        """The gate's decision on a payload of `kind`."""
        policy = POLICY.model_copy(update=dict(self.policy)) if self.has_policy else None
        standing = PolicyContext(
            policy=policy,
            today=self.today,
            transfer=Transfer(SITE.public_hex, self.server_key, self.agreement),
            enrolled=self.enrolled,
            safeguards=Safeguards(self.protections),
        )
        exports = frozenset(KINDS) if self.declared else frozenset(KINDS) - {kind}
        level = standing.level(kind).level if self.level is None else self.level
        payload = Payload(kind, self.site, self.purpose, {"values": np.asarray(self.array)}, level=level)
        return Gate(exports, "centre1", standing).decide(payload)


class State(NamedTuple):
    """about: of two states about the same, only one can be. rules: what then decides, for the kinds that it is about."""

    about: str
    name: str
    changes: dict[str, Any]
    rules: dict[KindSpec, tuple[str, str]]


def of(kinds: Any, rule: str, clause: str, **others: str) -> dict[KindSpec, tuple[str, str]]:
    """The same rule for `kinds`, with others for raw and key."""
    found = dict.fromkeys(kinds, (rule, clause))
    return found | {kind_named(name.replace("_", "-")): (other, clause) for name, other in others.items()}


def agreed(name: str, rule: str, agreement: Agreement | None, **more: Any) -> State:
    return State("agreement", name, {"agreement": agreement, **more}, of(KINDS, f"agreement.{rule}", "5.3.2-a"))


ALTERED = SIGNED.model_copy(update={"terms": TERMS.model_copy(update={"end": date(2030, 1, 1)})})
STATES = (
    State(
        "method",
        "not declared",
        {"declared": False},
        of(KINDS, "kind.undeclared", "5.6.2-b", raw="raw-data.not-allowed"),
    ),
    State("policy", "no policy", {"has_policy": False}, of(KINDS, "policy.absent", "5.6.2-b")),
    State(
        "policy",
        "a policy for no kind",
        {"policy": {"kinds": ()}},
        of(KINDS, "kind.not-allowed", "5.6.2-b", raw="raw-data.not-allowed"),
    ),
    State(
        "policy",
        "raw forbidden",
        {"policy": {"raw_sharing": "forbidden"}},
        of([RAW], "raw-data.not-allowed", "5.6.2-b"),
    ),
    State("purpose", "another purpose", {"purpose": "measure"}, of(KINDS, "purpose.not-allowed", "5.1.1")),
    State("purpose", "no purpose", {"purpose": ""}, of(KINDS, "purpose.not-allowed", "5.1.1")),
    State("policy", "up to level 1", {"policy": {"max_level": 1}}, of(CODED, "level.too-high", "5.5")),
    State("policy", "up to level 2", {"policy": {"max_level": 2}}, of(TOLD_AGAIN, "level.too-high", "5.5")),
    State("policy", "up to level 3", {"policy": {"max_level": 3}}, {}),
    State(
        "disease",
        "a special disease, up to level 3",
        {"enrolled": Enrolled(10, 0, special=True), "policy": {"max_level": 3}},
        of((*TOLD_AGAIN, RAW), "level.too-high", "5.5"),
    ),
    State(
        "disease",
        "ten thousand patients",
        {"enrolled": Enrolled(10_000, 0), "policy": {"max_level": 2}},
        of(CODED, "level.too-high", "5.5"),
    ),
    agreed("no agreement", "absent", None),
    agreed("with another site", "parties", Agreement(terms=TERMS.model_copy(update={"site_key": OTHER.public_hex}))),
    agreed("with another server", "parties", SIGNED, server_key=OTHER.public_hex),
    agreed("signed by nobody", "unsigned", DRAFT),
    agreed("signed by the site alone", "unsigned", DRAFT.signed("site", SITE)),
    agreed("signed by the server alone", "unsigned", DRAFT.signed("server", SERVER)),
    agreed("changed after it was signed", "unsigned", ALTERED),
    agreed("before its term", "term", SIGNED, today=date(2025, 12, 31)),
    agreed("after its term", "term", SIGNED, today=date(2026, 7, 1)),
    agreed("for other purposes", "purpose", signed(purposes=("measure",))),
    State(
        "agreement",
        "for codes alone",
        {"agreement": signed(kinds=(IMAGE_CODE, MASK_CODE))},
        of(set(KINDS) - {IMAGE_CODE, MASK_CODE}, "agreement.kind", "5.3.2-a"),
    ),
    State(
        "protection",
        "noise demanded, none there",
        {"policy": {"demands": (NOISE,)}},
        of([IMAGE_CODE], "protection.missing", "5.3.2-b"),
    ),
    State(
        "protection",
        "noise demanded, too little",
        {
            "policy": {"demands": (NOISE,)},
            "protections": (ProtectionConfig(name="noise", parameters={"multiplier": 0.5}),),
        },
        of([IMAGE_CODE], "protection.missing", "5.3.2-b"),
    ),
    State("consent", "no register", {"enrolled": Enrolled(10)}, of(KINDS, "consent.no-register", "5.1.2-b")),
    State("consent", "one withdrew", {"enrolled": Enrolled(10, 1)}, of(KINDS, "consent.no-longer-valid", "5.1.2-b")),
    State("consent", "all withdrew", {"enrolled": Enrolled(10, 10)}, of(KINDS, "consent.no-longer-valid", "5.1.2-b")),
    State("consent", "nobody agreed", {"enrolled": Enrolled(0, 0)}, of(KINDS, "consent.no-subjects", "5.1.2-b")),
    State("sender", "from another site", {"site": "centre2"}, of(KINDS, "site.mismatch", "5.3.2-b")),
    State(
        "level", "a special disease", {"enrolled": Enrolled(10, 0, special=True)}, of([RAW], "level.too-high", "5.5")
    ),
    State("level", "claims level 5", {"level": 5}, of(KINDS, "level.too-high", "5.5")),
    State("level", "claims level 0", {"level": 0}, of(KINDS, "level.too-high", "5.5")),
    State("level", "claims level 1", {"level": 1}, of(KINDS, "level.under-classified", "5.5")),
    State("content", "text", {"array": "name"}, of(KINDS, "arrays.dtype", "5.1.2-c")),
    State("content", "not a number", {"array": np.nan}, of(KINDS, "arrays.non-finite", "5.1.2-c")),
)
"""In the order in which the gate asks."""

HARMLESS = (
    State(
        "consent", "the licence stands for consent", {"policy": {"consent": "release"}, "enrolled": Enrolled(10)}, {}
    ),
    State("agreement", "none is asked for", {"policy": {"agreement": "none"}, "agreement": None}, {}),
    State("agreement", "on its first day", {"today": date(2026, 1, 1)}, {}),
    State("agreement", "on its last day", {"today": date(2026, 6, 30)}, {}),
    State("agreement", "with a server not known yet", {"server_key": None}, {}),
    State("purpose", "to infer", {"purpose": "infer"}, {}),
    State(
        "protection",
        "the noise that is demanded",
        {
            "policy": {"demands": (NOISE,)},
            "protections": (ProtectionConfig(name="noise", parameters={"multiplier": 2.0}),),
        },
        {},
    ),
    State("disease", "a thousand patients", {"enrolled": Enrolled(1_000, 0)}, {}),
)


def situation(*states: State) -> Situation:
    """All of them at once; what several say of the policy is put together."""
    changes: dict[str, Any] = {}
    for state in states:
        policy = {**changes.get("policy", {}), **state.changes.get("policy", {})}
        changes |= {**state.changes, "policy": policy}
    return replace(Situation(), **changes)


SINGLE = [(state, kind) for state in STATES for kind in KINDS]


@pytest.mark.parametrize(("state", "kind"), SINGLE, ids=[f"{state.name}-{kind}" for state, kind in SINGLE])
def test_one_thing_that_is_not_as_it_should_be(state: State, kind: KindSpec) -> None:
    decision = situation(state).decide(kind)
    permitted = "raw-data.allowed" if kind is RAW else "kind.declared"
    rule, clause = state.rules.get(kind, (permitted, "5.6.2-b"))
    assert (decision.allowed, decision.rule, decision.clause) == (kind not in state.rules, rule, clause)
    assert decision.reason.endswith(".")


@pytest.mark.parametrize("state", HARMLESS, ids=lambda state: state.name)
@pytest.mark.parametrize("kind", KINDS)
def test_what_may_well_be_so(state: State, kind: KindSpec) -> None:
    assert situation(state).decide(kind).allowed


def test_the_table_is_large_and_has_both_answers() -> None:
    allowed = sum(kind not in state.rules for state, kind in SINGLE) + len(HARMLESS) * len(KINDS)
    denied = sum(kind in state.rules for state, kind in SINGLE)
    assert allowed >= 100
    assert denied >= 150
    assert {state.about for state in STATES} >= {"policy", "purpose", "agreement", "consent", "level", "protection"}
    assert set(LEVEL) == set(KINDS)
    for kind, level in LEVEL.items():
        assert PolicyContext(POLICY, date(2026, 3, 1), enrolled=Enrolled(10)).level(kind).level == level


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_objections_the_earlier_decides_and_none_undoes_another(kind: KindSpec) -> None:
    tried = 0
    for one, two in combinations((*STATES, *HARMLESS), 2):
        # What both would set differently cannot be at once; levels that the policy and the disease set are one number.
        apart = one.about != two.about and {one.about, two.about} != {"policy", "disease"}
        shared = set(one.changes) & set(two.changes) - {"policy"}
        limits = {"policy", "disease", "level"}
        # Raw pictures of level 5 are stopped last, by the gate itself, and not by the policy's highest level.
        raw = kind is RAW and one.about == "disease" and kind in one.rules
        if apart and not raw and not shared and not {one.about, two.about} <= limits:
            rules = [state.rules[kind][0] for state in (one, two) if kind in state.rules]
            decision = situation(one, two).decide(kind)
            assert decision.allowed == (not rules), (one.name, two.name)
            if rules:
                assert decision.rule == rules[0], (one.name, two.name)
            tried += 1
    assert tried > 500
