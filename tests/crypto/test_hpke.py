"""Content that is encrypted to the server's key: by level, by domain, for one slot, to a card that the known server signed."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fakes import accepted, as_it_is
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprivseg.core.errors import PayloadError, RequestError
from fedprivseg.core.expected import Array, Expected
from fedprivseg.core.kinds import IMAGE_CODE, KINDS, MASK_CODE, METRIC, WEIGHTS, KindSpec
from fedprivseg.core.records import Order, Payload, digest
from fedprivseg.crypto.hpke import OVERHEAD, EncryptionKey, KeyCertificate, key_id, slot
from fedprivseg.crypto.identity import SiteKey, statement, verify
from fedprivseg.governance.ledger.ledger import Ledger, read
from fedprivseg.governance.policy.agreement import Agreement, BreachPlan, Terms
from fedprivseg.governance.policy.gate import Gate, Refused, Released
from fedprivseg.governance.policy.policy_context import PolicyContext, Transfer
from fedprivseg.governance.policy.profile import SitePolicy
from fedprivseg.runtime.server.intake import Intake
from fedprivseg.runtime.wire import Released as Sent

SITE, TODAY = "centre1", date(2026, 1, 1)
KEY = SiteKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))  # fixed, for tests only
SERVER = SiteKey(Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))
PRIVATE = X25519PrivateKey.from_private_bytes(bytes([2] * 32))
OPENER = EncryptionKey(PRIVATE)
CARD = KeyCertificate.issue(SERVER, OPENER)
SLOT = slot("run1", SITE, "send", 3, IMAGE_CODE)
CODES = Payload(IMAGE_CODE, SITE, "train", {"codes": np.arange(12, dtype=np.float16).reshape(3, 4)}, shard=3, shards=4)
EXPECTED = Expected(IMAGE_CODE, "train", {"codes": Array("float16", (None, 4))})
CLOSED = SitePolicy(
    profile="open-research",
    says="A policy of the tests: codes leave, closed from level 3 on.",
    kinds=tuple(KINDS),
    purposes=("train", "measure"),
    max_level=5,
    raw_sharing="allowed",
    consent="release",
    agreement="none",
    encrypt_from=3,
    within_domain=tuple(KINDS),
    across_domains=tuple(KINDS),
    encrypt_across="by-level",
)


def gate_of(card: KeyCertificate | None = CARD, server_key: str | None = SERVER.public_hex, **changes: Any) -> Gate:
    standing = PolicyContext(CLOSED.model_copy(update=changes), TODAY, Transfer(KEY.public_hex, server_key, card=card))
    return Gate(frozenset(KINDS), SITE, standing)


def release(gate: Gate, folder: Path, payload: Payload = CODES) -> Released | Refused:
    ledger = Ledger(folder / "ledger.jsonl", KEY, SITE)
    return gate.release(
        payload.encode(), ledger, KEY, "send", run_id="run1", number=3, expected=lambda: as_it_is(payload)
    )


# ------------------------------------------------------------------------------------------ the construction


def _extract(salt: bytes, key: bytes) -> bytes:
    mac = hmac.HMAC(salt or bytes(32), hashes.SHA256())
    mac.update(key)
    return mac.finalize()


def _expand(key: bytes, info: bytes, length: int) -> bytes:
    found, block, counter = b"", b"", 1
    while len(found) < length:
        mac = hmac.HMAC(key, hashes.SHA256())
        mac.update(block + info + bytes([counter]))
        block = mac.finalize()
        found, counter = found + block, counter + 1
    return found[:length]


def opened_by_the_book(private: X25519PrivateKey, info: bytes, sealed: bytes) -> bytes:
    """RFC 9180 written out from its sections 4, 4.1, 5.1 and 5.2: base mode, DHKEM(X25519), HKDF-SHA256, AES-256-GCM."""

    def labelled(suite: bytes):
        def extract(salt: bytes, label: bytes, key: bytes) -> bytes:
            return _extract(salt, b"HPKE-v1" + suite + label + key)

        def expand(key: bytes, label: bytes, text: bytes, length: int) -> bytes:
            return _expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + text, length)

        return extract, expand

    ephemeral, ciphertext = sealed[:32], sealed[32:]
    extract, expand = labelled(b"KEM" + (0x0020).to_bytes(2, "big"))
    shared = private.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    both = ephemeral + private.public_key().public_bytes_raw()
    secret = expand(extract(b"", b"eae_prk", shared), b"shared_secret", both, 32)
    extract, expand = labelled(b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (0x0020, 0x0001, 0x0002)))
    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    schedule = extract(secret, b"secret", b"")
    key, nonce = expand(schedule, b"key", context, 32), expand(schedule, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, b"")


@given(body=st.binary(max_size=300))
@settings(max_examples=40, deadline=None)
def test_what_is_sealed_is_hpke_by_the_book_and_opens_to_the_same_bytes(body: bytes) -> None:
    sealed = CARD.seal(SLOT, body)
    assert len(sealed) == len(body) + OVERHEAD
    assert opened_by_the_book(PRIVATE, SLOT, sealed) == OPENER.open(SLOT, sealed) == body
    assert CARD.seal(SLOT, body) != sealed, "an ephemeral key of its own each time"


@pytest.mark.parametrize(
    "other",
    [
        slot("run2", SITE, "send", 3, IMAGE_CODE),
        slot("run1", "centre2", "send", 3, IMAGE_CODE),
        slot("run1", SITE, "send_test", 3, IMAGE_CODE),
        slot("run1", SITE, "send", 4, IMAGE_CODE),
        slot("run1", SITE, "send", 3, MASK_CODE),
    ],
)
def test_what_is_sealed_for_one_slot_opens_in_no_other(other: bytes) -> None:
    with pytest.raises(PayloadError, match="cannot be opened"):
        OPENER.open(other, CARD.seal(SLOT, b"codes"))


def test_one_changed_byte_anywhere_or_another_key_opens_nothing() -> None:
    sealed = CARD.seal(SLOT, b"codes")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(PayloadError, match="cannot be opened"):
            OPENER.open(SLOT, bytes(changed))
    for cut in (b"", sealed[:31], sealed[:-1]):
        with pytest.raises(PayloadError, match="cannot be opened"):
            OPENER.open(SLOT, cut)
    with pytest.raises(PayloadError, match="cannot be opened"):
        EncryptionKey(X25519PrivateKey.generate()).open(SLOT, sealed)


def test_a_key_file_is_the_owners_alone_and_is_never_overwritten_or_printed(tmp_path: Path) -> None:
    key = EncryptionKey.create(tmp_path / "encryption.pem")
    assert stat.S_IMODE((tmp_path / "encryption.pem").stat().st_mode) == 0o600
    assert EncryptionKey.load(tmp_path / "encryption.pem").public_hex == key.public_hex
    assert repr(key) == f"EncryptionKey(key_id={key_id(key.public_hex)})"
    with pytest.raises(RequestError, match="never overwritten"):
        EncryptionKey.create(tmp_path / "encryption.pem")
    SiteKey.create(tmp_path / "identity.pem")
    (tmp_path / "garbage.pem").write_bytes(b"\xff")
    for name in ("identity.pem", "garbage.pem", "absent.pem"):
        with pytest.raises(RequestError, match=f"{name} (holds no X25519|could not be read)"):
            EncryptionKey.load(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"server_key": 1}', CARD.text()[:-9], CARD.text()[:-3] + 'x"}']
)
def test_what_is_no_card_is_none(text: str) -> None:
    assert KeyCertificate.read(CARD.text()) == CARD
    assert KeyCertificate.read(text) is None


# ------------------------------------------------------------------------------------------ at the gate


def test_a_payload_at_the_threshold_leaves_closed_and_the_server_opens_the_same_bytes(tmp_path: Path) -> None:
    released = release(gate_of(), tmp_path)
    assert isinstance(released, Released)
    assert released.body != CODES.encode()
    assert CODES.arrays["codes"].tobytes() not in released.body
    assert released.digest == digest(CODES.encode())
    assert verify(KEY.public_hex, statement("run1", SITE, "send", 3, digest(released.body)), released.signature)
    facts = read(tmp_path / "ledger.jsonl")[-1].facts
    assert facts["encrypted_to"] == released.encrypted_to == CARD.key_id == key_id(OPENER.public_hex)
    assert (facts["digest"], facts["encrypted_digest"]) == (digest(CODES.encode()), digest(released.body))
    assert facts["bytes"] == len(released.body) == len(CODES.encode()) + OVERHEAD
    sent = Sent(released.body, released.signature, KEY.public_hex, "", 0.0, 0.0, released.encrypted_to)
    intake, order = Intake("run1", {SITE: KEY.public_hex}, OPENER), Order("send", 3)
    assert intake.opened(SITE, order, EXPECTED, sent, digest(sent.body)) == CODES.encode()
    assert accepted(intake, SITE, order, EXPECTED, sent).encode() == CODES.encode()
    for wrong, why in [
        (Intake("run1", {SITE: KEY.public_hex}), "another key"),
        (Intake("run1", {SITE: KEY.public_hex}, EncryptionKey(X25519PrivateKey.generate())), "another key"),
        (Intake("run2", {SITE: KEY.public_hex}, OPENER), "bad signature"),
    ]:
        with pytest.raises(PayloadError, match=why):
            accepted(wrong, SITE, order, EXPECTED, sent)
    with pytest.raises(PayloadError, match="no payload"):
        accepted(intake, SITE, order, EXPECTED, replace(sent, encrypted_to=""))
    with pytest.raises(PayloadError, match="cannot be opened"):
        accepted(intake, SITE, order, replace(EXPECTED, kind=MASK_CODE), sent)


def test_the_same_payload_encrypted_anew_for_another_order_is_a_replay(tmp_path: Path) -> None:
    intake = Intake("run1", {SITE: KEY.public_hex}, OPENER)
    for number, again in ((3, False), (3, False), (4, True)):
        body = CARD.seal(slot("run1", SITE, "send", number, IMAGE_CODE), CODES.encode())
        signature = KEY.sign(statement("run1", SITE, "send", number, digest(body)))
        sent = Sent(body, signature, KEY.public_hex, "", 0.0, 0.0, CARD.key_id)
        if again:
            with pytest.raises(PayloadError, match="replayed"):
                accepted(intake, SITE, Order("send", number), EXPECTED, sent)
        else:
            accepted(intake, SITE, Order("send", number), EXPECTED, sent)


@pytest.mark.parametrize("threshold", [1, 2, 3, 4, 5, "never"])
@pytest.mark.parametrize("level", [3, 4, 5])
def test_the_level_decides_what_is_closed(threshold: Any, level: int, tmp_path: Path) -> None:
    released = release(gate_of(encrypt_from=threshold), tmp_path, replace(CODES, level=level))
    closed = threshold != "never" and level >= threshold
    assert isinstance(released, Released)
    assert (released.body != replace(CODES, level=level).encode()) == closed
    facts = read(tmp_path / "ledger.jsonl")[-1].facts
    assert ("encrypted_to" in facts, "encrypted_digest" in facts, bool(released.encrypted_to)) == (
        closed,
        closed,
        closed,
    )
    assert facts["transfer"] == "across"


STRANGER = SiteKey(Ed25519PrivateKey.from_private_bytes(bytes([3] * 32)))
MISFITS = {
    "none shown": (None, SERVER.public_hex, "showed none"),
    "of another server": (KeyCertificate.issue(STRANGER, OPENER), SERVER.public_hex, "another server's"),
    "signed by another": (
        replace(KeyCertificate.issue(STRANGER, OPENER), server_key=SERVER.public_hex),
        SERVER.public_hex,
        "not signed",
    ),
    "of another key": (replace(CARD, encryption_key="11" * 32), SERVER.public_hex, "not signed"),
    "unsigned": (replace(CARD, signature=""), SERVER.public_hex, "not signed"),
    "of a server that the site does not know": (CARD, None, "knows no server's key"),
}


@pytest.mark.parametrize(("card", "known", "why"), MISFITS.values(), ids=MISFITS)
def test_to_a_key_that_does_not_fit_nothing_leaves(
    card: KeyCertificate | None, known: str | None, why: str, tmp_path: Path
) -> None:
    refused = release(gate_of(card, known), tmp_path)
    assert isinstance(refused, Refused)
    assert (refused.decision.rule, refused.decision.clause) == ("encryption.no-valid-key", "5.3.2-b")
    assert why in refused.decision.reason
    assert [line.event for line in read(tmp_path / "ledger.jsonl")] == ["key", "refusal"]
    assert isinstance(release(gate_of(card, known, encrypt_from="never"), tmp_path), Released)


def test_a_key_that_is_no_point_of_the_curve_is_a_fault_and_nothing_leaves(tmp_path: Path) -> None:
    identity = SERVER.sign(
        b'{"encryption_key":"' + b"00" * 32 + b'","server_key":"' + SERVER.public_hex.encode()
        + b'","statement":"fedprivseg encryption key 1"}'
    )  # fmt: skip
    card = KeyCertificate(SERVER.public_hex, "00" * 32, identity.hex())
    assert card.unfit(SERVER.public_hex) is None, "the signature holds; the point is the one of order 1"
    refused = release(gate_of(card), tmp_path)
    assert isinstance(refused, Refused)
    assert refused.decision.rule == "gate.fault"


def test_under_an_agreement_the_server_is_who_signed_it(tmp_path: Path) -> None:
    terms = Terms(
        site=SITE,
        server="server",
        site_key=KEY.public_hex,
        server_key=SERVER.public_hex,
        study="a test",
        kinds=tuple(KINDS),
        purposes=("train",),
        start=TODAY,
        end=TODAY,
        protections=(),
        duties=(),
        breach=BreachPlan(contact="office", hours=1, steps=("tell",)),
    )
    agreement = Agreement(terms=terms).signed("site", KEY).signed("server", SERVER)
    policy = CLOSED.model_copy(update={"agreement": "required"})
    for card, rule in ((CARD, "kind.declared"), (KeyCertificate.issue(STRANGER, OPENER), "encryption.no-valid-key")):
        standing = PolicyContext(policy, TODAY, Transfer(KEY.public_hex, None, agreement, card=card))
        assert Gate(frozenset(KINDS), SITE, standing).decide(CODES).rule == rule


# ------------------------------------------------------------------------------------------ domains

HALVES = {
    "within_domain": (IMAGE_CODE, METRIC),
    "across_domains": (METRIC,),
}


@pytest.mark.parametrize(
    ("site", "server", "kind", "rule"),
    [
        ("north", "north", IMAGE_CODE, None),
        ("north", "north", WEIGHTS, "transfer.within-domain"),
        ("north", "south", IMAGE_CODE, "transfer.across-domains"),
        ("north", "south", METRIC, None),
        ("north", "", IMAGE_CODE, "transfer.across-domains"),
        ("", "north", IMAGE_CODE, "transfer.across-domains"),
        ("", "", IMAGE_CODE, "transfer.across-domains"),
        ("", "", METRIC, None),
    ],
)
def test_a_kind_passes_where_the_policy_lists_it_and_unknown_domains_are_others(
    site: str, server: str, kind: KindSpec, rule: str | None
) -> None:
    standing = PolicyContext(CLOSED.model_copy(update=HALVES), TODAY, Transfer(domain=site, server_domain=server))
    decision = standing.objection(kind, "train")
    assert (decision.rule if decision else None) == rule
    if decision:
        assert decision.clause == "5.3.2-c"
        assert kind in decision.reason


@pytest.mark.parametrize(
    ("server", "across", "level", "closed"),
    [
        ("north", "always", 2, False),
        ("north", "always", 3, True),
        ("south", "always", 2, True),
        ("", "always", 1, True),
        ("south", "by-level", 2, False),
        ("south", "by-level", 3, True),
    ],
)
def test_across_domains_everything_is_closed_if_the_policy_says_so(
    server: str, across: str, level: int, closed: bool
) -> None:
    policy = CLOSED.model_copy(update={"encrypt_across": across})
    assert PolicyContext(policy, TODAY, Transfer(domain="north", server_domain=server)).encrypts(level) is closed


def test_without_a_policy_everything_would_be_closed() -> None:
    assert PolicyContext(None, TODAY).encrypts(1)
