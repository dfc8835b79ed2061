"""A comparison's figures: a method looks the same in all of them, and none is hidden under another."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from fedprivseg.core.pages.looks import looks_of
from fedprivseg.study.compare import compare_charts, marks
from fedprivseg.study.compare.compare_charts import dice_against_bytes, learning_curves
from fedprivseg.study.compare.entries import Curve, Distances, Entry
from fedprivseg.study.compare.front import fronts
from fedprivseg.study.compare.front_chart import dice_against_leakage, leakage_png
from fedprivseg.study.compare.marks import side_by_side
from fedprivseg.study.compare.runs import Comparison


def entry(label: str, **changes) -> Entry:
    plain = Entry(
        label=label, scenario=label, grid="32 x 32 pixels of 2.0 mm", method=label,
        variant="", group="codes-only", seeds=(0,), folds=(), subjects=9,
        sites={"centre1": 0.8}, mean=0.8, dice=(0.8,), dice_interval=(0.75, 0.85),
        hd95=Distances(5.0, (4.0, 6.0), 5.0, 0, 54), up=2.0, down=4.0, rounds=4, local_steps=2, minutes=1.0,
        compute_minutes=1.0, simulated_s=None, peak_mb=100.0, forbidden=False, silent=False, budget=None,
        curve=Curve((1, 2, 3), (2.0, 4.0, 6.0), (0.3, 0.6, 0.8)), cross_site={}, leakage=0.4, leakage_interval=None,
        leakage_by="", unknown=False, at_least=None,
    )  # fmt: skip
    return replace(plain, **changes)


def comparison(*entries: Entry) -> Comparison:
    found = fronts([(each.label, each.group, each.point) for each in entries])
    return Comparison(entries, ("centre1",), entries[0].label, None, (), fronts=found)


LABELS = ("coded", "fedavg", "fedprox", "scaffold", "fedbn", "secagg", "ditto", "krum", "median")


@pytest.fixture
def same() -> Comparison:
    """Nine methods of which every number is the same."""
    return comparison(*(entry(label) for label in LABELS))


def colours_in(body: bytes) -> dict[str, int]:
    """Label -> pixels of a PNG that have its method's colour."""
    pixels = np.asarray(Image.open(io.BytesIO(body)).convert("RGB")).astype(int)
    wanted = {label: np.round(255 * np.array(to_rgb(look.colour))) for label, look in looks(LABELS[:7]).items()}
    return {label: int((np.abs(pixels - colour).max(axis=-1) < 12).sum()) for label, colour in wanted.items()}


def looks(labels):
    return dict(zip(labels, looks_of([False] * len(labels)), strict=True))


@pytest.mark.parametrize("draw", [compare_charts.bytes_png, leakage_png])
def test_no_mark_is_hidden_under_another(same, draw, monkeypatch):
    """Without legend, intervals and curves each method's colour is in the picture: of a mark of some 90 pixels at least 20."""
    monkeypatch.setattr(marks, "legend", lambda panel, keys: None)
    plain = [replace(each, curve=None, dice_interval=(np.nan, np.nan)) for each in same.entries]
    assert min(colours_in(draw(comparison(*plain[:7]))).values()) > 20


def test_marks_stand_side_by_side_by_hand():
    # Three in one place: the first stays, the second goes right, the third left; the fourth is far away, the fifth 6 below.
    points = np.array([[10.0, 5.0], [10, 5], [10, 5], [100, 5], [10, -1]])
    assert side_by_side(points, 8.0).tolist() == [0, 8, -8, 0, 16]
    assert side_by_side(np.array([[0.0, 0.0], [0, 8]]), 8.0).tolist() == [0, 0]
    shifts = side_by_side(np.zeros((20, 2)), 8.0)
    assert len(set(shifts.tolist())) == 20


def test_a_method_looks_the_same_in_every_figure(same):
    """The legend's mark of a label has one colour in all figures, and it is no other label's unless the marker differs."""
    found = {}
    for svg in (dice_against_bytes(same), dice_against_leakage(same), learning_curves(same)):
        for label in LABELS:
            before = svg[: svg.rindex(f">{label}</text>")]
            colour = re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", before[before.rindex("<use") :])
            found.setdefault(label, set()).update(each for each in colour if each not in ("#ffffff", "#1f2933"))
    assert found == {label: {look.colour.lower()} for label, look in looks(LABELS).items()}


def test_forbidden_methods_are_red_and_differ(same):
    two = comparison(entry("raw a", forbidden=True), entry("raw b", forbidden=True), entry("coded"))
    found = marks.looks(two)
    assert found["raw a"].colour == found["raw b"].colour != found["coded"].colour
    assert found["raw a"].marker != found["raw b"].marker
    assert "raw a (forbidden)" in dice_against_bytes(two)


def test_rounds_are_whole_numbers(same):
    ticks = re.findall(r">(\d[\d.]*)</text>", learning_curves(same).split(">round</text>")[0])
    assert ticks[:3] == ["1", "2", "3"]


@pytest.mark.parametrize("up", [(0.01, 900.0), (1.0, 30.0), (9.0, 13.0), (9.0, 9.0)], ids=str)
def test_the_axis_of_bytes_has_ticks_whatever_its_range(up):
    svg = dice_against_bytes(comparison(entry("one", up=up[0], down=0.0), entry("two", up=up[1], down=0.0)))
    across = svg.split(">MB to and from a site")[0]
    ticks = [float(number) for number in re.findall(r">(\d[\d.]*)</text>", across)]
    inside = [tick for tick in ticks if up[0] / 1.5 <= tick <= up[1] * 1.5]
    assert len(inside) >= 2


def test_a_method_without_rounds_gets_no_empty_panel():
    alone = comparison(entry("coded", curve=None))
    assert learning_curves(alone) == ""
    assert compare_charts.bytes_png(alone)[16:24] == (1200).to_bytes(4, "big") + (500).to_bytes(4, "big")


def test_a_legend_of_many_long_names_fits(same):
    """All 24 names are in the picture, long ones on two lines, and the legend is no higher than the figure."""
    many = comparison(*(entry(f"privacy-sf improved, noise, opposition 0.{number:02d}") for number in range(24)))
    svg = dice_against_bytes(many)
    high = float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg)[1])
    places = [float(y) for y in re.findall(r"<text [^>]*?translate\([\d.]+ ([\d.-]+)\)[^>]*>opposition", svg)]
    assert len(places) == 24
    assert 0 < min(places) < max(places) < high
