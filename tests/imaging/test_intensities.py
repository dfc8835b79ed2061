"""Images that would reach a network as a constant are refused, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from fedprivseg.core.errors import DataError
from fedprivseg.imaging.intensities import NoSignalError, require_signal, stretched, without_signal


def picture(shape=(20, 20, 5)) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 2000, shape).astype(np.float32)


def sparse() -> np.ndarray:
    """19 of 2000 voxels are bright: less than one in a hundred."""
    image = np.zeros((20, 20, 5), np.float32)
    image.flat[:: 2000 // 18] = 500
    return image


def with_blank(value: float, *slices: int) -> np.ndarray:
    image = picture()
    image[..., list(slices)] = value
    return image


@pytest.mark.parametrize("image", [np.zeros((9, 9, 3), np.float32), np.full((9, 9, 3), 7, np.float32), sparse()])
def test_a_frame_with_nothing_to_stretch(image):
    with pytest.raises(NoSignalError, match="98 of 100 voxels"):
        stretched(image)
    assert "98 of 100 voxels" in without_signal(image)


@pytest.mark.parametrize("value", [0, 700, 1e6])
def test_a_blank_slice_is_named(value):
    """Zeros, a constant in between, and one that clips: padding has any of them."""
    image = with_blank(value, 0, 3)
    assert "2 of 5 slices of a frame are blank (from 0: 0, 3)" in without_signal(image)
    with pytest.raises(NoSignalError):
        require_signal(stretched(image).transpose(2, 0, 1))


def test_many_blank_slices_make_no_long_sentence():
    image = picture((20, 20, 30))
    image[..., 5:20] = 0
    assert "(from 0: 5, 6, 7, 8, 9, 10, 11, 12, ...)" in without_signal(image)


def test_a_picture_is_stretched_and_passes():
    image = picture()
    got = stretched(image)
    low, high = np.percentile(image, (1, 99))
    np.testing.assert_allclose(got, np.clip((image - low) / (high - low), 0, 1), atol=1e-6)
    assert got.dtype == np.float32
    assert without_signal(image) == ""


def test_it_is_a_wrong_request_that_tells_no_intensity():
    assert issubclass(NoSignalError, DataError)
    assert "700" not in without_signal(np.full((9, 9, 3), 700, np.float32))
