"""The site program: whatever happens inside, only a signed release, a refusal or an error's type comes out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedprivseg.core.errors import ModelRefused
from fedprivseg.core.expected import DESCRIPTION
from fedprivseg.core.kinds import IMAGE_CODE, METRIC, RAW, STATUS, WEIGHTS
from fedprivseg.core.records import Grid, Order, Payload, digest
from fedprivseg.core.task import Scope, default_task
from fedprivseg.crypto.identity import SiteKey, statement, verify
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.sitefolder.notes import ERRORS, Notes
from fedprivseg.imaging.splits import Cohort
from fedprivseg.methods.method import measured_declared
from fedprivseg.methods.privacy_sf import PrivacySF
from fedprivseg.runtime.engines.inline import InlineGrid
from fedprivseg.runtime.site import client_app as site_app
from fedprivseg.runtime.wire import MESSAGE_TYPE, Envelope, Failed, Refused, Released, read_reply, write_order
from fedprivseg.study.run import _prepare

SECRET = "patient A1B2C3 in /data/hospital, intensity 1234"


@pytest.fixture
def station(tmp_path, tiny_scenario, phantom):
    _prepare(tmp_path / "run", tiny_scenario, phantom, {site.name: Cohort((), ()) for site in tiny_scenario.sites})
    return tmp_path / "run" / "sites" / "centre1"


def _ask(station, scenario, action="describe", inner=None, *, full=True):
    """One order through the real gate; `inner` replaces what stands inside it. full: whether it brings the scenario itself."""
    InlineGrid(site_app.app, [])  # sets the identity of the task that builds messages
    server = station.parents[1] / "server"
    head = ledger.Ledger(server / "ledger.jsonl", SiteKey.load(server / "key.pem"), "server").checkpoint()
    text = scenario.model_dump_json()
    envelope = Envelope(Order(action), "run", digest(text.encode()), head, scenario_text=text if full else "")
    message = Message(write_order(envelope), 2, MESSAGE_TYPE)
    context = Context(1, 2, {"station": str(station / "station.json")}, RecordDict(), {})
    if inner is None:
        return site_app.app(message, context)
    return site_app.gate(message, context, inner)


def test_a_site_keeps_its_scenario_and_answers_no_order_under_another(station, tiny_scenario):
    other = tiny_scenario.model_copy(update={"seed": 7})
    assert read_reply(_ask(station, tiny_scenario, full=False).content).error == "RequestError", "it knows none yet"
    assert isinstance(read_reply(_ask(station, tiny_scenario).content), Released)
    kept = (station / "scenario.json").read_text()
    assert kept == tiny_scenario.model_dump_json()
    assert isinstance(read_reply(_ask(station, tiny_scenario, full=False).content), Released)
    for full in (True, False):
        assert read_reply(_ask(station, other, full=full).content).error == "RequestError"
    assert (station / "scenario.json").read_text() == kept
    (station / "scenario.json").write_text(kept.replace('"seed":0', '"seed":1'))
    assert read_reply(_ask(station, tiny_scenario).content).error == "RequestError", "what was changed is another"


def _payload(**changes):
    fields = {"kind": STATUS, "site": "centre1", "purpose": "train", "arrays": {"n": np.array([1])}}
    return Payload(**{**fields, **changes})


def _sends(payload, name="payload", extra=()):
    def inner(message, context):
        records = {name: ConfigRecord({"body": payload.encode()}), **{key: ConfigRecord({"x": 1}) for key in extra}}
        return Message(RecordDict(records), reply_to=message)

    return inner


def test_a_declared_payload_leaves_signed_and_recorded(station, tiny_scenario):
    reply = read_reply(_ask(station, tiny_scenario).content)
    assert isinstance(reply, Released)
    signed = statement("run", "centre1", "describe", 0, digest(reply.body))
    assert verify(reply.public_key, signed, reply.signature)
    assert ledger.verify(station / "ledger.jsonl", public_hex=reply.public_key).lines >= 1
    last = ledger.read(station / "ledger.jsonl")[-1]
    assert last.facts["digest"] == digest(reply.body)
    assert last.facts["decision"] == "permit"


@pytest.mark.parametrize(
    ("inner", "rule"),
    [
        (_sends(_payload(kind=RAW, arrays={"image": np.zeros((4, 4))})), "raw-data.not-allowed"),
        (_sends(_payload(kind=WEIGHTS)), "kind.undeclared"),
        (_sends(_payload(purpose="sell")), "purpose.not-allowed"),
        (_sends(_payload(level=5)), "level.too-high"),
        (_sends(_payload(site="centre2")), "site.mismatch"),
        (_sends(_payload(), name="leak"), "payload.malformed"),
        (_sends(_payload(), extra=["leak"]), "payload.malformed"),
    ],
)
def test_anything_else_becomes_a_refusal(station, tiny_scenario, inner, rule):
    message = _ask(station, tiny_scenario, inner=inner)
    reply = read_reply(message.content)
    assert isinstance(reply, Refused)
    assert (reply.site, reply.rule) == ("centre1", rule)
    assert list(message.content) == ["refused"]
    assert ledger.read(station / "ledger.jsonl")[-1].facts["decision"] == "deny"


CODE = "C1D5H7"
NUMBER = int.from_bytes(CODE.encode(), "big")
COUNTS = {name: np.array([1]) for name in DESCRIPTION.arrays}


def _described(**changes):
    return _payload(**{"purpose": "describe", "arrays": COUNTS, **changes})


def _nothing_of_it(station, message):
    """Whether neither what left nor the ledger says a patient's code, as a word or as a number."""
    said = [{**record} for record in message.content.values()]
    told = [dict(line.facts) for line in ledger.read(station / "ledger.jsonl") if line.event != "intake"]
    text = json.dumps([said, told], default=str)
    return not any(word in text for word in (CODE, str(NUMBER), CODE.encode().hex()))


def test_what_the_roll_call_declares_leaves(station, tiny_scenario):
    assert isinstance(read_reply(_ask(station, tiny_scenario, inner=_sends(_described())).content), Released)


SMUGGLED = {
    "array name": (_described(arrays={**COUNTS, CODE: np.array([1])}), "declaration.names"),
    "array instead of another": (_described(arrays={CODE: np.array([1])}), "declaration.names"),
    "history": (_described(history=(CODE,)), "declaration.history"),
    "history in capitals": (_described(history=("describe", CODE.lower())), "declaration.history"),
    "shard": (_described(shard=NUMBER, shards=NUMBER + 1), "declaration.shard"),
    "shards": (_described(shards=NUMBER), "declaration.shards"),
    "purpose": (_described(purpose=CODE), "purpose.not-allowed"),
    "another purpose": (_described(purpose="train"), "declaration.purpose"),
    "level": (_described(level=NUMBER), "level.too-high"),
    "site": (_described(site=CODE), "site.mismatch"),
    "another kind": (_described(kind=METRIC), "declaration.kind"),
    "dtype": (_described(arrays={name: array.astype(np.uint8) for name, array in COUNTS.items()}), "declaration.dtype"),
    "shape": (_described(arrays=COUNTS | {"slices_test": np.ones(49, np.int64)}), "declaration.shape"),
    "no values": (_described(arrays=COUNTS | {"slices_test": np.ones((0, 67, 49), np.int64)}), "declaration.shape"),
    "count": (_described(arrays=COUNTS | {"slices_test": np.array([NUMBER])}), "declaration.range"),
}


@pytest.mark.parametrize(("sent", "rule"), SMUGGLED.values(), ids=SMUGGLED)
def test_a_patients_code_leaves_in_no_word_and_no_number(station, tiny_scenario, sent, rule):
    message = _ask(station, tiny_scenario, inner=_sends(sent))
    reply = read_reply(message.content)
    assert isinstance(reply, Refused)
    assert reply.rule == rule
    assert ledger.read(station / "ledger.jsonl")[-1].facts["rule"] == rule
    assert _nothing_of_it(station, message)


@pytest.mark.parametrize("where", ["metadata", "header", "record", "type of an error"])
def test_a_patients_code_leaves_beside_no_payload(station, tiny_scenario, monkeypatch, where):
    body = _described().encode()
    size = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + size])
    fields = json.loads(header["__metadata__"]["payload"])
    if where == "metadata":
        header["__metadata__"]["note"] = CODE
    elif where == "header":
        header["__metadata__"]["payload"] = json.dumps(fields | {"note": CODE}, sort_keys=True)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def inner(message, context):
        if where == "type of an error":
            kind = type(CODE, (ValueError,), {"__module__": site_app.__name__})
            monkeypatch.setattr(site_app, CODE, kind, raising=False)  # where a type that was written down would stand
            raise kind
        records = {"payload": ConfigRecord({"body": len(text).to_bytes(8, "little") + text + body[8 + size :]})}
        records |= {CODE: ConfigRecord({"x": 1})} if where == "record" else {}
        return Message(RecordDict(records), reply_to=message)

    message = _ask(station, tiny_scenario, inner=inner)
    reply = read_reply(message.content)
    assert reply.error == "ValueError" if where == "type of an error" else reply.rule == "payload.malformed"
    assert _nothing_of_it(station, message)


def _codes(rows, **changes):
    fields = {"kind": IMAGE_CODE, "purpose": "infer", "history": ("image encoder", "float16")}
    return _payload(**{**fields, "arrays": {"codes": np.zeros((rows, 8, 8, 8), np.float16)}, **changes})


def _measured(rows):
    declared = measured_declared(None, Scope(Grid(32, 32, 6.0), default_task()), Order("measure"))
    forms = {name: np.zeros((rows, *form.shape[1:]), form.dtype) for name, form in declared.arrays.items()}
    return _payload(kind=METRIC, purpose="measure", arrays=forms, history=declared.history)


@pytest.mark.parametrize(
    ("action", "sent", "rule"),
    [
        ("send_test_codes", _codes(0), None),
        ("send_test_codes", _codes(7), "declaration.shape"),
        ("send_test_codes", _codes(0, shards=NUMBER), "declaration.shards"),
        ("send_test_codes", _codes(0, history=("image encoder", CODE)), "declaration.history"),
        ("measure", _measured(len("test")), "declaration.shape"),
        ("fit_encoders", _payload(arrays={"lost": np.full((2, 3), 67, np.uint8)}), "declaration.range"),
        ("fit_encoders", _payload(arrays={CODE: np.zeros((2, 3), np.uint8)}), "declaration.names"),
    ],
)
def test_a_method_sends_what_it_declares_and_lengths_are_those_of_the_site(
    station, tiny_scenario, monkeypatch, action, sent, rule
):
    """The station has read no slices, so a stream of them has no rows; how many subjects it tests is known from its intake."""
    monkeypatch.setattr(PrivacySF, "actions", {**PrivacySF.actions, action: lambda method, site, order: sent})
    message = _ask(station, tiny_scenario, action=action)
    reply = read_reply(message.content)
    assert getattr(reply, "rule", None) == rule
    assert _nothing_of_it(station, message)


def test_an_action_that_declares_nothing_lets_nothing_out(station, tiny_scenario, monkeypatch):
    def undeclared(method, site, order):
        return _payload()

    monkeypatch.setattr(PrivacySF, "actions", {**PrivacySF.actions, "hello": undeclared})
    reply = read_reply(_ask(station, tiny_scenario, action="hello").content)
    assert isinstance(reply, Refused)
    assert reply.rule == "declaration.absent"


def test_what_the_site_says_of_its_effort_is_rounded(station, tiny_scenario):
    reply = read_reply(_ask(station, tiny_scenario).content)
    assert reply.seconds > 0
    assert round(reply.seconds, 2) == reply.seconds
    assert reply.peak_rss_mb == int(reply.peak_rss_mb)


def test_an_exception_leaves_as_its_type_and_a_log_id(station, tiny_scenario):
    def inner(message, context):
        raise KeyError(SECRET)

    message = _ask(station, tiny_scenario, inner=inner)
    reply = read_reply(message.content)
    assert isinstance(reply, Failed)
    assert (reply.site, reply.error) == ("centre1", "KeyError")
    wire = json.dumps({name: {k: str(v) for k, v in record.items()} for name, record in message.content.items()})
    assert not any(word in wire for word in ("A1B2C3", "hospital", "1234", str(station)))
    assert not message.has_error()
    log = (station / "errors.log").read_text()
    assert reply.log_id in log
    assert SECRET in log


def test_the_name_of_an_exception_carries_nothing(station, tiny_scenario):
    def inner(message, context):
        raise type(SECRET * 1000, (ValueError,), {})

    reply = read_reply(_ask(station, tiny_scenario, inner=inner).content)
    assert isinstance(reply, Failed)
    assert reply.error == "ValueError"
    assert ledger.read(station / "ledger.jsonl")[-1].facts["error"] == "ValueError"


@pytest.fixture
def sealed(station):
    """The station under a policy that wants everything encrypted."""
    policy = station / "policy.toml"
    policy.write_text(policy.read_text().replace('at_rest = "plain"', 'at_rest = "encrypted"'))
    SealingKey.create(station / "sealing.key")
    return station


def _fails(message, context):
    raise KeyError(SECRET)


def test_at_a_sealed_site_the_errors_are_sealed_too(sealed, tiny_scenario):
    ids = [read_reply(_ask(sealed, tiny_scenario, inner=_fails).content).log_id for _ in range(2)]
    log = Notes(sealed).read(ERRORS).decode()
    assert all(each in log for each in ids)
    assert log.count(SECRET) >= 2
    files = [path for path in sealed.rglob("*") if path.is_file()]
    assert not [path.name for path in files if b"A1B2C3" in path.read_bytes()]


def test_what_cannot_be_sealed_is_not_logged_and_the_ledger_still_tells_its_type(sealed, tiny_scenario):
    (sealed / "sealing.key").unlink()
    reply = read_reply(_ask(sealed, tiny_scenario, inner=_fails).content)
    assert isinstance(reply, Failed)
    assert reply.log_id.startswith("unlogged-")
    assert not [path.name for path in sealed.rglob("*") if path.is_file() and b"A1B2C3" in path.read_bytes()]
    last = ledger.read(sealed / "ledger.jsonl")[-1]
    assert (last.event, last.facts["error"]) == ("error", reply.error)


def test_a_method_has_only_its_own_actions(station, tiny_scenario):
    reply = read_reply(_ask(station, tiny_scenario, action="send_everything").content)
    assert isinstance(reply, Failed)
    assert reply.error == "ValueError"


def test_a_message_that_is_no_order_comes_back_as_an_error(station, tiny_scenario):
    InlineGrid(site_app.app, [])
    message = Message(RecordDict({"order": ConfigRecord({"action": "describe"})}), 2, MESSAGE_TYPE)
    context = Context(1, 2, {"station": str(station / "station.json")}, RecordDict(), {})
    reply = read_reply(site_app.app(message, context).content)
    assert isinstance(reply, Failed)
    assert reply.error == "PayloadError"


def test_a_refused_model_is_told_by_its_rule_and_stands_in_the_ledger(station, tiny_scenario):
    def refuses(message, context):
        raise ModelRefused("model.jump", "A filter bank moved too far.")

    reply = read_reply(_ask(station, tiny_scenario, inner=refuses).content)
    assert isinstance(reply, Refused)
    assert (reply.rule, reply.reason) == ("model.jump", "A filter bank moved too far.")
    line = ledger.read(station / "ledger.jsonl")[-1]
    assert (line.event, line.facts["rule"], line.facts["decision"]) == ("refusal", "model.jump", "deny")
    ledger.verify(station / "ledger.jsonl")
