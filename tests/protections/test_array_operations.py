"""Boxes, intensities and blocks of arrays: what is done to whom, and what a key undoes."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedprivseg.core.errors import RequestError
from fedprivseg.protections.blocks import DataTransformation, Permutation, Rearrangement
from fedprivseg.protections.boxes import Masking, NullInsertion, Occlusion
from fedprivseg.protections.grey_values import Clipping, NumericTransform, Perturbation, Randomisation
from fedprivseg.protections.operation import ArrayOperation, SeedKey


def key(seed: int = 0) -> SeedKey:
    return SeedKey(seed, ("test",))


KEY = key()


def image_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 30, shape).astype(np.float32)


images = hnp.arrays(
    np.float32,
    st.one_of(st.tuples(*[st.integers(4, 9)] * 2), st.tuples(st.integers(1, 3), *[st.integers(4, 9)] * 2)),
    elements=st.floats(-1000, 1000, width=32),
)


# ---------------------------------------------------------------------------------------------- covering


def test_an_occluded_box_is_flat_and_the_rest_is_untouched() -> None:
    image = image_of(2, 5, 6)
    operation = Occlusion(rows=(1, 3), columns=(2, 6), value=7.0)
    done = operation.apply(image, KEY)
    inside = np.zeros((5, 6), bool)
    inside[1:3, 2:6] = True
    assert (done[:, inside] == 7).all()
    assert np.array_equal(done[:, ~inside], image[:, ~inside])
    assert operation.history((1, 5, 6)) == "occlusion of rows 1 to 3, columns 2 to 6 with 7"


def test_masking_is_the_other_half_of_occlusion() -> None:
    image = image_of(2, 5, 6)
    masked = Masking(kept_rows=(1, 3), kept_columns=(2, 6)).apply(image, KEY)
    occluded = Occlusion(rows=(1, 3), columns=(2, 6)).apply(image, KEY)
    assert np.array_equal(masked + occluded, image)
    assert np.array_equal(masked[:, 1:3, 2:6], image[:, 1:3, 2:6])


def test_nulls_stand_in_every_region_and_nowhere_else() -> None:
    image = image_of(5, 6)
    operation = NullInsertion(regions=(((0, 1), (0, 2)), ((3, 5), (5, 6))), null=-1.0)
    done = operation.apply(image, KEY)
    expected = image.copy()
    for row, column in [(0, 0), (0, 1), (3, 5), (4, 5)]:
        expected[row, column] = -1
    assert np.array_equal(done, expected)
    words = "null insertion of -1 at rows 0 to 1, columns 0 to 2; rows 3 to 5, columns 5 to 6"
    assert operation.history((1, 5, 6)) == words


def test_clipping_is_at_the_percentiles_of_the_whole_stack() -> None:
    image = np.arange(101, dtype=np.float32).reshape(1, 101)  # so that the p-th percentile is p
    done = Clipping(low=10, high=75).apply(image, KEY)
    assert (done.min(), done.max()) == (10, 75)
    assert np.array_equal(done[0, 10:76], image[0, 10:76])


@pytest.mark.parametrize("kind", [Occlusion, Masking])
def test_a_box_that_reaches_out_of_the_array_is_refused(kind: type[ArrayOperation]) -> None:
    names = list(kind.model_fields)[:2]
    for box in [((0, 6), (0, 6)), ((0, 5), (0, 7))]:
        operation = kind(**dict(zip(names, box, strict=True)))
        with pytest.raises(RequestError, match="5 rows and 6 columns"):
            operation.apply(image_of(2, 5, 6), KEY)
        with pytest.raises(RequestError, match="5 rows and 6 columns"):
            operation.history((1, 5, 6))
    with pytest.raises(RequestError, match="5 rows and 6 columns"):
        NullInsertion(regions=(((0, 1), (0, 1)), ((0, 6), (0, 6)))).apply(image_of(5, 6), KEY)


@pytest.mark.parametrize("bounds", [(2, 2), (3, 1), (-1, 2), (0.5, 2), (0, 1, 2), "02"])
def test_a_range_that_is_none_is_refused(bounds: Any) -> None:
    for box in ((bounds, (0, 1)), ((0, 1), bounds)):
        with pytest.raises(ValidationError):
            Occlusion(rows=box[0], columns=box[1])
    with pytest.raises(ValidationError):
        NullInsertion(regions=(((0, 1), (0, 1)), (bounds, (0, 1))))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Clipping(low=5, high=5),
        lambda: Clipping(low=-1, high=50),
        lambda: Clipping(low=float("nan"), high=50),
        lambda: Perturbation(deviation=0.0),
        lambda: Perturbation(deviation=float("nan")),
        lambda: NumericTransform(gain=0.0, offset=1.0),
        lambda: NumericTransform(gain=-1.0, offset=1.0),
        lambda: NumericTransform(gain=1.0, offset=float("inf")),
        lambda: Occlusion(rows=(0, 1), columns=(0, 1), value=float("nan")),
        lambda: Occlusion(rows=(0, 1), columns=(0, 1), value=1e39),
        lambda: NullInsertion(regions=()),
        lambda: NullInsertion(regions=(((0, 1), (0, 1)),), null=float("nan")),
        lambda: Rearrangement(block=0),
        lambda: Permutation(block=1),
        lambda: DataTransformation(block=33),
        lambda: Randomisation(bins=0),
    ],
)
def test_parameters_that_make_no_sense_are_refused(build: Any) -> None:
    with pytest.raises(ValidationError):
        build()


# ---------------------------------------------------------------------------------------------- other values


def test_noise_has_the_deviation_it_says_and_comes_from_the_generator_given() -> None:
    image = np.zeros((100, 100), np.float32)
    done = Perturbation(deviation=3.0).apply(image, key(1))
    # 10 000 draws: the deviation of the sample deviation is 3 / sqrt(2 * 10 000) = 0.021, that of the mean 0.03.
    assert abs(done.std() - 3) < 0.1
    assert abs(done.mean()) < 0.15
    assert np.array_equal(done, Perturbation(deviation=3.0).apply(image, key(1)))
    assert not np.array_equal(done, Perturbation(deviation=3.0).apply(image, key(2)))


def test_a_numeric_transform_keeps_the_order() -> None:
    image = image_of(4, 4)
    operation = NumericTransform(gain=0.5, offset=10.0)
    done = operation.apply(image, KEY)
    assert np.allclose(done, image / 2 + 10)
    assert np.array_equal(np.argsort(done, axis=None), np.argsort(image, axis=None))
    assert np.allclose(operation.undo(done, KEY), image, atol=1e-4)
    assert operation.history() == "numeric transform: gain 0.5, offset 10"


@pytest.mark.parametrize("operation", [NumericTransform(gain=1e38, offset=0.0), Perturbation(deviation=1e39)])
def test_what_float32_does_not_hold_is_refused_and_not_made_infinite(operation: ArrayOperation) -> None:
    with pytest.raises(RequestError, match="float32"):
        operation.apply(image_of(4, 4), KEY)


@settings(deadline=None)
@given(image=images, bins=st.integers(1, 16))
def test_a_randomised_slice_has_the_slice_s_histogram(image: np.ndarray, bins: int) -> None:
    done = Randomisation(bins=bins).apply(image, KEY)
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
    done = Randomisation(bins=2).apply(image, KEY)
    # Both halves hold about half of the bright pixels: 800 of 1600, of which 400 +- 10 (hypergeometric) in each half.
    assert 350 < (done[:20] > 50).sum() < 450
    assert (done > 50).sum() == 800


# ---------------------------------------------------------------------------------------------- keyed


@settings(deadline=None)
@given(image=images, seed=st.integers(0, 2**32))
def test_orders_keep_all_intensities_and_are_undone_for_any_image_of(image: np.ndarray, seed: int) -> None:
    image = image[..., : image.shape[-2] // 2 * 2, : image.shape[-1] // 2 * 2]
    for operation in (Rearrangement(block=2), Permutation(block=2)):
        done = operation.apply(image, key(seed))
        assert np.array_equal(np.sort(done, axis=None), np.sort(image, axis=None))
        assert np.array_equal(operation.undo(done, key(seed)), image)


def test_rearranged_blocks_stay_whole_and_permuted_pixels_stay_in_their_block() -> None:
    image = np.arange(36, dtype=np.float32).reshape(6, 6)

    def blocks(array: np.ndarray) -> list[list[float]]:
        corners = [(row, column) for row in (0, 2, 4) for column in (0, 2, 4)]
        return [array[row : row + 2, column : column + 2].ravel().tolist() for row, column in corners]

    moved = blocks(Rearrangement(block=2).apply(image, KEY))
    assert sorted(moved) == sorted(blocks(image))
    assert moved != blocks(image)
    mixed = blocks(Permutation(block=2).apply(image, KEY))
    assert [sorted(block) for block in mixed] == [sorted(block) for block in blocks(image)]
    assert mixed != blocks(image)


def test_a_data_transformation_keeps_lengths() -> None:
    image = image_of(3, 8, 8)
    done = DataTransformation(block=4).apply(image, KEY)
    assert np.linalg.norm(done) == pytest.approx(np.linalg.norm(image), rel=1e-5)


@pytest.mark.parametrize("kind", [Rearrangement, Permutation, DataTransformation])
def test_a_remainder_beside_the_blocks_is_refused_with_the_blocks_that_fit(kind: type[ArrayOperation]) -> None:
    operation = kind(block=2)
    image = image_of(9, 15)
    for call in (operation.apply, operation.undo, lambda image, key: operation.history(image.shape)):
        with pytest.raises(RequestError, match="9 x 15 pixels.*blocks of 1, 3 fit"):
            call(image, KEY)
