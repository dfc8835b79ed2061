"""How figures are drawn: rounds are whole numbers, no line hides another, the same figure is the same text."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fedprivseg.core.pages.drawing import as_png, as_svg, draw_line, house_style, rounds_below, short
from fedprivseg.core.pages.looks import looks_of


def curve(*lines: tuple[list[float], list[float]]) -> Figure:
    figure = Figure(figsize=(4, 3))
    panel = figure.subplots()
    for (xs, ys), look in zip(lines, looks_of([False] * len(lines)), strict=True):
        draw_line(panel, xs, ys, look, "a line")
    rounds_below(panel)
    return figure


@pytest.mark.parametrize("rounds", [1, 2, 3, 5, 6, 10, 30, 200])
def test_rounds_are_whole_numbers(rounds):
    with house_style("x"):
        figure = curve((list(range(1, rounds + 1)), [0.5] * rounds))
        as_svg(figure, "x")
    panel = figure.axes[0]
    low, high = panel.get_xlim()
    shown = [tick for tick in panel.get_xticks() if low <= tick <= high]
    assert shown
    assert all(tick == int(tick) for tick in shown)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_line_on_top_of_another_hides_nothing(count):
    """Every line's colour is in the picture, although all have the same points."""
    line = ([1.0, 2.0, 3.0], [0.2, 0.5, 0.9])
    with house_style("x"):
        figure = curve(*[line] * count)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    for look in looks_of([False] * count):
        near = np.abs(pixels - np.round(255 * np.array(to_rgb(look.colour)))).max(axis=-1) < 40
        assert near.sum() > 40, look


def test_a_figure_is_the_same_text_each_time_with_no_more_digits_than_a_screen_shows():
    texts = []
    for _ in range(2):
        with house_style("x"):
            texts.append(as_svg(curve(([1.0, 2.0, 7.0], [1 / 3, 2 / 3, 5 / 7])), "<two> & more"))
    assert texts[0] == texts[1]
    assert 'aria-label="&lt;two&gt; &amp; more"' in texts[0]
    assert not re.search(r' d="[^"]*\d\.\d{3}', texts[0])
    with house_style("x"):
        assert as_png(curve(([1.0], [1.0])), 50)[16:24] == (200).to_bytes(4, "big") + (150).to_bytes(4, "big")


def test_what_is_cut_short_is_still_told_apart():
    assert short(["Centre 1", "Clinica Sagrada Familia, Barcelona"], 16) == ["Centre 1", "Clinica Sagrada…"]
    # Of 16 characters the last 8 stay, and 7 in front of the ellipsis.
    assert short(["Hospital of the city (one)", "Hospital of the city (two)", "short"], 16) == [
        "Hospita…ty (one)", "Hospita…ty (two)", "short",
    ]  # fmt: skip
    assert short(["x" * 30, "x" * 30], 10) == ["x" * 9 + "…"] * 2
