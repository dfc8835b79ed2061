"""The contract, secrets and operations on pictures, plain and keyed."""

from __future__ import annotations

import ast
import inspect
import random
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.deidentify import counts, encryption, images, images_keyed, tables, tables_keyed
from fedprivseg.governance.deidentify.images import (
    Bits,
    Clipping,
    Crop,
    Generalisation,
    ImageOperation,
    Masking,
    NullInsertion,
    NumericTransform,
    Occlusion,
    Perturbation,
    Randomisation,
    Statistics,
)
from fedprivseg.governance.deidentify.images_keyed import (
    DataTransformation,
    KeyedImageOperation,
    Permutation,
    Rearrangement,
)
from fedprivseg.governance.deidentify.operation import Done, Operation, Secret
from fedprivseg.governance.policy.technique_table import Technique

MODULES = (
    counts,
    encryption,
    images,
    images_keyed,
    tables,
    tables_keyed,
)
SECRET = Secret(bytes(range(32)))
OTHER = Secret(bytes(range(1, 33)))

PLAIN: tuple[ImageOperation, ...] = (
    Occlusion((0, 2), (1, 3)),
    Masking((0, 2), (1, 3)),
    NullInsertion((((0, 1), (0, 1)), ((2, 4), (1, 2)))),
    Generalisation(2),
    Crop((0, 3), (1, 4)),
    Clipping(5, 95),
    Bits(3),
    Perturbation(0.5),
    NumericTransform(2.0, -1.0),
    Randomisation(8),
)
KEYED: tuple[KeyedImageOperation, ...] = (Rearrangement(2), Permutation(2), DataTransformation(2))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return generator(seed).normal(100, 30, shape).astype(np.float32)


pictures = hnp.arrays(
    np.float32,
    st.one_of(st.tuples(*[st.integers(4, 9)] * 2), st.tuples(st.integers(1, 3), *[st.integers(4, 9)] * 2)),
    elements=st.floats(-1000, 1000, width=32),
)


# ---------------------------------------------------------------------------------------------- the contract


def operations() -> list[type[Operation]]:
    found = [
        kind
        for module in MODULES
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Operation) and kind.__module__ == module.__name__ and not inspect.isabstract(kind)
    ]
    return [kind for kind in found if "technique" in kind.__dict__]


def test_every_technique_of_the_clause_is_a_real_operation() -> None:
    assert {kind.technique for kind in operations()} == set(Technique) - {Technique.HOMOMORPHIC_ENCRYPTION}


@pytest.mark.parametrize("kind", operations(), ids=lambda kind: f"{kind.__module__.split('.')[-1]}.{kind.__name__}")
def test_an_operation_says_in_a_line_what_it_guarantees_and_who_undoes_it(kind: type[Operation]) -> None:
    assert kind.guarantee.split(":")[0] in ("formal", "computational", "none")
    assert kind.reversal.split(":")[0] in ("nobody", "key holder", "anybody")
    assert "\n" not in kind.guarantee + kind.reversal
    assert getattr(kind, "__final__", False)
    assert kind.__doc__


def test_who_claims_to_undo_has_an_undo_and_nobody_else_has() -> None:
    without = {"Substitution"}  # a pseudonym is found again by making those of all codes, not by running it backwards
    for kind in operations():
        assert hasattr(kind, "undo") == kind.reversal.startswith("key holder") or kind.__name__ in without


def test_no_operation_draws_from_a_global_generator() -> None:
    for module in MODULES:
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        drawn = {call for call in calls if call.startswith(("np.random.", "random.", "numpy.random."))}
        assert not drawn, f"{module.__name__} calls {drawn}"


@pytest.mark.parametrize("operation", [*PLAIN, *KEYED], ids=lambda operation: type(operation).__name__)
def test_the_global_state_and_the_picture_stay_as_they_were(operation: ImageOperation) -> None:
    image = picture(2, 6, 6)
    before, numpy_state, python_state = image.copy(), np.random.get_state()[1].copy(), random.getstate()
    operation.apply(image, generator())
    assert np.array_equal(image, before)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state


@pytest.mark.parametrize("operation", [*PLAIN, *KEYED], ids=lambda operation: type(operation).__name__)
def test_the_history_is_one_line_that_begins_with_the_technique_and_does_not_depend_on_the_data(
    operation: ImageOperation,
) -> None:
    lines = {operation.apply(picture(2, 6, 6, seed=seed), SECRET.generator(seed)).history for seed in range(3)}
    assert len(lines) == 1
    assert lines.pop().startswith(operation.technique.value)


@pytest.mark.parametrize("operation", [*PLAIN, *KEYED], ids=lambda operation: type(operation).__name__)
@pytest.mark.parametrize(
    "bad",
    [
        picture(6, 6).astype(np.float64),
        picture(6),
        np.zeros((0, 6, 6), np.float32),
        np.full((6, 6), np.nan, np.float32),
        np.full((6, 6), np.inf, np.float32),
    ],
    ids=["double", "one axis", "empty", "nan", "inf"],
)
def test_what_is_no_picture_is_refused(operation: ImageOperation, bad: np.ndarray) -> None:
    with pytest.raises(RequestError):
        operation.apply(bad, generator())


@pytest.mark.parametrize("operation", [*PLAIN, *KEYED], ids=lambda operation: type(operation).__name__)
def test_a_stack_is_treated_slice_by_slice_alike(operation: ImageOperation) -> None:
    image = picture(6, 6)
    stack = np.stack([image, image])
    done = operation.apply(stack, generator()).value
    assert done.dtype == np.float32
    assert np.isfinite(done).all()
    assert len(done) == 2
    if not isinstance(operation, Perturbation | Randomisation):  # these draw anew for every slice
        assert np.array_equal(done[0], done[1])
        if not isinstance(operation, Clipping):  # percentiles are between the values of all that is given
            assert np.array_equal(operation.apply(image, generator()).value, done[0])


# ---------------------------------------------------------------------------------------------- secrets


def test_a_secret_is_not_in_its_repr_nor_in_that_of_what_holds_it() -> None:
    secret = Secret(b"K" * 32)
    key = encryption.CipherKey(encryption.Cipher.SM4_GCM, b"K" * 16)
    holders = (
        secret,
        key,
        encryption.Encryption(key),
        tables_keyed.Substitution("code", secret),
        tables_keyed.DateShift(("day",), "code", secret),
    )
    assert not any("KKKK" in repr(holder) or "KKKK" in str(holder) for holder in holders)


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
        return int(secret.generator(*names).integers(2**62))

    assert draw(SECRET, "blocks", 1) == draw(SECRET, "blocks", 1)
    draws = [
        draw(SECRET, "blocks", 1),
        draw(SECRET, "blocks", 2),
        draw(SECRET, "blocks", "1"),
        draw(OTHER, "blocks", 1),
    ]
    assert len(set(draws)) == len(draws)


# ---------------------------------------------------------------------------------------------- covering


def test_an_occluded_box_is_flat_and_the_rest_is_untouched() -> None:
    image = picture(2, 5, 6)
    done = Occlusion((1, 3), (2, 6), value=7.0).apply(image, generator())
    inside = np.zeros((5, 6), bool)
    inside[1:3, 2:6] = True
    assert (done.value[:, inside] == 7).all()
    assert np.array_equal(done.value[:, ~inside], image[:, ~inside])
    assert done.history == "occlusion of rows 1 to 3, columns 2 to 6 with 7"


def test_masking_is_the_other_half_of_occlusion() -> None:
    image = picture(2, 5, 6)
    masked = Masking((1, 3), (2, 6)).apply(image, generator()).value
    occluded = Occlusion((1, 3), (2, 6)).apply(image, generator()).value
    assert np.array_equal(masked + occluded, image)
    assert np.array_equal(masked[:, 1:3, 2:6], image[:, 1:3, 2:6])


def test_nulls_stand_in_every_region_and_nowhere_else() -> None:
    image = picture(5, 6)
    done = NullInsertion((((0, 1), (0, 2)), ((3, 5), (5, 6))), null=-1.0).apply(image, generator())
    expected = image.copy()
    for row, column in [(0, 0), (0, 1), (3, 5), (4, 5)]:
        expected[row, column] = -1
    assert np.array_equal(done.value, expected)
    assert done.history == "null insertion of -1 at rows 0 to 1, columns 0 to 2; rows 3 to 5, columns 5 to 6"


@pytest.mark.parametrize("kind", [Occlusion, Masking, Crop])
def test_a_box_that_reaches_out_of_the_picture_is_refused(kind: type) -> None:
    for box in [((0, 6), (0, 6)), ((0, 5), (0, 7))]:
        with pytest.raises(RequestError, match="5 rows and 6 columns"):
            kind(*box).apply(picture(2, 5, 6), generator())
    with pytest.raises(RequestError, match="5 rows and 6 columns"):
        NullInsertion((((0, 1), (0, 1)), ((0, 6), (0, 6)))).apply(picture(5, 6), generator())


@pytest.mark.parametrize("bounds", [(2, 2), (3, 1), (-1, 2), (0.0, 2), (0, 1, 2), (True, 2)])
def test_a_range_that_is_none_is_refused(bounds: Any) -> None:
    for kind in (Occlusion, Masking, Crop):
        for box in ((bounds, (0, 1)), ((0, 1), bounds)):
            with pytest.raises(RequestError, match="0 <= first < end"):
                kind(*box)
    with pytest.raises(RequestError, match="0 <= first < end"):
        NullInsertion((((0, 1), (0, 1)), (bounds, (0, 1))))


# ---------------------------------------------------------------------------------------------- less of it


def test_block_means_by_hand() -> None:
    image = np.array([[1, 3, 10], [5, 7, 20], [100, 300, 1000]], np.float32)
    done = Generalisation(2).apply(image, generator())
    # (1+3+5+7)/4, (10+20)/2; (100+300)/2, 1000
    assert done.value.tolist() == [[4, 15], [200, 1000]]
    assert done.history == "generalisation: means over blocks of 2 x 2 pixels"


@settings(deadline=None)
@given(image=pictures, block=st.integers(2, 5))
def test_block_means_agree_with_one_block_at_a_time(image: np.ndarray, block: int) -> None:
    done = Generalisation(block).apply(image, generator()).value
    for row in range(done.shape[-2]):
        for column in range(done.shape[-1]):
            part = image[..., row * block : (row + 1) * block, column * block : (column + 1) * block]
            expected = part.astype(np.float64).mean(axis=(-2, -1))
            assert np.allclose(done[..., row, column], expected, rtol=1e-6, atol=1e-4)


def test_a_crop_is_the_box_in_memory_of_its_own() -> None:
    image = picture(2, 5, 6)
    done = Crop((1, 3), (2, 6)).apply(image, generator()).value
    assert np.array_equal(done, image[:, 1:3, 2:6])
    assert not np.shares_memory(done, image)  # a view would carry along what was cut off


def test_clipping_is_at_the_percentiles_of_the_whole_stack() -> None:
    image = np.arange(101, dtype=np.float32).reshape(1, 101)  # so that the p-th percentile is p
    done = Clipping(10, 75).apply(image, generator()).value
    assert (done.min(), done.max()) == (10, 75)
    assert np.array_equal(done[0, 10:76], image[0, 10:76])


@settings(deadline=None)
@given(image=pictures, bits=st.integers(1, 8))
def test_rounding_leaves_so_many_levels_and_moves_by_half_a_step_at_most(image: np.ndarray, bits: int) -> None:
    done = Bits(bits).apply(image, generator()).value
    assert len(np.unique(done)) <= 2**bits
    step = (float(image.max()) - float(image.min())) / (2**bits - 1)
    assert np.abs(done - image).max() <= step / 2 + 1e-3


@pytest.mark.parametrize(
    "build",
    [
        lambda: Generalisation(1),
        lambda: Generalisation(2.0),  # type: ignore[arg-type]
        lambda: Bits(0),
        lambda: Bits(17),
        lambda: Clipping(5, 5),
        lambda: Clipping(-1, 50),
        lambda: Clipping(float("nan"), 50),
        lambda: Perturbation(0.0),
        lambda: Perturbation(float("nan")),
        lambda: NumericTransform(0.0, 1.0),
        lambda: NumericTransform(-1.0, 1.0),
        lambda: NumericTransform(1.0, float("inf")),
        lambda: Occlusion((0, 1), (0, 1), value=float("nan")),
        lambda: Occlusion((0, 1), (0, 1), value=1e39),
        lambda: NullInsertion(()),
        lambda: NullInsertion((((0, 1), (0, 1)),), null=float("nan")),
        lambda: Rearrangement(0),
        lambda: Permutation(1),
        lambda: DataTransformation(33),
        lambda: Statistics(0),
        lambda: Randomisation(0),
    ],
)
def test_parameters_that_make_no_sense_are_refused(build: Any) -> None:
    with pytest.raises(RequestError):
        build()


# ---------------------------------------------------------------------------------------------- other values


def test_noise_has_the_deviation_it_says_and_comes_from_the_generator_given() -> None:
    image = np.zeros((100, 100), np.float32)
    done = Perturbation(3.0).apply(image, generator(1)).value
    # 10 000 draws: the deviation of the sample deviation is 3 / sqrt(2 * 10 000) = 0.021, that of the mean 0.03.
    assert abs(done.std() - 3) < 0.1
    assert abs(done.mean()) < 0.15
    assert np.array_equal(done, Perturbation(3.0).apply(image, generator(1)).value)
    assert not np.array_equal(done, Perturbation(3.0).apply(image, generator(2)).value)


def test_a_numeric_transform_keeps_the_order() -> None:
    image = picture(4, 4)
    done = NumericTransform(0.5, 10.0).apply(image, generator())
    assert np.allclose(done.value, image / 2 + 10)
    assert np.array_equal(np.argsort(done.value, axis=None), np.argsort(image, axis=None))
    assert done.history == "numeric transform: gain 0.5, offset 10"


@pytest.mark.parametrize("operation", [NumericTransform(1e38, 0.0), Perturbation(1e39)])
def test_what_float32_does_not_hold_is_refused_and_not_made_infinite(operation: ImageOperation) -> None:
    with pytest.raises(RequestError, match="float32"):
        operation.apply(picture(4, 4), generator())


@settings(deadline=None)
@given(image=pictures, bins=st.integers(1, 16))
def test_a_randomised_slice_has_the_slice_s_histogram(image: np.ndarray, bins: int) -> None:
    done = Randomisation(bins).apply(image, generator()).value
    for before, after in zip(np.atleast_3d(image.T).T, np.atleast_3d(done.T).T, strict=True):
        counts, edges = np.histogram(before.astype(np.float64), bins)
        assert after.min() >= before.min()
        assert after.max() <= before.max()
        # A value drawn within rounding of an edge may be counted on its other side, so edges give way by that much.
        slack = 1e-4 * max(1, float(np.abs(before).max()))
        for edge, below in zip(edges[1:-1], np.cumsum(counts)[:-1], strict=True):
            assert (after < edge - slack).sum() <= below <= (after < edge + slack).sum()


def test_a_randomised_slice_shows_nothing_of_the_layout() -> None:
    image = np.zeros((40, 40), np.float32)
    image[:20] = 100
    done = Randomisation(2).apply(image, generator()).value
    # Both halves hold about half of the bright pixels: 800 of 1600, of which 400 +- 10 (hypergeometric) in each half.
    assert 350 < (done[:20] > 50).sum() < 450
    assert (done > 50).sum() == 800


def test_statistics_by_hand() -> None:
    image = np.array([[0, 1], [2, 9]], np.float32)
    done = Statistics(3).apply(image)
    assert done.value.counts.tolist() == [3, 0, 1]
    assert done.value.edges.tolist() == [0, 3, 6, 9]
    assert (done.value.mean, done.value.pixels) == (3, 4)
    assert done.value.deviation == pytest.approx(np.sqrt((9 + 4 + 1 + 36) / 4))
    assert done.history == "statistics: histogram of 3 bins, mean and deviation"
    with pytest.raises(RequestError):
        Statistics(3).apply(image.astype(np.float64))


# ---------------------------------------------------------------------------------------------- keyed


@pytest.mark.parametrize("operation", KEYED, ids=lambda operation: type(operation).__name__)
def test_the_key_undoes_and_another_key_does_not(operation: KeyedImageOperation) -> None:
    image = picture(3, 8, 12)
    done: Done[np.ndarray] = operation.apply(image, SECRET.generator("order"))
    back = operation.undo(done.value, SECRET.generator("order"))
    if isinstance(operation, DataTransformation):
        assert np.allclose(back, image, atol=1e-3)
    else:
        assert np.array_equal(back, image)
    assert not np.allclose(done.value, image, atol=1)
    for wrong in (OTHER.generator("order"), SECRET.generator("another order")):
        assert not np.allclose(operation.undo(done.value, wrong), image, atol=1)


@settings(deadline=None)
@given(image=pictures, seed=st.integers(0, 2**32))
def test_orders_keep_all_intensities_and_are_undone_for_any_picture(image: np.ndarray, seed: int) -> None:
    image = image[..., : image.shape[-2] // 2 * 2, : image.shape[-1] // 2 * 2]
    for operation in (Rearrangement(2), Permutation(2)):
        done = operation.apply(image, generator(seed)).value
        assert np.array_equal(np.sort(done, axis=None), np.sort(image, axis=None))
        assert np.array_equal(operation.undo(done, generator(seed)), image)


def test_rearranged_blocks_stay_whole_and_permuted_pixels_stay_in_their_block() -> None:
    image = np.arange(36, dtype=np.float32).reshape(6, 6)

    def blocks(array: np.ndarray) -> list[list[float]]:
        corners = [(row, column) for row in (0, 2, 4) for column in (0, 2, 4)]
        return [array[row : row + 2, column : column + 2].ravel().tolist() for row, column in corners]

    moved = blocks(Rearrangement(2).apply(image, generator()).value)
    assert sorted(moved) == sorted(blocks(image))
    assert moved != blocks(image)
    mixed = blocks(Permutation(2).apply(image, generator()).value)
    assert [sorted(block) for block in mixed] == [sorted(block) for block in blocks(image)]
    assert mixed != blocks(image)


def test_a_data_transformation_keeps_lengths() -> None:
    image = picture(3, 8, 8)
    done = DataTransformation(4).apply(image, generator()).value
    assert np.linalg.norm(done) == pytest.approx(np.linalg.norm(image), rel=1e-5)


@pytest.mark.parametrize("operation", KEYED, ids=lambda operation: type(operation).__name__)
def test_a_remainder_beside_the_blocks_is_refused_with_the_blocks_that_fit(operation: KeyedImageOperation) -> None:
    for call in (operation.apply, operation.undo):
        with pytest.raises(RequestError, match="9 x 15 pixels.*blocks of 1, 3 fit"):
            call(picture(9, 15), generator())
