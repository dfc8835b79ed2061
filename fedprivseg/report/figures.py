"""The report's drawings: charts and slices as inline SVG, the summary as PNG.

Arrays come with X along rows, as NIfTI stores them; they are drawn transposed, X to the right and Y down, as a viewer
shows a short-axis slice.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fedprivseg.records import PHASES, STRUCTURES, CurvePoint
from fedprivseg.results import Row, Scores

COLOURS: Mapping[str, str] = {"LV": "#D55E00", "MYO": "#009E73", "RV": "#0072B2"}
"""One colour a structure on white paper (Okabe and Ito: told apart in all common forms of colour blindness)."""

LINES: Mapping[str, str] = {"LV": "#FF8A3D", "MYO": "#2FE0AE", "RV": "#5AB8FF"}
"""The same hues, lighter, for lines on a dark image."""

INK = "#1F2933"
MUTED = "#52606D"
MARGIN_MM = 14.0
"""How much is shown around the heart."""

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and set in the reader's own font
    "text.parse_math": False,  # a site's title may hold a dollar sign
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": MUTED,
    "ytick.color": INK,
}
_DASHES = (0, (2.6, 1.3))
_NO_METADATA: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Case:
    """One slice of a test volume, and how the volume fared.

    image: (X, Y), any unit. truth, prediction: (X, Y) labels 0..3. spacing: mm along X and Y. dice: mean of the volume.
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    spacing: tuple[float, float]
    dice: float


def dice_chart(rows: Sequence[Row], labels: Mapping[str, str], title: str) -> str:
    """Dice of every test subject as a dot, one panel a structure, one row a site, ED above ES; as inline SVG.

    labels: site -> what to call it, in the order in which the sites are drawn. title: what a screen reader says.
    """
    with house_style("dice"):
        figure = Figure(figsize=(10, 0.95 + 0.62 * len(labels)), layout=ConstrainedLayoutEngine(wspace=0.05))
        panels = figure.subplots(1, len(STRUCTURES), sharex=True, sharey=True, squeeze=False)[0]
        found = [row.dice for row in rows if row.dice is not None]
        low = min(0.8, math.floor(10 * min(found, default=0.0)) / 10)
        for panel, structure in zip(panels, STRUCTURES, strict=True):
            for place, site in enumerate(labels):
                for phase, shift in zip(PHASES, (-0.19, 0.19), strict=True):
                    cell = (site, structure, phase)
                    own = [r.dice for r in rows if (r.site, r.structure, r.phase) == cell and r.dice is not None]
                    _strip(panel, np.sort(own), place + shift, COLOURS[structure], hollow=phase == PHASES[1])
            for edge in range(1, len(labels)):
                panel.axhline(edge - 0.5, color="#E4E7EB", linewidth=0.8)
            panel.set_title(structure, color=COLOURS[structure], fontweight="bold", fontsize=11)
            panel.set_xlim(low - 0.02, 1.02)
            panel.set_ylim(len(labels) - 0.5, -0.5)
            panel.set_yticks(range(len(labels)), [short(label) for label in labels.values()])
            panel.set_xlabel("Dice")
            panel.grid(axis="x", color="#E4E7EB", linewidth=0.8)
            panel.set_axisbelow(True)
            panel.tick_params(length=0)
            panel.spines[:].set_visible(False)
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
        for panel, (name, lines) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
            for place, (site, line) in enumerate(lines.items()):
                known = [(x, y) for x, y in line if y is not None]
                colour = list(COLOURS.values())[place % len(COLOURS)]
                style = ("solid", (0, (4, 1.5)), (0, (1, 1)))[place // len(COLOURS) % 3]
                if known:
                    panel.plot(*zip(*known, strict=True), color=colour, linestyle=style, label=short(labels[site]))
            panel.set_xlabel("round")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.set_ylabel(name)
            panel.grid(color="#E4E7EB", linewidth=0.8)
            panel.set_axisbelow(True)
            panel.tick_params(length=0)
            panel.spines[:].set_visible(False)
            panel.legend(frameon=False, fontsize=8)
        return as_svg(figure, title)


def slice_picture(case: Case, name: str, title: str) -> str:
    """The slice, cropped around the heart, truth as dashed and prediction as solid lines; as inline SVG.

    name: unique in the page. title: what a screen reader says.
    """
    with house_style(name):
        figure, panel = _blank(1.0)
        _draw_case(panel, case)
        return _smooth(as_svg(figure, title))


def plain_picture(image: np.ndarray, name: str, title: str) -> str:
    """A slice (H, W) on square pixels, 0..1, as inline SVG."""
    with house_style(name):
        figure, panel = _blank(image.shape[1] / image.shape[0])
        panel.imshow(np.asarray(image, np.float32).T, cmap="gray", vmin=0, vmax=1)
        return _smooth(as_svg(figure, title))


def code_picture(code: np.ndarray, name: str, title: str) -> str:
    """All channels of a code (C, h, w) side by side, each stretched to its own range, as inline SVG."""
    with house_style(name):
        tiles = mosaic(code)
        figure, panel = _blank(tiles.shape[0] / tiles.shape[1])
        _draw_tiles(panel, tiles)
        return as_svg(figure, title)


def mosaic(code: np.ndarray, aspect: float = 1.5) -> np.ndarray:
    """The channels of a code (C, h, w) as one image of tiles, drawn as slices are (transposed), `aspect` wide to high.

    Each channel is stretched from its own least value (0) to its greatest (1), so that whatever shape a channel holds
    shows; a constant channel is 0. Gaps are NaN.
    """
    channels = np.asarray(code, np.float64).transpose(0, 2, 1)
    low = channels.min(axis=(1, 2), keepdims=True)
    span = channels.max(axis=(1, 2), keepdims=True) - low
    channels = (channels - low) / np.where(span > 0, span, 1)
    count, height, width = channels.shape
    gap = max(1, width // 8)
    ideal = max(1.0, math.sqrt(count * aspect * height / width))
    # Full rows if that is possible without a strip; 1.3 lets 128 square channels stand in 16 columns.
    whole = [number for number in range(1, count + 1) if count % number == 0 and ideal / 1.3 < number < ideal * 1.3]
    columns = max(whole, default=min(count, round(ideal)))
    lines = math.ceil(count / columns)
    tiles = np.full((lines * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for index, channel in enumerate(channels):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        tiles[top : top + height, left : left + width] = channel
    return tiles


def summary_png(sites: Mapping[str, tuple[Scores, Case | None, np.ndarray | None]], caption: str) -> bytes:
    """One picture of a run, 1200 x 500 pixels: per site its median test slice, the code that left, and Dice bars.

    sites: label -> Dice scores, the median case and the code (C, h, w), either None where there is none.
    """
    with house_style("summary", interpolation="bilinear"):
        figure = Figure(figsize=(12, 5), dpi=100)
        FigureCanvasAgg(figure)
        room = 11.3
        each = min(2.3, 0.78 * room / len(sites))
        grid = figure.add_gridspec(2, len(sites) + 1, width_ratios=[each] * len(sites) + [room - each * len(sites)])
        grid.update(left=0.035, right=0.985, top=0.86, bottom=0.1, wspace=0.12, hspace=0.08)
        for column, (label, (_, case, code)) in enumerate(sites.items()):
            panels = figure.add_subplot(grid[0, column]), figure.add_subplot(grid[1, column])
            panels[0].set_title(short(label), fontsize=11)
            for panel, content in zip(panels, (case, code), strict=True):
                panel.set_axis_off()
                if content is None:
                    panel.text(0.5, 0.5, "none", ha="center", color=MUTED)
            if case is not None:
                _draw_case(panels[0], case)
            if code is not None:
                _draw_tiles(panels[1], mosaic(code, aspect=1.2))
        for place, text in ((0.69, "stays: image, outlines"), (0.29, "leaves: image code")):
            figure.text(0.014, place, text, rotation=90, va="center", ha="center", fontsize=10, color=MUTED)
        _draw_bars(figure.add_subplot(grid[:, -1]), {label: scores for label, (scores, _, _) in sites.items()})
        lines = [
            Line2D([], [], color=MUTED, label="prediction"),
            Line2D([], [], color=MUTED, ls=(0, (2, 1)), label="reference"),
        ]
        keys = [*(Patch(color=colour, label=name) for name, colour in COLOURS.items()), *lines]
        figure.legend(handles=keys, loc="lower center", ncols=len(keys), frameon=False, fontsize=10)
        figure.text(0.014, 0.955, caption, fontsize=13, fontweight="bold")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


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


def _draw_case(panel: Axes, case: Case) -> None:
    rows, columns = _window(case)
    x_mm, y_mm = case.spacing
    image = np.asarray(case.image[rows, columns], np.float32).T
    low, high = np.percentile(image, (1, 99))
    extent = (rows.start * x_mm, rows.stop * x_mm, columns.stop * y_mm, columns.start * y_mm)
    panel.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), extent=extent)
    x = (np.arange(rows.start, rows.stop) + 0.5) * x_mm
    y = (np.arange(columns.start, columns.stop) + 0.5) * y_mm
    for labels, style in ((case.truth, _DASHES), (case.prediction, "solid")):
        part = labels[rows, columns].T
        # LV last: its outline is also the inner edge of MYO, and would else be hidden under it.
        for label, structure in reversed(list(enumerate(STRUCTURES, start=1))):
            inside = (part == label).astype(np.float64)
            if inside.any() and min(inside.shape) > 1:
                panel.contour(x, y, inside, levels=[0.5], colors="#00000090", linewidths=2.6)
                panel.contour(x, y, inside, levels=[0.5], colors=LINES[structure], linewidths=1.6, linestyles=[style])
    panel.set_axis_off()


def _draw_tiles(panel: Axes, tiles: np.ndarray) -> None:
    shades = matplotlib.colormaps["gray"].with_extremes(bad="white")
    panel.imshow(tiles, cmap=shades, vmin=0, vmax=1, interpolation="none")
    panel.set_axis_off()


def _draw_bars(panel: Axes, scores: Mapping[str, Scores]) -> None:
    width = 0.26
    for index, structure in enumerate(STRUCTURES):
        heights = [getattr(score, structure) or 0.0 for score in scores.values()]
        places = np.arange(len(heights)) + (index - 1) * width
        panel.bar(places, heights, width * 0.92, color=COLOURS[structure])
        for place, height in zip(places, heights, strict=True):
            if height:
                panel.text(place, height + 0.01, f".{round(height * 100):02d}", ha="center", fontsize=7.5, color=MUTED)
    panel.set_xticks(range(len(scores)), [short(label, 12) for label in scores])
    panel.set_ylim(0, 1)
    panel.set_title("Dice at each hospital", fontsize=11)
    panel.grid(axis="y", color="#E4E7EB")
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    panel.spines[["top", "right", "left"]].set_visible(False)


def _window(case: Case) -> tuple[slice, slice]:
    """Index ranges of a square (in mm) around all that is labelled, true or predicted; of all if nothing is."""
    marked = np.argwhere((case.truth > 0) | (case.prediction > 0))
    if marked.size == 0:
        return slice(0, case.truth.shape[0]), slice(0, case.truth.shape[1])
    edges = np.asarray(case.spacing)
    low, high = marked.min(axis=0) * edges, (marked.max(axis=0) + 1) * edges
    half = max(high - low) / 2 + MARGIN_MM
    starts = np.maximum(np.floor(((low + high) / 2 - half) / edges), 0).astype(int)
    stops = np.minimum(np.ceil(((low + high) / 2 + half) / edges), case.truth.shape).astype(int)
    return slice(int(starts[0]), int(stops[0])), slice(int(starts[1]), int(stops[1]))


def short(text: str, most: int = 22) -> str:
    """`text`, cut to `most` characters with an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def house_style(name: str, *, interpolation: str = "none") -> AbstractContextManager[None]:
    """The house style, for as long as a figure is made and written. `name` makes the ids in it its own.

    interpolation: of images; "none" puts their pixels into an SVG as they are.
    """
    return matplotlib.rc_context({**_STYLE, "svg.hashsalt": name, "image.interpolation": interpolation})


def _blank(height: float) -> tuple[Figure, Axes]:
    """A figure that is one panel without axes, `height` times as high as wide."""
    figure = Figure(figsize=(4, 4 * height))
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set_axis_off()
    return figure, panel


def as_svg(figure: Figure, title: str) -> str:
    """The figure as an ``<svg>`` element: no prolog, date or comment, and only those ids that are used."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=_NO_METADATA, transparent=True)
    text = stream.getvalue()
    text = re.sub(r"<!--.*?-->\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    # A style sheet inside an inline SVG would hold for the whole page.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg (.*?)width="[^"]*" height="[^"]*"', r"<svg \1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)


def _smooth(svg: str) -> str:
    """The same with its image left to the browser's interpolation; matplotlib asks for hard pixels."""
    return svg.replace("image-rendering:crisp-edges;image-rendering:pixelated", "")
