"""The figure of Dice against headline leakage: the front of what shares something, between floor and ceiling.

What is not known has no place on the scale. It stands apart from it, and never at 0.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fedprivseg.core.errors import RequestError
from fedprivseg.core.pages.drawing import MUTED, as_png, as_svg, house_style
from fedprivseg.study.compare.compare_tables import attacked, leakage_in_words
from fedprivseg.study.compare.front import REFERENCE
from fedprivseg.study.compare.marks import Mark, called, dice_bar, draw_bounds, draw_marks, figure_of, looks
from fedprivseg.study.compare.runs import Comparison

_UNKNOWN = 1.14
"""Where runs stand whose leakage is not known: beyond the end of the scale."""

_COVERED = "#EEF2F6"


def dice_against_leakage(comparison: Comparison) -> str:
    """Mean Dice against the headline leakage, with the front, as inline SVG; empty if no run was attacked."""
    if not attacked(comparison):
        return ""
    with house_style("leakage"):
        figure = figure_of(9, 4.6, comparison)
        _draw(figure.subplots(), comparison)
        return as_svg(figure, "Mean Dice of each attacked method against its headline leakage, with the front")


def leakage_png(comparison: Comparison) -> bytes:
    """The same as a PNG of 900 x 500 pixels. Raises RequestError if no run was attacked."""
    if not attacked(comparison):
        raise RequestError("none of these runs was attacked; run `fedprivseg attack RUN` on them first")
    with house_style("privacy"):
        figure = Figure(figsize=(9, 5), dpi=100, layout=ConstrainedLayoutEngine())
        _draw(figure.subplots(), comparison)
        return as_png(figure)


def _draw(panel: Axes, comparison: Comparison) -> None:
    own = looks(comparison)
    marks = []
    for entry in comparison.entries:
        if entry.unknown:
            text = called(entry, f"leakage {leakage_in_words(entry)}")
            marks.append(Mark(_UNKNOWN, entry.mean, own[entry.label], text, dice_bar(entry), hollow=True))
        elif entry.leakage is not None:
            beaten = comparison.dominated(entry)
            note = "floor" if entry.label == comparison.floor else "dominated" if beaten else ""
            text = called(entry, note)
            marks.append(
                Mark(
                    entry.leakage,
                    entry.mean,
                    own[entry.label],
                    text,
                    dice_bar(entry),
                    entry.leakage_interval,
                    hollow=beaten,
                )
            )
    ticks = [round(0.2 * step, 1) for step in range(6)]
    if any(entry.unknown for entry in comparison.entries):
        panel.axvline((1 + _UNKNOWN) / 2, color=MUTED, linewidth=0.8)
        panel.set_xticks([*ticks, _UNKNOWN], [*(f"{tick:g}" for tick in ticks), "not known"])
        panel.set_xlim(-0.03, 2 * _UNKNOWN - 1.03)
    else:
        panel.set_xticks(ticks)
        panel.set_xlim(-0.03, 1.03)
    panel.set_xlabel("headline leakage, worst attack\n(0: no more than chance, 1: the image; bar: 95 %)")
    panel.set_ylabel("mean Dice, bar: 95 % over subjects")
    draw_bounds(panel, comparison)
    draw_marks(panel, marks)
    _front(panel, comparison)


def _front(panel: Axes, comparison: Comparison) -> None:
    """The front of all that share something, and the area that it covers."""
    points = [entry.point for front in comparison.fronts[:1] for entry in map(comparison.entry, front.labels)]
    steps = [point for point in points if point is not None]
    if not steps:
        return
    across, dice = [*(x for x, _ in steps), REFERENCE[0]], [*(y for _, y in steps), steps[-1][1]]
    panel.fill_between(across, dice, panel.get_ylim()[0], step="post", color=_COVERED, linewidth=0, zorder=0)
    panel.plot(across, dice, color=MUTED, linewidth=1, linestyle=(0, (4, 2)), zorder=1, drawstyle="steps-post")
