"""The report's charts as inline SVG, and the summary of a run as PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fedprivseg.core.pages.drawing import (
    GRID,
    INK,
    MUTED,
    as_png,
    as_svg,
    bare,
    draw_line,
    house_style,
    rounds_below,
    short,
)
from fedprivseg.core.pages.looks import looks_of
from fedprivseg.core.records import CurvePoint
from fedprivseg.core.results import Row, Scores
from fedprivseg.core.task import SegmentationTask
from fedprivseg.study.report.slices import Case, mosaic

_DASHES = (0, (2.6, 1.3))


def dice_chart(rows: Sequence[Row], labels: Mapping[str, str], title: str, task: SegmentationTask) -> str:
    """Dice of every test subject as a dot, as inline SVG: a panel a structure, a row a site, in it a line a time point.

    labels: site -> what to call it, in the order in which the sites are drawn. title: what a screen reader says.
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

    labels: site -> what to call it. Empty if no point has either.
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


def summary_png(
    sites: Mapping[str, tuple[Scores, Case | None, np.ndarray | None]], caption: str, task: SegmentationTask
) -> bytes:
    """One picture of a run, 1200 x 500 pixels: per site its median test slice, the code that left, and Dice bars.

    sites: label -> Dice scores, the median case and the code (C, h, w), either None where there is none.
    """
    with house_style("summary", interpolation="bilinear"):
        figure = Figure(figsize=(12, 5), dpi=100)
        room = 11.3
        each = min(2.3, 0.78 * room / len(sites))
        grid = figure.add_gridspec(2, len(sites) + 1, width_ratios=[each] * len(sites) + [room - each * len(sites)])
        grid.update(left=0.035, right=0.985, top=0.86, bottom=0.1, wspace=0.12, hspace=0.08)
        titles = short(list(sites))
        for column, (_, case, code) in enumerate(sites.values()):
            panels = figure.add_subplot(grid[0, column]), figure.add_subplot(grid[1, column])
            panels[0].set_title(titles[column], fontsize=11)
            for panel, content in zip(panels, (case, code), strict=True):
                panel.set_axis_off()
                if content is None:
                    panel.text(0.5, 0.5, "none", ha="center", color=MUTED)
            if case is not None:
                _draw_case(panels[0], case, task.lines)
            if code is not None:
                _draw_tiles(panels[1], mosaic(code, aspect=1.2))
        for place, text in ((0.69, "stays: image, outlines"), (0.29, "leaves: image code")):
            figure.text(0.014, place, text, rotation=90, va="center", ha="center", fontsize=10, color=MUTED)
        scores = {label: own for label, (own, _, _) in sites.items()}
        _draw_bars(figure.add_subplot(grid[:, -1]), scores, task.colours)
        lines = [
            Line2D([], [], color=MUTED, label="prediction"),
            Line2D([], [], color=MUTED, ls=(0, (2, 1)), label="reference"),
        ]
        keys = [*(Patch(color=colour, label=name) for name, colour in task.colours.items()), *lines]
        figure.legend(handles=keys, loc="lower center", ncols=len(keys), frameon=False, fontsize=10)
        figure.text(0.014, 0.955, caption, fontsize=13, fontweight="bold")
        return as_png(figure)


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


def _draw_case(panel: Axes, case: Case, lines: Mapping[str, str]) -> None:
    rows, columns = case.window
    x_mm, y_mm = case.spacing
    extent = (rows.start * x_mm, rows.stop * x_mm, columns.stop * y_mm, columns.start * y_mm)
    panel.imshow(case.grey.T, cmap="gray", vmin=0, vmax=1, extent=extent)
    x = (np.arange(rows.start, rows.stop) + 0.5) * x_mm
    y = (np.arange(columns.start, columns.stop) + 0.5) * y_mm
    for labels, style in ((case.truth, _DASHES), (case.prediction, "solid")):
        part = labels[rows, columns].T
        # The first last: of nested structures it is the innermost, and would else be hidden under the others.
        for label, structure in reversed(list(enumerate(lines, start=1))):
            inside = (part == label).astype(np.float64)
            if inside.any() and min(inside.shape) > 1:
                panel.contour(x, y, inside, levels=[0.5], colors="#00000090", linewidths=2.6)
                panel.contour(x, y, inside, levels=[0.5], colors=lines[structure], linewidths=1.6, linestyles=[style])
    panel.set_axis_off()


def _draw_tiles(panel: Axes, tiles: np.ndarray) -> None:
    shades = matplotlib.colormaps["gray"].with_extremes(bad="white")
    panel.imshow(tiles, cmap=shades, vmin=0, vmax=1, interpolation="none")
    panel.set_axis_off()


def _draw_bars(panel: Axes, scores: Mapping[str, Scores], colours: Mapping[str, str]) -> None:
    width = min(0.26, 0.78 / len(colours))
    for index, (structure, colour) in enumerate(colours.items()):
        heights = [score.structures[structure] or 0.0 for score in scores.values()]
        places = np.arange(len(heights)) + (index - (len(colours) - 1) / 2) * width
        panel.bar(places, heights, width * 0.92, color=colour)
        for place, height in zip(places, heights, strict=True):
            if height:
                panel.text(place, height + 0.01, f".{round(height * 100):02d}", ha="center", fontsize=7.5, color=MUTED)
    panel.set_xticks(range(len(scores)), short(list(scores), 12))
    panel.set_ylim(0, 1)
    panel.set_title("Dice at each hospital", fontsize=11)
    bare(panel, "y")
    panel.spines["bottom"].set_visible(True)
