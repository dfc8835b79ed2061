"""Payloads: the same bytes every time, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedprivseg.core.errors import PayloadError
from fedprivseg.core.kinds import KINDS, MASK_CODE, METRIC
from fedprivseg.core.records import Order, Payload, Volume
from fedprivseg.runtime.wire import (
    Envelope,
    Failed,
    Refused,
    Released,
    read_order,
    read_reply,
    write_order,
    write_reply,
)

arrays = st.dictionaries(
    st.text("abcz", min_size=1, max_size=4),
    hnp.arrays(st.sampled_from([np.float16, np.float32, np.uint8, np.int64]), hnp.array_shapes(max_dims=3, max_side=4)),
    max_size=3,
)


@given(arrays, st.sampled_from(list(KINDS)), st.lists(st.text(max_size=5), max_size=3))
def test_a_payload_comes_back_as_it_went(content, kind, history):
    payload = Payload(kind, "centre1", "train", content, level=2, shard=1, shards=3, history=tuple(history))
    body = payload.encode()
    back = Payload.decode(body)
    assert (back.kind, back.site, back.purpose, back.level, back.shard, back.shards, back.history) == (
        kind, "centre1", "train", 2, 1, 3, tuple(history)
    )  # fmt: skip
    assert set(back.arrays) == set(content)
    for name, array in content.items():
        assert back.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(back.arrays[name], array)
    assert back.encode() == body


@given(st.binary(max_size=200))
def test_wild_bytes_are_refused_not_believed(body):
    with pytest.raises(PayloadError):
        Payload.decode(body)


def test_a_cut_or_changed_payload_is_refused():
    body = Payload(METRIC, "a", "measure", {"x": np.arange(4.0)}).encode()
    for length in range(len(body)):
        with pytest.raises(PayloadError):
            Payload.decode(body[:length])


def test_spacing_is_the_length_of_the_affine_columns():
    # A 90 degree rotation about Z of spacings (2, 3, 8) mm.
    affine = np.array([[0, -3, 0, 5], [2, 0, 0, 6], [0, 0, 8, 7], [0, 0, 0, 1]], float)
    assert Volume(np.zeros((1, 1, 1), np.float32), None, affine).spacing == (2, 3, 8)


def test_orders_and_replies_survive_flower_records():
    answer = Payload(MASK_CODE, "a", "answer", {"codes": np.ones((2, 3), np.float16)})
    envelope = Envelope(Order("decode", 4, answer), "run", '{"name": "x"}', "head")
    back = read_order(write_order(envelope))
    assert (back.order.action, back.order.number, back.run_id, back.scenario, back.head) == (
        "decode",
        4,
        "run",
        '{"name": "x"}',
        "head",
    )
    assert back.order.answer is not None
    assert back.order.answer.encode() == answer.encode()
    assert read_order(write_order(Envelope(Order("fit"), "run", "{}", ""))).order.answer is None
    for reply in (
        Released(b"x", bytes(64), "0" * 64, "head", 1.5, 2.5, site="a"),
        Refused("a", "rule", "why", "head"),
        Failed("a", "ValueError", "1f"),
    ):
        assert read_reply(write_reply(reply)) == reply


def test_content_of_another_format_is_refused():
    from flwr.app import ConfigRecord, RecordDict

    for content in (
        RecordDict(),
        RecordDict({"order": ConfigRecord({"action": "x"})}),
        RecordDict({"released": ConfigRecord()}),
    ):
        with pytest.raises(PayloadError):
            read_order(content)
        with pytest.raises(PayloadError):
            read_reply(content)
