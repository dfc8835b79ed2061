"""The gate: what may leave and what may not, why, and that nothing leaves without a line in the ledger."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes import as_it_is
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedprivseg.core.errors import PayloadError, RequestError
from fedprivseg.core.expected import Expected
from fedprivseg.core.kinds import IMAGE_CODE, KINDS, MASK_CODE, METRIC, RAW, STATUS, WEIGHTS, KindSpec
from fedprivseg.core.records import Decision, Payload, digest
from fedprivseg.crypto.identity import SiteKey, statement, verify
from fedprivseg.governance.ledger.ledger import Ledger, read
from fedprivseg.governance.ledger.ledger import verify as verify_ledger
from fedprivseg.governance.policy import gate as module
from fedprivseg.governance.policy.gate import DTYPES, LEVELS, RULES, Gate, Refused, Released
from fedprivseg.governance.policy.policy_context import Enrolled, PolicyContext
from fedprivseg.governance.policy.profile import SitePolicy

SITE = "centre1"
KEY = SiteKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))  # fixed, for tests only
EXPORTS = frozenset({IMAGE_CODE, MASK_CODE, METRIC, STATUS})
PURPOSES = ("train", "infer", "measure")
OPEN = SitePolicy(
    profile="open-research",
    says="A policy of the tests: whatever a method declares may leave.",
    kinds=tuple(KINDS),
    purposes=PURPOSES,
    max_level=3,
    raw_sharing="allowed",
    consent="release",
    agreement="none",
    at_rest="plain",
    encrypt_from="never",
    within_domain=tuple(KINDS),
    across_domains=tuple(KINDS),
    encrypt_across="by-level",
)


def gate_of(exports: frozenset[KindSpec], **changes: Any) -> Gate:
    return Gate(exports, SITE, PolicyContext(OPEN.model_copy(update=changes), date(2026, 1, 1)))


GATE = gate_of(EXPORTS)
SLOT = {"shard": 3, "shards": 4}
CODES = Payload(IMAGE_CODE, SITE, "train", {"codes": np.zeros((2, 4, 3, 3), np.float16)}, history=("encode",), **SLOT)


def metric(**arrays: np.ndarray) -> Payload:
    return Payload(METRIC, SITE, "measure", arrays, **SLOT)


def status(**arrays: np.ndarray) -> Payload:
    return Payload(STATUS, SITE, "train", arrays, **SLOT)


def holding(array: np.ndarray) -> Payload:
    return replace(CODES, arrays={"codes": array})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl", KEY, SITE)


def release(body: bytes, ledger: Ledger, gate: Gate = GATE, key: SiteKey = KEY) -> Released | Refused:
    """What the gate makes of `body`, if the method had declared just that."""
    return gate.release(body, ledger, key, "encode", run_id="run1", number=3, expected=lambda: declared(body))


def declared(body: bytes) -> Expected:
    try:
        return as_it_is(Payload.decode(bytes(body)))
    except PayloadError:
        return as_it_is(CODES)


# ---------------------------------------------------------------------------------------------- the rules

PERMITTED = {
    "codes": CODES,
    "mask codes": replace(CODES, kind=MASK_CODE),
    "level 3": replace(CODES, level=3),
    "no arrays": replace(CODES, arrays={}),
    "an empty array": holding(np.zeros((0, 4), np.float32)),
    "the largest finite float16": holding(np.full(3, 65504, np.float16)),
    **{f"dtype {name}": holding(np.ones(3, name)) for name in DTYPES},
    **{f"purpose {purpose}": replace(CODES, purpose=purpose) for purpose in PURPOSES},
    "a metric of 3 axes": metric(dice=np.zeros((4, 2, 3), np.float64)),
    "a metric of almost 1 MiB": metric(dice=np.zeros((1 << 20) - 512, np.uint8)),
    "a status of 64 values": status(done=np.zeros(64, np.int64)),
}

REFUSED = {
    "weights undeclared": (replace(CODES, kind=WEIGHTS), "kind.undeclared"),
    "raw": (replace(CODES, kind=RAW), "raw-data.not-allowed"),
    "another site": (replace(CODES, site="centre2"), "site.mismatch"),
    "no site": (replace(CODES, site=""), "site.mismatch"),
    "almost the site": (replace(CODES, site="centre1 "), "site.mismatch"),
    "unknown purpose": (replace(CODES, purpose="resale"), "purpose.not-allowed"),
    "no purpose": (replace(CODES, purpose=""), "purpose.not-allowed"),
    **{f"level {level}": (replace(CODES, level=level), "level.too-high") for level in (-1, 0, 4, 5, 6)},
    **{f"level {level}": (replace(CODES, level=level), "level.under-classified") for level in (1, 2)},
    "level true": (replace(CODES, level=True), "level.too-high"),
    "level 2.0": (replace(CODES, level=2.0), "level.too-high"),  # type: ignore[arg-type]
    **{
        f"dtype {name}": (holding(np.ones(3, name)), "arrays.dtype")
        for name in ("int8", "int16", "uint16", "uint32", "uint64", "complex64", ">f4", "object", "U3", "datetime64[s]")
    },
    **{
        f"{value} in {name}": (holding(np.array([0, value, 1], name)), "arrays.non-finite")
        for value in (np.nan, np.inf, -np.inf)
        for name in ("float16", "float32", "float64")
    },
    "NaN at the end of a large array": (holding(np.append(np.zeros(1 << 20, np.float16), np.nan)), "arrays.non-finite"),
    "a scalar NaN": (holding(np.array(np.nan)), "arrays.non-finite"),
    "a metric above 1 MiB": (metric(dice=np.zeros((1 << 20) + 1, np.uint8)), "metric.size"),
    "a metric of 1 MiB and its names": (metric(dice=np.zeros(1 << 20, np.uint8)), "metric.size"),
    "a metric in two halves": (metric(a=np.zeros(1 << 19, np.uint8), b=np.zeros(1 << 19, np.uint8)), "metric.size"),
    "a metric in its history": (replace(metric(), history=("x" * (1 << 20),)), "metric.size"),
    "a metric of 4 axes": (metric(dice=np.zeros((1, 1, 1, 1), np.float32)), "metric.shape"),
    "a status of 65 values": (status(done=np.zeros(65, np.uint8)), "status.size"),
    "a status of many arrays": (status(**{f"a{i}": np.zeros(64, np.float64) for i in range(200)}), "status.size"),
    "a status with a long name": (status(**{"x" * (1 << 16): np.zeros(1)}), "status.size"),
}


@pytest.mark.parametrize("payload", PERMITTED.values(), ids=PERMITTED)
def test_permitted(payload: Payload) -> None:
    decision = GATE.decide(payload)
    assert (decision.allowed, decision.rule) == (True, "kind.declared"), decision.reason


@pytest.mark.parametrize(("payload", "rule"), REFUSED.values(), ids=REFUSED)
def test_refused(payload: Payload, rule: str) -> None:
    decision = GATE.decide(payload)
    assert (decision.allowed, decision.rule) == (False, rule), decision.reason
    assert decision.reason[0].isupper()
    assert decision.reason.endswith(".")
    assert len(decision.reason) < 250


def test_every_rule_is_tried_above() -> None:
    ids = {rule.format(kind=kind) for rule, _, _ in RULES for kind in (METRIC, STATUS)} - {"status.shape"}
    # Whether a payload can be encrypted is not its own affair: that rule is tried in test_transport.py.
    assert ids - {"encryption.no-valid-key"} <= {rule for _, rule in REFUSED.values()}


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_list_of_exports_lets_nothing_out(kind: KindSpec) -> None:
    expected = "raw-data.not-allowed" if kind == RAW else "kind.undeclared"
    assert GATE.decide(replace(CODES, kind=IMAGE_CODE)).allowed
    decision = gate_of(frozenset()).decide(replace(CODES, kind=kind))
    assert (decision.allowed, decision.rule) == (False, expected)


def test_raw_leaves_only_if_the_method_declares_it_and_the_site_allows_it() -> None:
    raw = replace(CODES, kind=RAW, level=4)
    allowed = gate_of(EXPORTS | {RAW}).decide(raw)
    assert (allowed.allowed, allowed.rule) == (True, "raw-data.allowed")
    undeclared = gate_of(EXPORTS).decide(raw)
    assert (undeclared.allowed, undeclared.rule) == (False, "raw-data.not-allowed")
    above = gate_of(EXPORTS | {RAW}).decide(replace(raw, level=5))
    assert (above.allowed, above.rule) == (False, "level.too-high")
    for other in ("forbidden", True, 1, "yes"):  # only the one word is a permission
        assert not gate_of(EXPORTS | {RAW}, raw_sharing=other).decide(raw).allowed


def test_raw_stays_even_if_a_method_declares_it() -> None:
    decision = gate_of(frozenset(KINDS), raw_sharing="forbidden").decide(replace(CODES, kind=RAW))
    assert (decision.allowed, decision.rule) == (False, "raw-data.not-allowed")


@pytest.mark.parametrize("limit", LEVELS)
def test_the_level_that_is_set_is_the_highest_that_leaves(limit: int) -> None:
    gate = gate_of(EXPORTS, max_level=limit)
    # A code is of level 3 by rule, so neither may it leave under a lower limit nor under a lower claim.
    assert [level for level in range(-1, 8) if gate.decide(replace(CODES, level=level)).allowed] == [
        *range(3, limit + 1)
    ]


def test_a_level_that_is_understated_is_refused_and_the_reason_given() -> None:
    decision = GATE.decide(replace(CODES, level=2))
    assert (decision.rule, decision.clause) == ("level.under-classified", "5.5")
    assert "claims level 2 and is of level 3" in decision.reason


def test_purposes_are_those_given() -> None:
    gate = gate_of(EXPORTS, purposes=("infer",))
    assert gate.decide(replace(CODES, purpose="infer")).allowed
    assert "agreed are: infer" in gate.decide(CODES).reason


def test_a_gate_that_exports_what_is_no_kind_is_not_built() -> None:
    with pytest.raises(RequestError, match="kinds are: image-code, mask-code"):
        gate_of(frozenset({"codes"}))  # type: ignore[arg-type]


def test_without_a_policy_nothing_leaves() -> None:
    gate = Gate(frozenset(KINDS), SITE, PolicyContext(None, date(2026, 1, 1)))
    assert {gate.decide(replace(CODES, kind=kind)).rule for kind in KINDS} == {"policy.absent"}


@pytest.mark.parametrize(
    ("days", "today", "rule"),
    [
        (30, date(2026, 1, 31), "kind.declared"),  # 1 January and 30 days: the last day on which it may be kept
        (30, date(2026, 2, 1), "retention.expired"),
        (0, date(2026, 1, 1), "kind.declared"),
        (0, date(2026, 1, 2), "retention.expired"),
        (None, date(2099, 1, 1), "kind.declared"),
    ],
)
def test_nothing_leaves_after_the_term_of_retention(days: int | None, today: date, rule: str) -> None:
    policy = OPEN.model_copy(update={"retention_days": days})
    decision = Gate(EXPORTS, SITE, PolicyContext(policy, today, enrolled=Enrolled(since=date(2026, 1, 1)))).decide(
        CODES
    )
    assert decision.rule == rule
    if rule == "retention.expired":
        assert decision.clause == "5.8-b"
        assert f"may be kept for {days} days" in decision.reason
        assert str(today) in decision.reason


def test_nothing_leaves_a_site_once_its_destruction_was_begun() -> None:
    decision = Gate(EXPORTS, SITE, PolicyContext(OPEN, date(2026, 1, 1), enrolled=Enrolled(destroyed=True))).decide(
        CODES
    )
    assert (decision.rule, decision.clause) == ("destruction.begun", "5.8-a")


def test_no_value_of_an_array_is_in_a_reason_or_a_line(ledger: Ledger) -> None:
    secret = 31337.25
    for array in (np.array([secret, np.nan], np.float32), np.full((2, 2), secret), np.array([31337] * 70, np.uint16)):
        for kind in KINDS:
            release(replace(holding(array), kind=kind).encode(), ledger)
    told = [str(fact) for line in read(ledger.path) for name, fact in line.facts.items() if name != "digest"]
    assert not [fact for fact in told if "31337" in fact]  # hashes and signatures may hold any digits
    assert len(read(ledger.path)) == 1 + 3 * len(KINDS)


# ---------------------------------------------------------------------------------------------- what is released


def test_what_is_released_is_signed_for_its_slot_and_recorded(ledger: Ledger) -> None:
    body = CODES.encode()
    released = release(body, ledger)
    assert isinstance(released, Released)
    assert (released.body, released.digest) == (body, digest(body))
    expected = statement("run1", SITE, "encode", 3, digest(body))
    assert verify(KEY.public_hex, expected, released.signature)
    for other in (("run2", "encode", 3), ("run1", "decode", 3), ("run1", "encode", 4)):
        assert not verify(KEY.public_hex, statement(other[0], SITE, *other[1:], digest(body)), released.signature)
    _, line = read(ledger.path)
    assert line == released.line
    assert line.event == "release"
    assert dict(line.facts) == {
        "action": "encode",
        "bytes": len(body),
        "clause": "5.6.2-b",
        "decision": "permit",
        "digest": digest(body),
        "history": ["encode"],
        "kind": "image-code",
        "level": 3,
        "number": 3,
        "purpose": "train",
        "reason": "The method declares that 'image-code' may leave a site.",
        "rule": "kind.declared",
        "run": "run1",
        "shapes": ["codes float16 (2, 4, 3, 3)"],
        "shard": 3,
        "shards": 4,
        "transfer": "across",
    }


def test_what_is_refused_is_recorded_and_not_handed_back(ledger: Ledger) -> None:
    body = replace(CODES, kind=WEIGHTS).encode()
    refused = release(body, ledger)
    assert isinstance(refused, Refused)
    assert refused.decision.rule == "kind.undeclared"
    assert not hasattr(refused, "body")
    assert not hasattr(refused, "signature")
    _, line = read(ledger.path)
    assert line == refused.line
    assert (line.event, line.facts["decision"], line.facts["kind"]) == ("refusal", "deny", "weights")
    assert line.facts["digest"] == refused.digest == digest(body)


def with_header(change: dict[str, Any] | None = None, metadata: dict[str, str] | None = None, pad: int = 0) -> bytes:
    """CODES in safetensors bytes with another header: fields of the payload, of the file, or spaces."""
    body = CODES.encode()
    size = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + size])
    fields = json.loads(header["__metadata__"]["payload"]) | (change or {})
    header["__metadata__"] = {"payload": json.dumps(fields, sort_keys=True)} | (metadata or {})
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8 + pad)
    return len(text).to_bytes(8, "little") + text + body[8 + size :]


MALFORMED = {
    "nothing": b"",
    "noise": bytes(range(256)),
    "cut": CODES.encode()[:-1],
    "more at the end": CODES.encode() + b"patient",
    "unknown kind": with_header({"kind": "image"}),
    "a level that is no number": with_header({"level": "high"}),
    "an infinite level": with_header({"level": float("inf")}),
    "a level that is cut to fit": with_header({"level": 3.9}),
    "a history that is no list": with_header({"history": None}),
    "a field beside the known ones": with_header({"note": "patient 7"}),
    "a file field beside the payload": with_header(metadata={"note": "patient 7"}),
    "spaces that could carry bits": with_header(pad=64),
}


def test_the_untouched_header_is_fine(ledger: Ledger) -> None:
    """What `with_header` builds is refused for the change, not for the way in which it is built."""
    assert isinstance(release(with_header(), ledger), Released)


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_bytes_that_are_not_exactly_a_payload_stay(ledger: Ledger, body: bytes) -> None:
    refused = release(body, ledger)
    assert isinstance(refused, Refused)
    assert (refused.decision.rule, refused.decision.clause) == ("payload.malformed", "5.1.2-c")
    _, line = read(ledger.path)
    assert (line.facts["digest"], line.facts["bytes"]) == (digest(body), len(body))
    assert "patient" not in str(line.facts)


def test_a_body_that_changes_after_the_decision_does_not_leave_changed(ledger: Ledger) -> None:
    body = bytearray(CODES.encode())
    released = release(body, ledger)  # type: ignore[arg-type]
    body[-1] ^= 1
    assert isinstance(released, Released)
    assert digest(released.body) == released.digest


# ---------------------------------------------------------------------------------------------- faults


def leak(*arguments: object) -> Any:
    raise ValueError("patient 7 at /data/patient7.nii has intensity 31337")


def test_a_rule_that_raises_lets_nothing_out(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RULES", (*RULES[:2], ("broken", leak), *RULES[2:]))
    refused = release(CODES.encode(), ledger)
    assert isinstance(refused, Refused)
    assert (refused.decision.rule, refused.decision.clause) == ("gate.fault", "5.6.2-b")
    assert "patient" not in refused.decision.reason
    assert b"patient" not in ledger.path.read_bytes()
    assert [line.event for line in read(ledger.path)] == ["key", "refusal"]


@pytest.mark.parametrize("part", ["decide", "sign", "statement"])
def test_a_gate_that_raises_lets_nothing_out(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    gate, key = GATE, KEY
    if part == "decide":
        monkeypatch.setattr(Gate, "decide", leak)
    elif part == "statement":
        monkeypatch.setattr(module, "statement", leak)
    else:
        # The ledger must still sign its line, so only the release's own signature fails.
        statements = [statement("run1", SITE, "encode", 3, digest(CODES.encode()))]
        sign = SiteKey.sign
        monkeypatch.setattr(SiteKey, "sign", lambda key, body: leak() if body in statements else sign(key, body))
    refused = release(CODES.encode(), ledger, gate, key)
    assert isinstance(refused, Refused)
    assert refused.decision.rule == "gate.fault"
    assert [line.facts.get("rule") for line in read(ledger.path)] == [None, "gate.fault"]
    assert b"patient" not in ledger.path.read_bytes()


def full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("payload", [CODES, replace(CODES, kind=RAW)], ids=["permitted", "refused"])
@pytest.mark.parametrize("way", ["full", "gone", "folder", "second writer", "raises"])
def test_nothing_leaves_if_the_ledger_cannot_be_written(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, payload: Payload, way: str
) -> None:
    if way == "full":
        monkeypatch.setattr(os, "fsync", full)
    elif way == "gone":
        ledger.path.unlink()
    elif way == "folder":
        ledger.path.unlink()
        ledger.path.mkdir()
    elif way == "second writer":
        Ledger(ledger.path, KEY, SITE).append("open", {})
    else:
        monkeypatch.setattr(Ledger, "append", leak)
    refused = release(payload.encode(), ledger)
    assert isinstance(refused, Refused)
    assert (refused.decision.rule, refused.line) == ("ledger.unwritable", None)
    assert "patient" not in refused.decision.reason
    assert str(ledger.path.parent) not in refused.decision.reason


def test_a_ledger_stays_shut_after_a_failed_write(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        release(CODES.encode(), ledger)
    still = release(CODES.encode(), ledger)
    assert (still.decision.rule, still.decision.clause) == ("ledger.unwritable", "5.6.2-d")
    assert isinstance(release(CODES.encode(), Ledger(ledger.path, KEY, SITE)), Released)


def test_the_ledger_and_the_key_must_be_those_of_the_site(ledger: Ledger, tmp_path: Path) -> None:
    other = SiteKey.create(tmp_path / "other.pem")
    elsewhere = Ledger(tmp_path / "other.jsonl", KEY, "centre2")
    for refused in (release(CODES.encode(), ledger, key=other), release(CODES.encode(), elsewhere)):
        assert isinstance(refused, Refused)
        assert (refused.decision.rule, refused.decision.clause) == ("ledger.mismatch", "5.6.2-d")
        assert refused.line is not None


WORD = "Mustermann1958"
TELLING = {
    "site.mismatch": replace(CODES, site=WORD),
    "purpose.not-allowed": replace(CODES, purpose=WORD),
    "level.too-high": replace(CODES, level=19580403),
    "arrays.dtype": replace(CODES, arrays={"a": np.zeros(1, np.float16), WORD: np.zeros(1, np.int16)}),
    "arrays.non-finite": replace(CODES, arrays={WORD: np.full(1, np.nan, np.float16)}),
    "metric.shape": metric(**{WORD: np.zeros((1, 1, 1, 1, 1), np.float32)}),
    "status.size": status(**{WORD: np.zeros(500, np.int64)}),
}


@pytest.mark.parametrize("rule", TELLING)
def test_no_word_that_a_payload_brings_along_leaves_in_a_reason(ledger: Ledger, rule: str) -> None:
    """A reason goes to the server. Which array it was is told by its place."""
    refused = release(TELLING[rule].encode(), ledger)
    assert isinstance(refused, Refused)
    assert refused.decision.rule == rule
    assert WORD not in refused.decision.reason
    assert "19580403" not in refused.decision.reason
    assert rule != "arrays.dtype" or refused.decision.reason.startswith("Array 1 of 2, in the order of their names,")


UNDECLARED = {
    "declaration.names": replace(CODES, arrays={WORD: CODES.arrays["codes"]}),
    "declaration.history": replace(CODES, history=("encode", WORD)),
    "declaration.shard": replace(CODES, shard=19580403),
    "declaration.shards": replace(CODES, shards=19580403),
    "declaration.shape": holding(np.zeros((0, 1958, 403), np.float16)),
    "declaration.dtype": holding(np.zeros((2, 4, 3, 3), np.float32)),
    "declaration.purpose": replace(CODES, purpose="infer"),
    "declaration.kind": replace(CODES, kind=MASK_CODE),
    "declaration.absent": CODES,
    "gate.fault": replace(CODES, history=(WORD,)),
}


@pytest.mark.parametrize("rule", UNDECLARED)
def test_what_is_not_declared_stays_and_no_line_repeats_it(ledger: Ledger, rule: str) -> None:
    """Whatever allows the kind: also if nothing is declared at all, or what says so fails."""
    payload = UNDECLARED[rule]
    assert GATE.decide(payload).allowed
    says = {"declaration.absent": lambda: None, "gate.fault": leak}.get(rule, lambda: as_it_is(CODES))
    refused = GATE.release(payload.encode(), ledger, KEY, "encode", run_id="run1", number=3, expected=says)
    assert isinstance(refused, Refused)
    assert (refused.decision.rule, refused.decision.clause) == (rule, "5.6.2-b")
    _, line = read(ledger.path)
    assert line.facts["decision"] == "deny"
    assert not {"history", "shapes", "shard", "shards"} & set(line.facts)
    for told in (refused.decision.reason, json.dumps(dict(line.facts))):
        assert not any(word in told for word in (WORD, "19580403", "1958", "patient"))


# ---------------------------------------------------------------------------------------------- any payload

arrays = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=4).filter(lambda name: name != "__metadata__"),
    st.sampled_from(["float16", "float32", "float64", "uint8", "int64", "int16", "uint32", "bool"]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5))
    ),
    max_size=3,
)
payloads = st.builds(
    Payload,
    kind=st.sampled_from(KINDS),
    site=st.sampled_from([SITE, SITE, SITE, "centre2"]),
    purpose=st.sampled_from([*PURPOSES, "resale"]),
    arrays=arrays,
    level=st.integers(0, 6),
    shard=st.just(3),
    shards=st.just(4),
    history=st.lists(st.text(max_size=5), max_size=2).map(tuple),
)


@settings(max_examples=80, deadline=None)
@given(
    sent=st.lists(payloads, min_size=1, max_size=4),
    exports=st.frozensets(st.sampled_from(KINDS)),
    limit=st.integers(1, 5),
)
def test_nothing_gets_out_without_a_line_and_a_declared_kind(
    sent: list[Payload], exports: frozenset[KindSpec], limit: int
) -> None:
    gate = gate_of(exports, max_level=limit, raw_sharing="forbidden")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        ledger = Ledger(Path(folder) / "ledger.jsonl", KEY, SITE)
        for count, payload in enumerate(sent, start=2):
            body = payload.encode()
            outcome = release(body, ledger, gate)
            lines = read(ledger.path)
            assert len(lines) == count  # exactly one line each
            assert lines[-1].facts["digest"] == digest(body)
            assert (lines[-1].event == "release") == isinstance(outcome, Released) == outcome.decision.allowed
            if isinstance(outcome, Released):
                # Written out anew, not by the gate's own functions.
                assert payload.kind in exports
                assert payload.kind is not RAW
                assert (payload.site, payload.purpose in PURPOSES) == (SITE, True)
                assert 1 <= payload.level <= limit
                for array in payload.arrays.values():
                    assert array.dtype.name in DTYPES
                    assert not np.isnan(array.astype(np.float64)).any()
                    assert not np.isinf(array.astype(np.float64)).any()
                    assert payload.kind is not METRIC or array.ndim <= 3
                    assert payload.kind is not STATUS or array.size <= 64
        assert verify_ledger(ledger.path, public_hex=KEY.public_hex).lines == len(sent) + 1


@settings(max_examples=100, deadline=None)
@given(position=st.integers(0, len(CODES.encode()) - 1), mask=st.integers(1, 255))
def test_a_damaged_payload_is_decided_on_as_what_it_is(position: int, mask: int) -> None:
    """One byte changed: whatever the gate decides, it does not raise, and it signs only what it examined."""
    body = bytearray(CODES.encode())
    body[position] ^= mask
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        ledger = Ledger(Path(folder) / "ledger.jsonl", KEY, SITE)
        outcome = release(bytes(body), ledger)
        assert len(read(ledger.path)) == 2
        if isinstance(outcome, Released):
            examined = Payload.decode(outcome.body)
            assert GATE.decide(examined) == Decision(True, "kind.declared", outcome.decision.reason, "5.6.2-b")
            assert examined.encode() == bytes(body)
