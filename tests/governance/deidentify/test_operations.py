"""The contract of a de-identification over all operations on arrays, tables and files; secrets; images of another shape."""

from __future__ import annotations

import ast
import inspect
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protection_examples import example

from fedprivseg.core.errors import RequestError
from fedprivseg.core.techniques import Technique
from fedprivseg.governance.deidentify import tables_keyed
from fedprivseg.governance.deidentify.apply import IMAGES, TABLES
from fedprivseg.governance.deidentify.encryption import Encryption
from fedprivseg.governance.deidentify.images import Crop, Generalisation, Statistics
from fedprivseg.governance.deidentify.secret import Secret
from fedprivseg.protections import PROTECTIONS, resolve
from fedprivseg.protections.keyed import Keyed
from fedprivseg.protections.operation import ArrayOperation, Operation

SECRET = Secret(bytes(range(32)))
OTHER = Secret(bytes(range(1, 33)))


def all_operations() -> list[Any]:
    found = {*PROTECTIONS, *IMAGES, *TABLES, Encryption}
    return sorted(found, key=lambda kind: (kind.__module__, kind.__name__))


def test_every_technique_of_the_clause_is_a_real_operation() -> None:
    fixed = {name for kind in all_operations() if kind is not Keyed for name in kind.techniques}
    # Nothing encrypts homomorphically here: numbers that somebody computes on are no file.
    assert fixed == set(Technique) - {Technique.HOMOMORPHIC_ENCRYPTION}
    assert set(Keyed(cells=True).techniques) < fixed


@pytest.mark.parametrize("kind", all_operations(), ids=lambda kind: f"{kind.__module__.split('.')[-1]}.{kind.__name__}")
def test_an_operation_says_in_a_line_what_it_guarantees_and_who_undoes_it(kind: type[Operation[Any, Any]]) -> None:
    assert kind.guarantee.split(":")[0] in ("formal", "computational", "none")
    assert kind.reversal.split(":")[0] in ("nobody", "key holder", "anybody")
    assert "\n" not in kind.guarantee + kind.reversal
    assert getattr(kind, "__final__", False)
    assert kind.__doc__
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.name)
    assert issubclass(kind, Operation)
    for name, field in kind.model_fields.items():
        assert field.description, f"{kind.__name__}.{name} says nothing of itself"


def test_who_claims_to_undo_has_an_undo_and_who_says_nobody_has_none() -> None:
    # A pseudonym is found again by making those of all codes, not by running it backwards.
    without = {tables_keyed.Substitution}
    for kind in all_operations():
        undoes = kind.undo is not Operation.undo
        if kind.reversal.startswith("anybody"):
            continue
        assert undoes == kind.reversal.startswith("key holder") or kind in without


def test_no_operation_draws_from_a_global_generator() -> None:
    for path in {inspect.getsourcefile(kind) for kind in all_operations()}:
        tree = ast.parse(Path(str(path)).read_text(encoding="utf-8"))
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        drawn = {call for call in calls if call.startswith(("np.random.", "random.", "numpy.random."))}
        assert not drawn, f"{path} calls {drawn}"


ARRAYS = [resolve(example(kind.name)) for kind in PROTECTIONS] + [
    Generalisation(block=2),
    Crop(rows=(0, 3), columns=(1, 4)),
]
by_name = pytest.mark.parametrize("operation", ARRAYS, ids=lambda operation: operation.name)


def image_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 30, shape).astype(np.float32)


@by_name
def test_the_global_state_and_the_array_stay_as_they_were(operation: ArrayOperation) -> None:
    image = image_of(2, 4, 6, 6)
    before, numpy_state, python_state = image.copy(), np.random.get_state()[1].copy(), random.getstate()
    operation.apply(image, SECRET)
    assert np.array_equal(image, before)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state


@by_name
def test_slices_that_are_alike_come_out_alike(operation: ArrayOperation) -> None:
    image = image_of(1, 4, 6, 6)
    done = operation.apply(np.concatenate([image, image]), SECRET)
    assert done.dtype == np.float32
    assert np.isfinite(done).all()
    assert len(done) == 2
    if operation.name not in ("perturbation", "randomisation", "noise"):  # these draw again for every slice
        assert np.array_equal(done[0], done[1])


@by_name
def test_what_a_key_did_the_key_undoes_and_no_other(operation: ArrayOperation) -> None:
    if not operation.reversible:
        with pytest.raises(RequestError, match="cannot be undone here: nobody"):
            operation.undo(image_of(1, 4, 6, 6), SECRET)
        return
    image = image_of(3, 4, 8, 12)
    mine = replace(SECRET, names=("order",))
    done = operation.apply(image, mine)
    assert np.allclose(operation.undo(done, mine), image, atol=1e-3)
    assert not np.allclose(done, image, atol=1)
    if operation.reversal.startswith("key holder"):
        for wrong in (replace(OTHER, names=("order",)), replace(SECRET, names=("another order",))):
            assert not np.allclose(operation.undo(done, wrong), image, atol=1)


# ---------------------------------------------------------------------------------------------- secrets


def test_a_secret_is_not_in_its_repr_nor_in_that_of_what_holds_it() -> None:
    for holder in (Secret(b"K" * 32), [Secret(b"K" * 32)]):
        assert "KKKK" not in repr(holder) + str(holder)


def test_created_secrets_differ() -> None:
    assert Secret.create() != Secret.create()


@pytest.mark.parametrize("material", [b"", bytes(31), bytes(33), "x" * 32, bytearray(32)])
def test_a_secret_of_another_length_or_type_is_refused(material: Any) -> None:
    with pytest.raises(RequestError, match="exactly 32 bytes"):
        Secret(material)


def test_a_digest_is_hmac_sha_256_over_the_purpose_set_apart_and_the_text() -> None:
    # HMAC written out (FIPS 198-1): H((key ^ opad) || H((key ^ ipad) || message)), key padded to the 64-byte block.
    import hashlib

    key = SECRET.material + bytes(32)
    message = b"\x00\x00\x00\x01" + b"a" + b"bc"
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + message).digest()
    assert SECRET.digest("a", "bc") == hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()
    assert SECRET.digest("a", "bc") != SECRET.digest("ab", "c")


def test_a_secret_s_generators_repeat_by_name_and_are_unrelated_otherwise() -> None:
    def draw(secret: Secret, *names: str | int) -> int:
        return int(secret.fixed(*names).integers(2**62))

    assert draw(SECRET, "blocks", 1) == draw(SECRET, "blocks", 1)
    draws = [
        draw(SECRET, "blocks", 1),
        draw(SECRET, "blocks", 2),
        draw(SECRET, "blocks", "1"),
        draw(OTHER, "blocks", 1),
    ]
    assert len(set(draws)) == len(draws)


# ---------------------------------------------------------------------------------------------- images of another shape

images = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 3), *[st.integers(4, 9)] * 2), elements=st.floats(-1000, 1000, width=32)
)


def test_block_means_by_hand() -> None:
    image = np.array([[1, 3, 10], [5, 7, 20], [100, 300, 1000]], np.float32)
    operation = Generalisation(block=2)
    done = operation.apply(image, SECRET)
    # (1+3+5+7)/4, (10+20)/2; (100+300)/2, 1000
    assert done.tolist() == [[4, 15], [200, 1000]]
    assert operation.history() == "generalisation: means over blocks of 2 x 2 pixels"


@settings(deadline=None)
@given(image=images, block=st.integers(2, 5))
def test_block_means_agree_with_one_block_at_a_time(image: np.ndarray, block: int) -> None:
    done = Generalisation(block=block).apply(image, SECRET)
    for row in range(done.shape[-2]):
        for column in range(done.shape[-1]):
            part = image[..., row * block : (row + 1) * block, column * block : (column + 1) * block]
            expected = part.astype(np.float64).mean(axis=(-2, -1))
            assert np.allclose(done[..., row, column], expected, rtol=1e-6, atol=1e-4)


def test_a_crop_is_the_box_in_memory_of_its_own() -> None:
    image = image_of(2, 5, 6)
    done = Crop(rows=(1, 3), columns=(2, 6)).apply(image, SECRET)
    assert np.array_equal(done, image[:, 1:3, 2:6])
    assert not np.shares_memory(done, image)  # a view would carry along what was cut off


def test_statistics_by_hand() -> None:
    image = np.array([[0, 1], [2, 9]], np.float32)
    operation = Statistics(bins=3)
    done = operation.apply(image, SECRET)
    assert done.counts.tolist() == [3, 0, 1]
    assert done.edges.tolist() == [0, 3, 6, 9]
    assert (done.mean, done.pixels) == (3, 4)
    assert done.deviation == pytest.approx(np.sqrt((9 + 4 + 1 + 36) / 4))
    assert operation.history() == "statistics: histogram of 3 bins, mean and deviation"
