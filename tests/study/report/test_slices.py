"""Slices as inline SVG: square in mm, exact outlines, and of a size that has a bound."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.path import Path as Region
from PIL import Image

from fedprivseg.core.task import default_task
from fedprivseg.study.report.slices import (
    RAGGED,
    Case,
    case_svg,
    code_svg,
    image_svg,
    outline,
)

LINES = default_task().lines


def case(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)
) -> Case:
    return Case(image, truth, prediction, spacing, 0.5)


def pixels(svg: str) -> list[np.ndarray]:
    """The images in an SVG as arrays (rows, columns)."""
    found = re.findall(r"base64,([A-Za-z0-9+/=]+)", svg)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


def test_slices_are_square_in_mm_and_cropped():
    """A 40 x 40 mm square of 1 x 2 mm pixels, with a margin of 14 mm on each side: 68 by 34 pixels of the 200 x 100."""
    labels = np.zeros((200, 100), np.uint8)
    labels[80:120, 40:60] = 1
    svg = case_svg(case(np.random.default_rng(0).random((200, 100)), labels, labels, (1.0, 2.0)), "x", "title", LINES)
    assert 'viewBox="0 0 68 68"' in svg
    assert '<image width="68" height="68" preserveAspectRatio="none"' in svg
    assert pixels(svg)[0].shape == (34, 68)
    assert "scale(0.5 1)" in svg  # half pixels: 0.5 mm across, 1 mm down
    # 14 mm in from the left and 7 pixels down: from half pixel 28 across and 14 down, 80 wide and 40 high, corners cut by half
    # a pixel as marching squares cut them.
    d = re.search(r' d="([^"]*)"', svg)[1]
    points = np.cumsum([list(map(int, pair)) for pair in re.findall(r"(-?\d+) ?(-?\d+)", d)], axis=0)
    assert points.min(axis=0).tolist() == [28, 14]
    assert points.max(axis=0).tolist() == [108, 54]


def test_one_pixel_is_a_lozenge():
    one = np.zeros((3, 3), bool)
    one[0, 2] = True
    # The pixel's centre stands half a pixel from the left and two and a half from the top: at half pixels (1, 5).
    d = outline(one)
    start = tuple(map(int, re.match(r"M(-?\d+) ?(-?\d+)l", d).groups()))
    steps = [tuple(map(int, pair)) for pair in re.findall(r"(-?\d+) ?(-?\d+)", d.split("l")[1])]
    corners = {start}
    for x, y in steps:
        start = (start[0] + x, start[1] + y)
        corners.add(start)
    assert corners == {(0, 5), (1, 4), (2, 5), (1, 6)}
    assert outline(np.zeros((3, 3), bool)) == ""


@pytest.mark.parametrize("seed", range(3))
def test_an_outline_holds_the_centre_of_every_pixel_of_its_region_and_no_other(seed):
    """Also where the region has holes, touches the border and comes in pieces; inside is where an odd number of pieces is."""
    inside = np.random.default_rng(seed).random((14, 9)) < 0.6
    centres = np.stack(np.meshgrid(2 * np.arange(14) + 1, 2 * np.arange(9) + 1, indexing="ij"), axis=-1).reshape(-1, 2)
    held = np.zeros(len(centres), int)
    for piece in outline(inside).split("M")[1:]:
        numbers = np.array([list(map(int, pair)) for pair in re.findall(r"(-?\d+) ?(-?\d+)", piece)])
        held += Region(np.cumsum(numbers, axis=0)).contains_points(centres)
    assert (held % 2 == 1).reshape(14, 9).tolist() == inside.tolist()


def test_grey_is_between_the_first_and_the_99th_percentile():
    image = np.linspace(-50, 1000, 10_000).reshape(100, 100)
    shown = pixels(case_svg(case(image, np.zeros((100, 100)), np.zeros((100, 100))), "x", "t", LINES))[0]
    assert shown.dtype == np.uint8
    # Of 0..1 in order the hundredth part from below is 0, the middle one half of 255, that from above 255.
    assert (shown.T.reshape(-1)[[0, 99, 5000, 9950]] == (0, 0, 128, 255)).all()


def test_a_constant_slice_is_drawn_without_a_warning():
    svg = case_svg(case(np.ones((20, 20)), np.zeros((20, 20)), np.zeros((20, 20))), "x", "t", LINES)
    assert pixels(svg)[0].max() == 0


@pytest.mark.parametrize("specks", [0.0, 0.02, 0.3, 1.0])
def test_a_subject_takes_a_bounded_room_whatever_the_network_says(specks):
    """A prediction of specks is tinted: at most an outline for each of three structures, twice, and 1 bit a pixel instead."""
    random = np.random.default_rng(0)
    truth = np.zeros((160, 160), np.uint8)
    truth[60:100, 60:100] = 1
    prediction = np.where(random.random(truth.shape) < specks, random.integers(0, 4, truth.shape), truth)
    smooth = np.add.outer(np.sin(np.arange(160) / 9), np.cos(np.arange(160) / 7))
    svg = case_svg(case(smooth, truth, prediction), "x", "t", LINES)
    assert len(svg) < 30_000 + 6 * RAGGED
    assert ("opacity:.5" in svg) == (specks >= 0.3)
    if specks == 1.0:
        tints = pixels(svg)[1:]
        shown = prediction[case(smooth, truth, prediction).window].T
        assert [tint.astype(bool).tolist() for tint in tints] == [(shown == label).tolist() for label in (3, 2, 1)]


def test_a_code_stays_sharp_and_a_slice_is_smoothed():
    code = code_svg(np.random.default_rng(0).random((4, 6, 6)), "t")
    assert "image-rendering:pixelated" in code
    assert "image-rendering" not in image_svg(np.eye(8), "t")
    assert pixels(image_svg(np.eye(8), "t"))[0].tolist() == (255 * np.eye(8)).tolist()


def test_titles_are_escaped():
    assert 'aria-label="&lt;a&gt; &quot;b&quot;"' in image_svg(np.eye(8), '<a> "b"')
