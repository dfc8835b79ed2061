"""The intake: a right payload passes, and each wrong one is refused with its reason."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import accepted

from fedprivseg.core.errors import PayloadError
from fedprivseg.core.expected import Array, Expected
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE, RAW
from fedprivseg.core.records import Order, Payload, digest
from fedprivseg.crypto.identity import SiteKey, statement
from fedprivseg.runtime.server.intake import Intake
from fedprivseg.runtime.wire import Released

EXPECTED = Expected(IMAGE_CODE, "train", {"codes": Array("float16", (None, 2, 4), -1, 1)}, ("encoder",), views=1)


@pytest.fixture
def key(tmp_path):
    return SiteKey.create(tmp_path / "key.pem")


def _codes(rows=3, dtype=np.float16, value=0.5):
    return np.full((rows, 2, 4), value, dtype)


def _payload(**changes):
    fields = {
        "kind": IMAGE_CODE,
        "site": "a",
        "purpose": "train",
        "arrays": {"codes": _codes()},
        "history": ("encoder",),
        "shard": 1,
        "shards": 3,
    }
    return Payload(**{**fields, **changes})


def _release(key, payload, *, run="run", site="a", action="send", number=1):
    body = payload if isinstance(payload, bytes) else payload.encode()
    signature = key.sign(statement(run, site, action, number, digest(body)))
    return Released(body, signature, key.public_hex, "", 0.0, 0.0)


def test_the_right_payload_is_accepted_again_and_again(key):
    intake = Intake("run", {"a": key.public_hex})
    for _ in range(2):  # a repeated answer to the same order is the same answer
        taken = accepted(intake, "a", Order("send", 1), EXPECTED, _release(key, _payload()))
    np.testing.assert_array_equal(taken.arrays["codes"], _codes())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": MASK_CODE}, "declares that 'image-code' answers this order, not 'mask-code'"),
        ({"kind": RAW}, "not 'raw'"),
        ({"purpose": "infer"}, "something else than 'train'"),
        ({"site": "b"}, "another site"),
        ({"level": 9}, "levels are 1 to 5"),
        ({"shard": 2}, "another number than the order's, which is 1"),
        ({"shards": 1}, "from 2 to 100000"),
        ({"shards": 10**9}, "from 2 to 100000"),
        ({"history": ()}, "history is not the one of 1 steps"),
        ({"history": ("encoder", "noise")}, "history is not the one of 1 steps"),
        ({"arrays": {}}, "Declared are 1: codes"),
        ({"arrays": {"codes": _codes(), "more": _codes()}}, "1 of the arrays have names that are not declared"),
        ({"arrays": {"codes": _codes(dtype=np.float32)}}, "another type than float16"),
        ({"arrays": {"codes": _codes()[:, :, :3]}}, "another shape"),
        ({"arrays": {"codes": _codes()[None]}}, "another shape"),
        ({"arrays": {"codes": _codes(value=2)}}, "beyond what is declared, from -1 to 1"),
        ({"arrays": {"codes": _codes(value=np.nan)}}, "NaN or infinity"),
        ({"arrays": {"codes": _codes(value=np.inf)}}, "NaN or infinity"),
    ],
)
def test_a_wrong_payload_is_refused_with_its_reason(key, changes, reason):
    intake = Intake("run", {"a": key.public_hex})
    with pytest.raises(PayloadError, match=reason):
        accepted(intake, "a", Order("send", 1), EXPECTED, _release(key, _payload(**changes)))


@pytest.mark.parametrize("slot", [{"run": "other"}, {"site": "b"}, {"action": "other"}, {"number": 2}])
def test_a_signature_fits_one_slot_of_one_run(key, slot):
    intake = Intake("run", {"a": key.public_hex})
    with pytest.raises(PayloadError, match="bad signature"):
        accepted(intake, "a", Order("send", 1), EXPECTED, _release(key, _payload(), **slot))


def test_another_key_or_changed_bytes_are_refused(key, tmp_path):
    intake = Intake("run", {"a": key.public_hex})
    stranger = SiteKey.create(tmp_path / "stranger.pem")
    with pytest.raises(PayloadError, match="bad signature"):
        accepted(intake, "a", Order("send", 1), EXPECTED, _release(stranger, _payload()))
    good = _release(key, _payload())
    bad = Released(good.body[:-1] + b"\x01", good.signature, good.public_key, "", 0.0, 0.0)
    with pytest.raises(PayloadError, match="bad signature"):
        accepted(intake, "a", Order("send", 1), EXPECTED, bad)


def test_a_replayed_shard_is_refused(key):
    intake = Intake("run", {"a": key.public_hex})
    accepted(intake, "a", Order("send", 1), EXPECTED, _release(key, _payload()))
    with pytest.raises(PayloadError, match="replayed"):
        accepted(intake, "a", Order("send", 2), EXPECTED, _release(key, _payload(), number=2))


def test_bytes_that_are_no_payload_are_refused(key):
    intake = Intake("run", {"a": key.public_hex})
    with pytest.raises(PayloadError, match="no payload"):
        accepted(intake, "a", Order("send", 1), EXPECTED, _release(key, b"rubbish"))
