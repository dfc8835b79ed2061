"""What departs from a declaration, and that no refusal repeats what it found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedprivseg.core.expected import MOST_SHARDS, Array, Expected
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE
from fedprivseg.core.records import Payload
from fedprivseg.governance.policy.declaration import departure

CODE = "C1D5H7"
NUMBER = int.from_bytes(CODE.encode(), "big")
STREAM = Expected(
    IMAGE_CODE,
    "train",
    {"codes": Array("float16", (None, 2, 4), longest=8), "counts": Array("int64", (2,), least=0, most=10)},
    ("view", "float16"),
    views=2,
)
SINGLE = replace(STREAM, views=0)


def payload(**changes) -> Payload:
    arrays = {"codes": np.zeros((3, 2, 4), np.float16), "counts": np.array([0, 10])}
    return Payload(
        IMAGE_CODE, "centre1", "train", arrays, **{"shard": 1, "shards": 2, "history": STREAM.history, **changes}
    )


def with_arrays(**changes: np.ndarray) -> Payload:
    return replace(payload(), arrays={**payload().arrays, **changes})


@pytest.mark.parametrize("expected", [STREAM, SINGLE, replace(STREAM, shards=2)])
@pytest.mark.parametrize("rows", [0, 3, 8])
def test_what_is_declared_departs_in_nothing(expected, rows):
    assert departure(with_arrays(codes=np.ones((rows, 2, 4), np.float16)), expected, 1) is None


@pytest.mark.parametrize(
    ("sent", "rule"),
    [
        (replace(payload(), kind=MASK_CODE), "kind"),
        (replace(payload(), purpose=CODE), "purpose"),
        (replace(payload(), purpose="infer"), "purpose"),
        (payload(shard=0), "shard"),
        (payload(shard=NUMBER, shards=NUMBER + 1), "shard"),
        (payload(shard=-1), "shard"),
        (payload(history=()), "history"),
        (payload(history=("view", "float16", CODE)), "history"),
        (payload(history=("view", f"float16 {CODE}")), "history"),
        (payload(history=("float16", "view")), "history"),
        (payload(history=("view",)), "history"),
        (with_arrays(**{CODE: np.zeros(1)}), "names"),
        (replace(payload(), arrays={CODE: payload().arrays["codes"], "counts": payload().arrays["counts"]}), "names"),
        (replace(payload(), arrays={}), "names"),
        (with_arrays(codes=np.zeros((3, 2, 4), np.float32)), "dtype"),
        (with_arrays(codes=np.zeros((3, 2, 4), bool)), "dtype"),
        (with_arrays(codes=np.zeros((9, 2, 4), np.float16)), "shape"),
        (with_arrays(codes=np.zeros((3, 2, 5), np.float16)), "shape"),
        (with_arrays(codes=np.zeros((3, 2, 4, 1), np.float16)), "shape"),
        (with_arrays(codes=np.zeros((0, 67, 49), np.float16)), "shape"),
        (with_arrays(counts=np.array(3)), "shape"),
        (with_arrays(counts=np.array([0, 11])), "range"),
        (with_arrays(counts=np.array([-1, 0])), "range"),
        (with_arrays(counts=np.array([0, NUMBER])), "range"),
    ],
)
def test_whatever_departs_is_refused_by_name_and_not_repeated(sent, rule):
    for expected in (STREAM, SINGLE):
        decision = departure(sent, expected, 1)
        assert decision is not None
        assert (decision.allowed, decision.rule, decision.clause) == (False, f"declaration.{rule}", "5.6.2-b")
        assert decision.reason.endswith(".")
        assert len(decision.reason) < 250
        assert CODE not in decision.reason
        assert str(NUMBER) not in decision.reason


@pytest.mark.parametrize(
    ("expected", "shards", "fits"),
    [
        (SINGLE, 2, True),
        (SINGLE, 3, False),
        (SINGLE, 1, False),
        (STREAM, 2, True),
        (STREAM, MOST_SHARDS, True),
        (STREAM, MOST_SHARDS + 1, False),
        (STREAM, 1, False),
        (STREAM, NUMBER, False),
        (replace(STREAM, shards=6), 6, True),
        (replace(STREAM, shards=6), 5, False),
    ],
)
def test_the_number_of_shards_is_that_of_the_order_or_of_the_stream(expected, shards, fits):
    decision = departure(payload(shards=shards), expected, 1)
    assert (decision is None) == fits
    assert decision is None or (decision.rule == "declaration.shards" and str(NUMBER) not in decision.reason)


def test_without_a_declaration_nothing_may_leave():
    decision = departure(payload(), None, 1)
    assert decision is not None
    assert decision.rule == "declaration.absent"


def test_hundreds_of_declared_names_make_no_long_reason():
    many = replace(SINGLE, arrays={f"net/{number}": Array("float32", (1,)) for number in range(300)})
    decision = departure(payload(), many, 1)
    assert decision is not None
    assert len(decision.reason) < 250
