"""What a server announces: one model for every site, for one order of one run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedprivseg.core.array_bytes import arrays_digest
from fedprivseg.core.errors import ModelRefused
from fedprivseg.core.records import Order
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.runtime.announcement import announce, announced_model

ARRAYS = {"net/a": np.arange(6, dtype=np.float32).reshape(2, 3), "net/b": np.ones(2, np.float32)}
ORDER = Order("train", 3)


def test_what_was_announced_is_known_by_its_digest():
    key = SiteKey.new()
    signature = announce(key, "run", ORDER, ARRAYS)
    turned = dict(reversed(ARRAYS.items()))
    assert announced_model(key.public_hex, "run", ORDER, signature, turned) == arrays_digest(ARRAYS)


def _other(name, value):
    return {**ARRAYS, name: value}


@pytest.mark.parametrize(
    ("run", "order", "arrays"),
    [
        ("another", ORDER, ARRAYS),
        ("run", replace(ORDER, number=4), ARRAYS),
        ("run", replace(ORDER, action="validate"), ARRAYS),
        ("run", ORDER, _other("net/b", np.zeros(2, np.float32))),
        ("run", ORDER, _other("net/a", ARRAYS["net/a"].reshape(3, 2))),
        ("run", ORDER, {"net/a": ARRAYS["net/a"]}),
    ],
)
def test_anything_else_is_refused(run, order, arrays):
    key = SiteKey.new()
    signature = announce(key, "run", ORDER, ARRAYS)
    with pytest.raises(ModelRefused, match="not the ones that the server announced") as refused:
        announced_model(key.public_hex, run, order, signature, arrays)
    assert refused.value.rule == "model.not-announced"


@pytest.mark.parametrize("signature", ["", "no hex", "00" * 64])
def test_without_the_servers_signature_nothing_is_announced(signature):
    with pytest.raises(ModelRefused):
        announced_model(SiteKey.new().public_hex, "run", ORDER, signature, ARRAYS)
    assert announced_model(None, "run", ORDER, signature, ARRAYS) == arrays_digest(ARRAYS), (
        "a site that knows no server"
    )
