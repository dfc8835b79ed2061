"""Marks of methods in a scatter plot: side by side, with their intervals, and the lines of floor and ceiling under them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from fedprivseg.core.leakage_result import Interval
from fedprivseg.core.pages.drawing import MUTED, bare
from fedprivseg.core.pages.looks import Look, looks_of
from fedprivseg.study.compare.entries import Entry
from fedprivseg.study.compare.runs import Comparison

SIZE = 8.0
"""How large a mark is, in points."""


@dataclass(frozen=True)
class Mark:
    """One method in a scatter plot.

    Attributes:
        x: where it stands, in the units of the axis.
        y: its mean Dice.
        look: colour and marker.
        text: what the legend calls it.
        upright: lowest and highest Dice of the bar that is drawn through it, or None for no bar.
        across: the same along x.
        hollow: whether it is an outline.
    """

    x: float
    y: float
    look: Look
    text: str
    upright: Interval | None = None
    across: Interval | None = None
    hollow: bool = False


def figure_of(wide: float, high: float, comparison: Comparison) -> Figure:
    """A figure that is high enough for a legend of all methods. wide, high: inches."""
    return Figure(
        figsize=(wide, max(high, 1.2 + 0.34 * len(comparison.entries))), layout=ConstrainedLayoutEngine(wspace=0.06)
    )


def looks(comparison: Comparison) -> dict[str, Look]:
    """Label -> how it looks, the same in every figure."""
    found = looks_of([entry.forbidden for entry in comparison.entries])
    return {entry.label: look for entry, look in zip(comparison.entries, found, strict=True)}


def called(entry: Entry, more: str = "") -> str:
    """What a legend says of an entry."""
    notes = [note for note in ("forbidden" if entry.forbidden else "", more) if note]
    return f"{entry.label} ({', '.join(notes)})" if notes else entry.label


def dice_bar(entry: Entry) -> Interval | None:
    """The interval of its Dice; None without subjects enough."""
    return entry.dice_interval if entry.dice_interval[0] == entry.dice_interval[0] else None


def draw_bounds(panel: Axes, comparison: Comparison) -> None:
    """Level lines of what every way of sharing has to beat, and of what raw data would reach, each with its name on it."""
    own = looks(comparison)
    bounds = [("floor", entry) for entry in comparison.entries if entry.label == comparison.floor]
    for word, entry in (*bounds, *(("ceiling", entry) for entry in comparison.ceilings)):
        colour = own[entry.label].colour
        panel.axhline(entry.mean, color=colour, linewidth=1.1, linestyle=(0, (6, 3)), zorder=1.5)
        panel.annotate(
            f"{word}: {entry.label} {entry.mean:.3f}", (0, entry.mean), (16, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", color=colour, fontsize=8, zorder=4,
        )  # fmt: skip


def draw_marks(panel: Axes, marks: Sequence[Mark]) -> None:
    """Draw the marks side by side, each with its intervals and a thin line to where it belongs, and the legend."""
    drawn = []
    for mark in marks:
        bars = []
        for interval, upright in ((mark.upright, True), (mark.across, False)):
            if interval is not None:
                ends = ((mark.x, mark.x), interval) if upright else (interval, (mark.y, mark.y))
                bars += panel.plot(*ends, color=mark.look.colour, alpha=0.35, linewidth=2, zorder=2)
        drawn.append([*bars, *panel.plot([mark.x], [mark.y], linestyle="none", zorder=3, **_face(mark))])
    legend(panel, [Line2D([], [], linestyle="none", label=mark.text, **_face(mark)) for mark in marks])
    bare(panel)
    panel.tick_params(colors=MUTED)
    panel.autoscale_view()
    panel.autoscale(False)
    figure = panel.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # only now is it known how far apart on the page two places are
    points = panel.transData.transform([(mark.x, mark.y) for mark in marks]) * 72 / figure.dpi
    for mark, artists, shift in zip(marks, drawn, side_by_side(points, SIZE + 1.5), strict=True):
        if not shift:
            continue
        aside = panel.transData + ScaledTranslation(shift / 72, 0, figure.dpi_scale_trans)
        for artist in artists:
            artist.set_transform(aside)
        panel.annotate(
            "", (mark.x, mark.y), (shift, 0), xycoords="data", textcoords="offset points", zorder=2.5,
            arrowprops={"arrowstyle": "-", "color": mark.look.colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip


def side_by_side(points: np.ndarray, apart: float) -> np.ndarray:
    """How far to move each point to the side, so that no two marks cover each other.

    Args:
        points: (N, 2), in points of the page.
        apart: how far from each other two marks must stand, in points.

    Returns:
        (N,) shifts along x, each the smallest multiple of `apart` that leads to a free place; 0 where nothing is in the way.
    """
    shifts = np.zeros(len(points))
    placed: list[tuple[float, float]] = []
    for place, (x, y) in enumerate(points):
        steps = (sign * apart * number for number in range(len(points) + 1) for sign in (1, -1))
        shifts[place] = next(
            step for step in steps if all(np.hypot(x + step - one, y - two) > 0.99 * apart for one, two in placed)
        )
        placed.append((x + shifts[place], y))
    return shifts


def legend(panel: Axes, keys: Sequence[Line2D]) -> None:
    """A legend on the right, outside of what it explains, long names on two lines."""
    words = [textwrap.fill(str(key.get_label()), 30) for key in keys]
    panel.legend(
        keys, words, frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=3,
    )  # fmt: skip


def _face(mark: Mark) -> dict[str, Any]:
    """How a mark is filled and edged. A white edge keeps neighbours apart."""
    fill, edge = ("white", mark.look.colour) if mark.hollow else (mark.look.colour, "white")
    return {
        "marker": mark.look.marker,
        "markersize": SIZE,
        "markerfacecolor": fill,
        "markeredgecolor": edge,
        "markeredgewidth": 1.2 if mark.hollow else 0.8,
    }
