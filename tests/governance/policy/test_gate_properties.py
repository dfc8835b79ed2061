"""The gate under any policy, any context and any payload: no release without its own permit line, and no meet that opens."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from fakes import as_it_is
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprivseg.core.config import AdmissionConfig, ProtectionConfig
from fedprivseg.core.kinds import IMAGE_CODE, KINDS, METRIC, RAW, STATUS, WEIGHTS, KindSpec
from fedprivseg.core.records import Payload, digest
from fedprivseg.crypto.hpke import EncryptionKey, KeyCertificate, slot
from fedprivseg.crypto.identity import SiteKey, statement, verify
from fedprivseg.governance.ledger.ledger import Ledger, read
from fedprivseg.governance.ledger.ledger import verify as verify_ledger
from fedprivseg.governance.policy.agreement import Agreement, BreachPlan, Terms
from fedprivseg.governance.policy.gate import Gate, Refused, Released
from fedprivseg.governance.policy.policy_context import Enrolled, PolicyContext, Safeguards, Transfer
from fedprivseg.governance.policy.profile import Demand, SitePolicy, meet

SITE = "centre1"
KEY, SERVER, STRANGER = (SiteKey(Ed25519PrivateKey.from_private_bytes(bytes([n] * 32))) for n in range(3))
OPENER = EncryptionKey(X25519PrivateKey.from_private_bytes(bytes([9] * 32)))
PURPOSES = ("describe", "train", "infer", "measure")
TODAY = date(2026, 1, 1)


def often(*values: Any, usual: Any) -> st.SearchStrategy[Any]:
    """`usual` half of the time: where every part is drawn evenly, hardly anything is ever allowed."""
    return st.booleans().flatmap(lambda same: st.just(usual) if same else st.sampled_from(values))


st.register_type_strategy(KindSpec, st.sampled_from(KINDS))  # a grading is drawn from its types
some_kinds = often((), (STATUS,), (IMAGE_CODE, METRIC), (WEIGHTS, RAW), usual=tuple(KINDS))
STATED: dict[str, st.SearchStrategy[Any]] = {
    "profile": st.just("open-research"),
    "says": st.just("A policy that a test drew at random."),
    "kinds": some_kinds,
    "purposes": often((), ("train",), usual=PURPOSES),
    "max_level": often(1, 2, 3, 4, usual=5),
    "raw_sharing": often("forbidden", usual="allowed"),
    "consent": often("register", usual="release"),
    "agreement": often("required", usual="none"),
    "demands": often((Demand(of="image-code", protection="noise", at_least={"multiplier": 1.0}),), usual=()),
    "special_diseases": st.lists(st.sampled_from(["HCM", "DCM"]), max_size=2).map(tuple),
    "retention_days": st.none() | st.integers(0, 4000),
    "at_rest": st.sampled_from(["encrypted", "plain"]),
    "admission": st.builds(AdmissionConfig, image_leakage=st.floats(0, 1)),
    "encrypt_from": st.sampled_from([1, 2, 3, 4, 5, "never"]),
    "within_domain": some_kinds,
    "across_domains": some_kinds,
    "encrypt_across": st.sampled_from(["always", "by-level"]),
}
# What a policy may say beyond that is drawn by its type.
policies = st.builds(SitePolicy, **{name: STATED.get(name, ...) for name in SitePolicy.model_fields})


def agreed(end: date, kinds: tuple[KindSpec, ...], server: SiteKey) -> Agreement:
    terms = Terms(
        site=SITE, server="server", site_key=KEY.public_hex, server_key=server.public_hex, study="a test", kinds=kinds,
        purposes=PURPOSES, start=date(2025, 1, 1), end=end, protections=(), duties=(),
        breach=BreachPlan(contact="office", hours=1, steps=("tell",)),
    )  # fmt: skip
    return Agreement(terms=terms).signed("site", KEY).signed("server", server)


SOUND = agreed(date(2027, 1, 1), tuple(KINDS), SERVER)
CARD = KeyCertificate.issue(SERVER, OPENER)
transfers = st.builds(
    Transfer,
    site_key=st.just(KEY.public_hex),
    server_key=often(None, STRANGER.public_hex, usual=SERVER.public_hex),
    agreement=often(
        None, SOUND.model_copy(update={"server_signature": ""}), agreed(date(2025, 6, 1), tuple(KINDS), SERVER),
        agreed(date(2027, 1, 1), (STATUS,), SERVER), agreed(date(2027, 1, 1), tuple(KINDS), STRANGER), usual=SOUND,
    ),
    unreadable=often(True, usual=False),
    card=often(None, KeyCertificate.issue(STRANGER, OPENER), replace(CARD, signature="00" * 64), usual=CARD),
    domain=st.sampled_from(["", "north", "south"]),
    server_domain=st.sampled_from(["", "north"]),
)  # fmt: skip
enrolments = st.builds(
    Enrolled,
    subjects=often(0, 1_000, 10_000_000, usual=3),
    revoked=often(None, 1, usual=0),
    special=often(True, usual=False),
    unreadable=often(True, usual=False),
)
NOISE = ProtectionConfig(name="noise", parameters={"multiplier": 1.5})
standings = st.builds(
    PolicyContext,
    policy=st.none(),  # put in by each test
    today=st.just(TODAY),
    transfer=transfers,
    enrolled=enrolments,
    safeguards=st.sampled_from([Safeguards(), Safeguards((NOISE,))]),
)
payloads = st.builds(
    Payload,
    kind=st.sampled_from(KINDS),
    site=often("centre2", "", usual=SITE),
    purpose=often("resale", *PURPOSES, usual="train"),
    arrays=st.sampled_from(
        [{}, {"x": np.ones((2, 3), np.float32)}, {"x": np.array([np.nan])}, {"x": np.ones(2, np.int16)}]
    ),
    level=often(0, 1, 2, 4, 5, 6, usual=3),
)
exports = often(frozenset(), frozenset({STATUS, WEIGHTS}), usual=frozenset(KINDS))


def gate_of(policy: SitePolicy | None, context: PolicyContext, declared: frozenset[KindSpec]) -> Gate:
    return Gate(declared, SITE, replace(context, policy=policy))


@settings(max_examples=60, deadline=None)
@given(policy=policies, context=standings, sent=st.lists(payloads, min_size=1, max_size=3), declared=exports)
def test_no_payload_leaves_without_a_permit_line_of_exactly_its_digest(
    policy: SitePolicy, context: PolicyContext, sent: list[Payload], declared: frozenset[KindSpec]
) -> None:
    gate = gate_of(policy, context, declared)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        ledger = Ledger(Path(folder) / "ledger.jsonl", KEY, SITE)
        for number, drawn in enumerate(sent):
            payload = replace(drawn, shard=number, shards=number + 1)
            body = payload.encode()
            outcome = gate.release(
                body, ledger, KEY, "send", run_id="run", number=number, expected=partial(as_it_is, payload)
            )
            line = read(ledger.path)[-1]
            assert (line.facts["digest"], line.facts["number"]) == (digest(body), number)
            assert (line.event, line.facts["decision"]) == (
                ("release", "permit") if isinstance(outcome, Released) else ("refusal", "deny")
            )
            if isinstance(outcome, Refused):
                assert not {"encrypted_digest", "encrypted_to", "transfer"} & set(line.facts)
                continue
            place = slot("run", SITE, "send", number, payload.kind)
            plain = OPENER.open(place, outcome.body) if outcome.encrypted_to else outcome.body
            assert plain == body, "what leaves is what was decided on"
            assert verify(
                KEY.public_hex, statement("run", SITE, "send", number, digest(outcome.body)), outcome.signature
            )
            _was_allowed(policy, gate.context, payload, declared, bool(outcome.encrypted_to))
        assert verify_ledger(ledger.path, public_hex=KEY.public_hex).lines == len(sent) + 1


def _was_allowed(
    policy: SitePolicy, context: PolicyContext, payload: Payload, declared: frozenset[KindSpec], closed: bool
) -> None:
    """What a release has to satisfy, written out again and not by the gate's own functions."""
    transfer = context.transfer
    within = transfer.domain != "" and transfer.domain == transfer.server_domain
    assert payload.kind in declared
    assert payload.kind in policy.kinds
    assert payload.kind in (policy.within_domain if within else policy.across_domains)
    assert payload.purpose in policy.purposes
    assert payload.site == SITE
    assert not transfer.unreadable
    assert not context.enrolled.unreadable
    assert payload.level <= (4 if payload.kind is RAW else policy.max_level)
    assert payload.kind is not RAW or policy.raw_sharing == "allowed"
    agreement = transfer.agreement
    assert policy.agreement == "none" or agreement == SOUND or agreement.terms.kinds == (payload.kind,)
    assert policy.consent == "release" or (context.enrolled.subjects > 0 and context.enrolled.revoked == 0)
    assert not policy.demands or payload.kind is not IMAGE_CODE or context.safeguards.protections
    due = policy.encrypt_from != "never" and payload.level >= policy.encrypt_from
    assert closed == (due or (policy.encrypt_across == "always" and not within))
    assert not closed or transfer.card == CARD or transfer.card.server_key == transfer.server_key == STRANGER.public_hex


@settings(max_examples=120, deadline=None)
@given(one=policies, other=policies, context=standings, payload=payloads, declared=exports)
def test_a_meet_never_releases_what_either_policy_alone_would_refuse(
    one: SitePolicy, other: SitePolicy, context: PolicyContext, payload: Payload, declared: frozenset[KindSpec]
) -> None:
    both = gate_of(meet(one, other), context, declared)
    alone = [gate_of(policy, context, declared) for policy in (one, other)]
    if both.decide(payload).allowed:
        assert all(gate.decide(payload).allowed for gate in alone)
    if any(gate.context.encrypts(payload.level) for gate in alone):
        assert both.context.encrypts(payload.level), "what one wants closed stays closed"


@settings(max_examples=30, deadline=None)
@given(context=standings, payload=payloads, declared=exports)
def test_without_a_policy_nothing_is_allowed(
    context: PolicyContext, payload: Payload, declared: frozenset[KindSpec]
) -> None:
    assert not gate_of(None, context, declared).decide(payload).allowed


def test_the_drawn_policies_let_something_out_and_keep_something() -> None:
    """The properties above say nothing if every draw is refused: a sound case and one fault each, decided as they should be."""
    sound = SitePolicy(
        profile="open-research", says="A policy that lets everything out.", kinds=tuple(KINDS), purposes=PURPOSES, max_level=5,
        raw_sharing="allowed", consent="release", agreement="required", within_domain=tuple(KINDS), across_domains=tuple(KINDS),
    )  # fmt: skip
    context = PolicyContext(sound, TODAY, Transfer(KEY.public_hex, SERVER.public_hex, SOUND, card=CARD))
    payload = Payload(WEIGHTS, SITE, "train", {"x": np.ones(2, np.float32)})
    assert Gate(frozenset(KINDS), SITE, context).decide(payload).allowed
    for name, value in (
        ("card", None),
        ("agreement", None),
        ("unreadable", True),
        ("server_key", STRANGER.public_hex),
    ):
        other = replace(context, transfer=replace(context.transfer, **{name: value}))
        assert not Gate(frozenset(KINDS), SITE, other).decide(payload).allowed, name
