"""The report's charts as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fedprivseg.core.pages.drawing import (
    GRID,
    INK,
    as_svg,
    bare,
    draw_line,
    house_style,
    rounds_below,
    short,
)
from fedprivseg.core.pages.looks import looks_of
from fedprivseg.core.records import CurvePoint
from fedprivseg.core.results import Row
from fedprivseg.core.task import SegmentationTask

_DASHES = (0, (2.6, 1.3))


def dice_chart(rows: Sequence[Row], labels: Mapping[str, str], title: str, task: SegmentationTask) -> str:
    """Dice of every test subject as a dot, as inline SVG: a panel a structure, a row a site, in it a line a time point.

    Args:
        rows: the run's measures.
        labels: site -> what to call it, in the order in which the sites are drawn.
        title: what a screen reader says.
    """
    colours = task.colours
    shifts = np.linspace(-0.19, 0.19, len(task.times)) if len(task.times) > 1 else np.zeros(1)
    with house_style("dice"):
        figure = Figure(figsize=(10, 0.95 + 0.62 * len(labels)), layout=ConstrainedLayoutEngine(wspace=0.05))
        panels = figure.subplots(1, len(colours), sharex=True, sharey=True, squeeze=False)[0]
        found = [row.dice for row in rows if row.dice is not None]
        low = min(0.8, math.floor(10 * min(found, default=0.0)) / 10)
        for panel, structure in zip(panels, colours, strict=True):
            for place, site in enumerate(labels):
                for time, shift in zip(task.times, shifts, strict=True):
                    cell = (site, structure, time)
                    own = [r.dice for r in rows if (r.site, r.structure, r.phase) == cell and r.dice is not None]
                    _strip(panel, np.sort(own), place + shift, colours[structure], hollow=time != task.times[0])
            for edge in range(1, len(labels)):
                panel.axhline(edge - 0.5, color=GRID, linewidth=0.8)
            panel.set_title(structure, color=colours[structure], fontweight="bold", fontsize=11)
            panel.set_xlim(low - 0.02, 1.02)
            panel.set_ylim(len(labels) - 0.5, -0.5)
            panel.set_yticks(range(len(labels)), short(list(labels.values())))
            panel.set_xlabel("Dice")
            bare(panel, "x")
        return as_svg(figure, title)


def curve_chart(points: Sequence[CurvePoint], labels: Mapping[str, str], title: str) -> str:
    """Over the rounds: each site's mean training loss, and the Dice of the net on its test slices; as inline SVG.

    Args:
        points: of the learning curves.
        labels: site -> what to call it.
        title: what a screen reader says.

    Returns:
        The figure, or "" if no point has either.
    """
    series = (
        ("mean training loss", {site: [(p.round, p.loss) for p in points if p.site == site] for site in labels}),
        ("Dice on test slices", {site: [(p.round, p.dice) for p in points if p.site == site] for site in labels}),
    )
    drawn = [(name, lines) for name, lines in series if any(y is not None for line in lines.values() for _, y in line)]
    if not drawn:
        return ""
    with house_style("curve"):
        figure = Figure(figsize=(10, 3.2), layout=ConstrainedLayoutEngine(wspace=0.05))
        for panel, (measure, lines) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
            names = short([labels[site] for site in lines])
            for line, look, name in zip(lines.values(), looks_of([False] * len(lines)), names, strict=True):
                known = [(x, y) for x, y in line if y is not None]
                if known:
                    draw_line(panel, [x for x, _ in known], [y for _, y in known], look, name)
            rounds_below(panel)
            panel.set_ylabel(measure)
            bare(panel)
            panel.legend(frameon=False, fontsize=8, handlelength=4)
        return as_svg(figure, title)


def _strip(panel: Axes, values: np.ndarray, place: float, colour: str, *, hollow: bool) -> None:
    """One row of dots over a bar from the first to the third quartile, with a tick at the median."""
    if values.size == 0:
        return
    first, middle, third = np.quantile(values, (0.25, 0.5, 0.75))
    panel.plot((first, third), (place, place), color=colour, alpha=0.22, linewidth=11, solid_capstyle="butt", zorder=2)
    panel.plot((middle, middle), (place - 0.16, place + 0.16), color=INK, linewidth=1.6, zorder=4)
    # Neighbours in rank go to different heights, so that equal values do not hide each other; no random draw is needed.
    height = place + 0.055 * (np.arange(values.size) % 3 - 1)
    face = "white" if hollow else colour
    panel.scatter(values, height, s=17, facecolor=face, edgecolor=colour, linewidth=1.0, zorder=3)
