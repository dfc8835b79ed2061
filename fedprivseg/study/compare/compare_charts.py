"""A comparison's figures: Dice against bytes, Dice against leakage, learning curves. A method looks the same in all of them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import ScaledTranslation

from fedprivseg.core.errors import RequestError
from fedprivseg.core.pages.drawing import MUTED, as_png, as_svg, bare, draw_line, house_style, rounds_below
from fedprivseg.core.pages.looks import Look, looks_of
from fedprivseg.study.compare.runs import Comparison, Entry

_MARK = 8.0
"""How large a mark is, in points."""

_UNKNOWN = 1.14
"""Where runs stand whose leakage is not known: beyond the end of the scale."""


@dataclass(frozen=True)
class Mark:
    """One method in a scatter plot.

    Attributes:
        x: where it stands, in the units of the axis.
        y: its mean Dice.
        look: colour and marker.
        text: what the legend calls it.
        interval: lowest and highest Dice of the bar that is drawn through it, or None for no bar.
        hollow: whether it is an outline, for what is not known.
    """

    x: float
    y: float
    look: Look
    text: str
    interval: tuple[float, float] | None = None
    hollow: bool = False


def dice_against_bytes(comparison: Comparison) -> str:
    """Mean Dice against what one site sent and received, as inline SVG."""
    with house_style("scatter"):
        figure = _figure(9, 4.6, comparison)
        _scatter(figure.subplots(), comparison)
        return as_svg(figure, "Mean Dice of each method against the megabytes to and from one site")


def dice_against_leakage(comparison: Comparison) -> str:
    """Mean Dice against the leakage under the worst attack of any kind, with the Pareto front, as inline SVG; empty
    if no run was attacked."""
    if not _attacked(comparison):
        return ""
    with house_style("leakage"):
        figure = _figure(9, 4.6, comparison)
        _privacy(figure.subplots(), comparison)
        return as_svg(
            figure, "Mean Dice of each attacked method against its leakage under the worst attack of any kind"
        )


def learning_curves(comparison: Comparison) -> str:
    """Dice on test slices over rounds and over bytes, for the methods that train in rounds; empty if there is none."""
    if not any(entry.curve for entry in comparison.entries):
        return ""
    with house_style("curves"):
        figure = _figure(10, 4.2, comparison)
        left, right = figure.subplots(1, 2, sharey=True)
        _curves(left, comparison, lambda entry: entry.curve.rounds if entry.curve else ())
        rounds_below(left)
        keys = _curves(right, comparison, lambda entry: entry.curve.megabytes if entry.curve else ())
        right.set_xlabel("MB to and from a site")
        right.set_ylabel("")
        _legend(right, keys)
        return as_svg(figure, "Dice on test slices over rounds, and over megabytes to and from one site")


def bytes_png(comparison: Comparison) -> bytes:
    """Dice against bytes, with the learning curves beside it if there are any, as a PNG of 1200 x 500 pixels."""
    with house_style("comparison"):
        figure = Figure(figsize=(12, 5), dpi=100, layout=ConstrainedLayoutEngine(wspace=0.05))
        if any(entry.curve for entry in comparison.entries):
            left, right = figure.subplots(1, 2)
            _curves(left, comparison, lambda entry: entry.curve.rounds if entry.curve else ())
            rounds_below(left)
        else:
            right = figure.subplots()
        _scatter(right, comparison)
        return as_png(figure)


def leakage_png(comparison: Comparison) -> bytes:
    """Dice against leakage as a PNG of 900 x 500 pixels. Raises RequestError if no run was attacked."""
    if not _attacked(comparison):
        raise RequestError("none of these runs was attacked; run `fedprivseg attack RUN` on them first")
    with house_style("privacy"):
        figure = Figure(figsize=(9, 5), dpi=100, layout=ConstrainedLayoutEngine())
        _privacy(figure.subplots(), comparison)
        return as_png(figure)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (leakage, Dice) to which no other is preferred in both: less leakage and more Dice; by leakage."""
    front: list[tuple[float, float]] = []
    for leakage, dice in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or dice > front[-1][1]:
            front.append((leakage, dice))
    return front


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


def _figure(wide: float, high: float, comparison: Comparison) -> Figure:
    """A figure that is high enough for a legend of all methods."""
    return Figure(
        figsize=(wide, max(high, 1.2 + 0.34 * len(comparison.entries))), layout=ConstrainedLayoutEngine(wspace=0.06)
    )


def _looks(comparison: Comparison) -> dict[str, Look]:
    """Label -> how it looks, the same in every figure."""
    looks = looks_of([entry.forbidden for entry in comparison.entries])
    return {entry.label: look for entry, look in zip(comparison.entries, looks, strict=True)}


def _called(entry: Entry, more: str = "") -> str:
    """What a legend says of an entry."""
    notes = [note for note in ("forbidden" if entry.forbidden else "", more) if note]
    return f"{entry.label} ({', '.join(notes)})" if notes else entry.label


def _scatter(panel: Axes, comparison: Comparison) -> None:
    looks = _looks(comparison)
    marks = []
    for entry in comparison.entries:
        low, high = entry.dice_interval
        interval = (low, high) if low == low else None  # without subjects there is none
        spent = max(entry.up + entry.down, 1e-3)
        marks.append(Mark(spent, entry.mean, looks[entry.label], _called(entry), interval))
    _megabytes(panel, [mark.x for mark in marks])
    panel.set_ylabel("mean Dice, bar: 95 % over subjects")
    _marks(panel, marks)


def _megabytes(panel: Axes, spent: Sequence[float]) -> None:
    """The x axis: logarithmic where the methods differ by more than tenfold, so that there are always several ticks."""
    if max(spent) > 10 * min(spent):
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(spent) < 1000 * min(spent) else (1,)))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlim(min(spent) / 1.4, max(spent) * 1.4)
        panel.set_xlabel("MB to and from a site (log scale)")
    else:
        margin = 0.06 * (max(spent) - min(spent)) or 0.1 * max(spent)
        panel.set_xlim(max(0, min(spent) - margin), max(spent) + margin)
        panel.set_xlabel("MB to and from a site")
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _attacked(comparison: Comparison) -> bool:
    return any(entry.leakage is not None and not entry.forbidden for entry in comparison.entries)


def _privacy(panel: Axes, comparison: Comparison) -> None:
    looks = _looks(comparison)
    known = [(entry, entry.leakage) for entry in comparison.entries if entry.leakage is not None]
    front = pareto([(x, entry.mean) for entry, x in known if not entry.forbidden and not entry.control_failed])
    if front:
        panel.plot(
            *zip(*front, strict=True), color=MUTED, linewidth=1, linestyle=(0, (4, 2)), zorder=1, drawstyle="steps-post"
        )
    ticks = [round(0.2 * step, 1) for step in range(6)]
    if any(entry.control_failed for entry, _ in known):  # apart from the scale: no place on it would be true
        panel.axvline((1 + _UNKNOWN) / 2, color=MUTED, linewidth=0.8)
        panel.set_xticks([*ticks, _UNKNOWN], [*(f"{tick:g}" for tick in ticks), "not known"])
        panel.set_xlim(-0.03, 2 * _UNKNOWN - 1.03)
    else:
        panel.set_xticks(ticks)
        panel.set_xlim(-0.03, 1.03)
    panel.set_xlabel("leakage under the worst attack of any kind\n(0: no more than chance, 1: everything)")
    panel.set_ylabel("mean Dice")
    marks = []
    for entry, leakage in known:
        text = _called(entry, "leakage not known" if entry.control_failed and not entry.forbidden else "")
        place = _UNKNOWN if entry.control_failed else leakage
        marks.append(Mark(place, entry.mean, looks[entry.label], text, hollow=entry.control_failed))
    _marks(panel, marks)


def _marks(panel: Axes, marks: Sequence[Mark]) -> None:
    """Draw the marks side by side, each with its interval and a thin line to where it belongs, and the legend."""
    drawn = []
    for mark in marks:
        bar = []
        if mark.interval is not None:
            bar = panel.plot((mark.x, mark.x), mark.interval, color=mark.look.colour, alpha=0.35, linewidth=2, zorder=2)
        drawn.append([*bar, *panel.plot([mark.x], [mark.y], linestyle="none", zorder=3, **_face(mark))])
    _legend(panel, [Line2D([], [], linestyle="none", label=mark.text, **_face(mark)) for mark in marks])
    bare(panel)
    panel.tick_params(colors=MUTED)
    panel.autoscale_view()
    panel.autoscale(False)
    figure = panel.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # only now is it known how far apart on the page two places are
    points = panel.transData.transform([(mark.x, mark.y) for mark in marks]) * 72 / figure.dpi
    for mark, artists, shift in zip(marks, drawn, side_by_side(points, _MARK + 1.5), strict=True):
        if not shift:
            continue
        aside = panel.transData + ScaledTranslation(shift / 72, 0, figure.dpi_scale_trans)
        for artist in artists:
            artist.set_transform(aside)
        panel.annotate(
            "", (mark.x, mark.y), (shift, 0), xycoords="data", textcoords="offset points", zorder=2.5,
            arrowprops={"arrowstyle": "-", "color": mark.look.colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip


def _face(mark: Mark) -> dict[str, Any]:
    """How a mark is filled and edged. A white edge keeps neighbours apart."""
    fill, edge = ("white", mark.look.colour) if mark.hollow else (mark.look.colour, "white")
    return {
        "marker": mark.look.marker,
        "markersize": _MARK,
        "markerfacecolor": fill,
        "markeredgecolor": edge,
        "markeredgewidth": 1.2 if mark.hollow else 0.8,
    }


def _curves(panel: Axes, comparison: Comparison, across: Callable[[Entry], Sequence[float]]) -> list[Line2D]:
    """Draw the curves of the entries that have one; returns what a legend shows of them."""
    looks = _looks(comparison)
    for entry in comparison.entries:
        if entry.curve is not None:
            draw_line(panel, across(entry), entry.curve.dice, looks[entry.label], _called(entry))
    panel.set_ylabel("Dice on test slices")
    bare(panel)
    panel.tick_params(colors=MUTED)
    return list(panel.get_lines())


def _legend(panel: Axes, keys: Sequence[Line2D]) -> None:
    """A legend on the right, outside of what it explains, long names on two lines."""
    words = [textwrap.fill(str(key.get_label()), 30) for key in keys]
    panel.legend(
        keys, words, frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=3,
    )  # fmt: skip
