"""Views at inference: every view is undone, so a network that answers right in each is right in the mean."""

from __future__ import annotations

import numpy as np
import pytest

from fedprivseg.nets.choices import VIEWS
from fedprivseg.nets.test_time import average_scores, upright, view


def _slices(height, width):
    """Two blobs off the centre, smooth enough that a turn there and back changes little."""
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-(((y - height * 0.4) / 6) ** 2 + ((x - width * 0.6) / 9) ** 2))
    return np.stack([blob, blob[::-1]]).astype(np.float32)


def _scores(images):
    """An answer that follows the picture: LV where it is bright, background elsewhere."""
    zero = np.zeros_like(images)
    return np.stack([1 - images, images, zero, zero], axis=1)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80)])
@pytest.mark.parametrize("count", [1, 4, len(VIEWS)])
def test_what_is_turned_is_turned_back(height, width, count):
    images = _slices(height, width)
    values = np.concatenate([_scores(view(images, index)) for index in range(count)])
    mean = average_scores(values, count)
    assert mean.shape == (2, 4, height, width)
    np.testing.assert_allclose(mean.sum(axis=1), 1, atol=1e-5)
    # Mirrorings are exact; two bilinear interpolations of a blob of width 6 lose at most a few hundredths.
    np.testing.assert_allclose(mean, _scores(images), atol=1e-6 if count <= 4 else 0.05)


def test_views_differ_from_each_other():
    images = _slices(48, 80)
    seen = [view(images, index) for index in range(len(VIEWS))]
    for one in range(len(VIEWS)):
        for other in range(one):
            assert np.abs(seen[one] - seen[other]).max() > 0.1


def test_no_slices_give_no_slices():
    assert view(np.zeros((0, 32, 32), np.float32), 5).shape == (0, 32, 32)


@pytest.mark.parametrize("count", [1, 4, 6, 12])
def test_pictures_of_all_views_fall_into_place(count) -> None:
    """Turning back and forth only smooths: on smooth pictures every view comes back as the picture, as far as it reaches."""
    rows, columns = np.mgrid[:32, :24] / 32
    picture = (0.5 + 0.3 * np.sin(3 * rows) * np.cos(2 * columns)).astype(np.float32)[None]
    index = count - 1
    back, reach = (upright(view(one, index)[:, None], index)[0, 0] for one in (picture, np.ones_like(picture)))
    shown = reach > 0.99
    assert shown.mean() > 0.75
    assert np.abs(back - picture[0])[shown].max() < 0.02
