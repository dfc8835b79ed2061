"""A comparison as one self-contained HTML page, with its pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from fedprivseg.comparison.runs import Comparison, Entry
from fedprivseg.comparison.tables import as_rows
from fedprivseg.errors import RequestError
from fedprivseg.files import deliver
from fedprivseg.report.figures import MUTED, as_svg, house_style

FORBIDDEN = "#A61B1B"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C564B", "#4B3F8C", "#B0A400")
"""One colour a method, in the order of the table; after ten methods colours come again, with another marker."""

MARKERS = "osD^vP"

_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 8.5, "loc": "center left", "bbox_to_anchor": (1.0, 0.5)}


def write_page(comparison: Comparison, path: Path) -> Path:
    """Write `comparison` to the HTML file `path`, whole or not at all. Raises FolderError if it cannot be written."""
    template = resources.files("fedprivseg.comparison").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    header, rows = as_rows(comparison)
    page = environment.from_string(template).render(
        comparison=comparison,
        header=header,
        rows=list(zip(comparison.entries, rows, strict=True)),
        scatter=Markup(dice_against_bytes(comparison)),
        privacy=Markup(dice_against_leakage(comparison)),
        curves=Markup(learning_curves(comparison)),
        crossed=[entry for entry in comparison.entries if entry.cross_site],
        budgets=[entry for entry in comparison.entries if entry.budget],
        shade=_shade,
    )
    return deliver(path, page.encode())


def write_picture(comparison: Comparison, path: Path) -> Path:
    """Write the picture of Dice against bytes, with the learning curves beside it, as a PNG of 1200 x 500 pixels."""
    with house_style("comparison"):
        figure = Figure(figsize=(12, 5), dpi=100, layout=ConstrainedLayoutEngine(wspace=0.05))
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        _scatter(right, comparison)
        _curves(left, comparison, lambda entry: entry.curve.rounds if entry.curve else (), "round")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    return deliver(path, stream.getvalue())


def write_privacy_picture(comparison: Comparison, path: Path) -> Path:
    """Write the picture of Dice against leakage as a PNG of 900 x 500 pixels. Raises RequestError if no run was attacked."""
    if not _attacked(comparison):
        raise RequestError("none of these runs was attacked; run `fedprivseg attack RUN` on them first")
    with house_style("privacy"):
        figure = Figure(figsize=(9, 5), dpi=100, layout=ConstrainedLayoutEngine())
        FigureCanvasAgg(figure)
        _privacy(figure.subplots(), comparison)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    return deliver(path, stream.getvalue())


def dice_against_bytes(comparison: Comparison) -> str:
    """Mean Dice against what one site sent and received, as inline SVG."""
    with house_style("scatter"):
        figure = Figure(figsize=(9, 4.6), layout=ConstrainedLayoutEngine())
        _scatter(figure.subplots(), comparison)
        return as_svg(figure, "Mean Dice of each method against the megabytes to and from one site")


def dice_against_leakage(comparison: Comparison) -> str:
    """Mean Dice against the normalised leakage of images under the worst attack, with the Pareto front, as inline SVG; empty
    if no run was attacked."""
    if not _attacked(comparison):
        return ""
    with house_style("leakage"):
        figure = Figure(figsize=(9, 4.6), layout=ConstrainedLayoutEngine())
        _privacy(figure.subplots(), comparison)
        return as_svg(
            figure, "Mean Dice of each attacked method against the normalised leakage of images under the worst attack"
        )


def learning_curves(comparison: Comparison) -> str:
    """Dice on test slices over rounds and over bytes, for the methods that train in rounds; empty if there is none."""
    if not any(entry.curve for entry in comparison.entries):
        return ""
    with house_style("curves"):
        figure = Figure(figsize=(10, 4.2), layout=ConstrainedLayoutEngine(wspace=0.06))
        left, right = figure.subplots(1, 2, sharey=True)
        _curves(left, comparison, lambda entry: entry.curve.rounds if entry.curve else (), "round")
        _curves(right, comparison, lambda entry: entry.curve.megabytes if entry.curve else (), "MB to and from a site")
        right.set_ylabel("")
        right.legend(**_LEGEND)
        return as_svg(figure, "Dice on test slices over rounds, and over megabytes to and from one site")


def _looks(comparison: Comparison) -> dict[str, tuple[str, str]]:
    """Label -> (colour, marker), the same in every picture."""
    return {
        entry.label: (
            FORBIDDEN if entry.forbidden else PALETTE[place % len(PALETTE)],
            "X" if entry.forbidden else MARKERS[place // len(PALETTE) % len(MARKERS)],
        )
        for place, entry in enumerate(comparison.entries)
    }


def _scatter(panel: Axes, comparison: Comparison) -> None:
    looks = _looks(comparison)
    for entry in comparison.entries:
        colour, marker = looks[entry.label]
        spent = max(entry.up + entry.down, 1e-3)
        low, high = entry.dice_interval
        if low == low:
            panel.plot((spent, spent), (low, high), color=colour, alpha=0.35, linewidth=2, zorder=2)
        text = f"{entry.label} (forbidden)" if entry.forbidden else entry.label
        panel.scatter([spent], [entry.mean], s=52, color=colour, marker=marker, edgecolor="white", zorder=3, label=text)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("MB to and from a site (log scale)")
    panel.set_ylabel("mean Dice, bar: 95 % over subjects")
    panel.legend(**_LEGEND)
    _plain(panel)


def _attacked(comparison: Comparison) -> bool:
    return any(entry.leakage is not None and not entry.forbidden for entry in comparison.entries)


_UNKNOWN = 1.14
"""Where runs stand whose leakage is not known: beyond the end of the scale."""


def _privacy(panel: Axes, comparison: Comparison) -> None:
    looks = _looks(comparison)
    known = [(entry, entry.leakage) for entry in comparison.entries if entry.leakage is not None]
    front = pareto([(x, entry.mean) for entry, x in known if not entry.forbidden and not entry.control_failed])
    if front:
        panel.plot(
            *zip(*front, strict=True), color=MUTED, linewidth=1, linestyle=(0, (4, 2)), zorder=1, drawstyle="steps-post"
        )
    for entry, leakage in known:
        colour, marker = looks[entry.label]
        if entry.forbidden:
            text = f"{entry.label} (forbidden)"
        else:
            text = f"{entry.label} (leakage not known)" if entry.control_failed else entry.label
        fill = "white" if entry.control_failed else colour
        edge = colour if entry.control_failed else "white"
        place = _UNKNOWN if entry.control_failed else leakage
        panel.scatter([place], [entry.mean], s=52, color=fill, marker=marker, edgecolor=edge, zorder=3, label=text)
    ticks = [round(0.2 * step, 1) for step in range(6)]
    if any(entry.control_failed for entry, _ in known):  # apart from the scale: no place on it would be true
        panel.axvline((1 + _UNKNOWN) / 2, color=MUTED, linewidth=0.8)
        panel.set_xticks([*ticks, _UNKNOWN], [*(f"{tick:g}" for tick in ticks), "not known"])
        panel.set_xlim(-0.03, 2 * _UNKNOWN - 1.03)
    else:
        panel.set_xticks(ticks)
        panel.set_xlim(-0.03, 1.03)
    panel.set_xlabel("normalised leakage of images, worst attack (0: no more than without any code, 1: the image)")
    panel.set_ylabel("mean Dice")
    panel.legend(**_LEGEND)
    _plain(panel)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (leakage, Dice) to which no other is preferred in both: less leakage and more Dice; by leakage."""
    front: list[tuple[float, float]] = []
    for leakage, dice in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or dice > front[-1][1]:
            front.append((leakage, dice))
    return front


def _curves(panel: Axes, comparison: Comparison, across: Callable[[Entry], Sequence[float]], title: str) -> None:
    looks = _looks(comparison)
    for entry in comparison.entries:
        if entry.curve is not None:
            colour, marker = looks[entry.label]
            panel.plot(across(entry), entry.curve.dice, color=colour, marker=marker, markersize=4, label=entry.label)
    panel.set_xlabel(title)
    panel.set_ylabel("Dice on test slices")
    _plain(panel)


def _plain(panel: Axes) -> None:
    panel.grid(color="#E4E7EB", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(length=0, colors=MUTED)
    panel.spines[:].set_visible(False)


def _shade(cells: Mapping[tuple[str, str], float], pair: tuple[str, str]) -> str:
    """The background of a cross-site cell: the darker the better, between the matrix's least and greatest value."""
    low, high = min(cells.values()), max(cells.values())
    share = (cells[pair] - low) / (high - low) if high > low else 1.0
    return f"rgba(11, 79, 108, {0.08 + 0.42 * share:.2f})"
