"""A comparison's figures of cost: Dice against bytes, and learning curves. A method looks the same in all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from fedprivseg.core.pages.drawing import MUTED, as_png, as_svg, bare, draw_line, house_style, rounds_below
from fedprivseg.study.compare import marks
from fedprivseg.study.compare.entries import Entry
from fedprivseg.study.compare.runs import Comparison


def dice_against_bytes(comparison: Comparison) -> str:
    """Mean Dice against what one site sent and received, as inline SVG."""
    with house_style("scatter"):
        figure = marks.figure_of(9, 4.6, comparison)
        _scatter(figure.subplots(), comparison)
        return as_svg(figure, "Mean Dice of each method against the megabytes to and from one site")


def learning_curves(comparison: Comparison) -> str:
    """Dice on test slices over rounds and over bytes, for the methods that train in rounds; empty if there is none."""
    if not any(entry.curve for entry in comparison.entries):
        return ""
    with house_style("curves"):
        figure = marks.figure_of(10, 4.2, comparison)
        left, right = figure.subplots(1, 2, sharey=True)
        _curves(left, comparison, lambda entry: entry.curve.rounds if entry.curve else ())
        rounds_below(left)
        keys = _curves(right, comparison, lambda entry: entry.curve.megabytes if entry.curve else ())
        right.set_xlabel("MB to and from a site")
        right.set_ylabel("")
        marks.legend(right, keys)
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


def _scatter(panel: Axes, comparison: Comparison) -> None:
    looks = marks.looks(comparison)
    found = [
        marks.Mark(
            max(entry.up + entry.down, 1e-3),
            entry.mean,
            looks[entry.label],
            marks.called(entry),
            marks.dice_bar(entry),
        )
        for entry in comparison.entries
    ]
    _megabytes(panel, [mark.x for mark in found])
    panel.set_ylabel("mean Dice, bar: 95 % over subjects")
    marks.draw_bounds(panel, comparison)
    marks.draw_marks(panel, found)


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


def _curves(panel: Axes, comparison: Comparison, across: Callable[[Entry], Sequence[float]]) -> list[Line2D]:
    """Draw the curves of the entries that have one; returns what a legend shows of them."""
    looks = marks.looks(comparison)
    for entry in comparison.entries:
        if entry.curve is not None:
            draw_line(panel, across(entry), entry.curve.dice, looks[entry.label], marks.called(entry))
    panel.set_ylabel("Dice on test slices")
    bare(panel)
    panel.tick_params(colors=MUTED)
    return list(panel.get_lines())
