"""How figures are drawn: the house style, bare axes, and a figure as inline SVG or as PNG."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedprivseg.core.pages.looks import LINES, Look

INK = "#1F2933"
MUTED = "#52606D"
GRID = "#E4E7EB"

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
_NO_METADATA: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
_FINE = re.compile(r"(?<=[ \d.-])-?\d+\.\d{3,}")


def house_style(name: str, *, interpolation: str = "none") -> AbstractContextManager[None]:
    """The house style, for as long as a figure is made and written.

    Args:
        name: makes the ids in the figure its own; unique in a page.
        interpolation: of images; "none" puts their pixels into an SVG as they are.
    """
    return matplotlib.rc_context({**_STYLE, "svg.hashsalt": name, "image.interpolation": interpolation})


def bare(panel: Axes, grid: str = "both") -> None:
    """Take frame and ticks from `panel` and put a pale grid under what is drawn, along `grid`: "x", "y" or "both"."""
    panel.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def draw_line(panel: Axes, xs: Sequence[float], ys: Sequence[float], look: Look, label: str) -> None:
    """A line in its `look`, such that one that runs on top of another hides nothing: its markers are hollow, and the more gaps
    a line has, the higher it lies and the thinner it is."""
    gaps = LINES.index(look.line)
    panel.plot(
        xs, ys, color=look.colour, linestyle=look.line, linewidth=2.6 - 0.4 * gaps, marker=look.marker, markersize=5,
        markerfacecolor="none", markeredgewidth=1.2, markevery=max(1, len(xs) // 12), zorder=2 + 0.1 * gaps, label=label,
    )  # fmt: skip


def rounds_below(panel: Axes) -> None:
    """Make the x axis of `panel` count rounds: there is no round 1.25."""
    panel.set_xlabel("round")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # of a single round it would draw halves


def as_svg(figure: Figure, title: str) -> str:
    """The figure as an ``<svg>`` element: no prolog, date or comment, only those ids that are used, and points to 1/100.

    Args:
        figure: made in the house style.
        title: what a screen reader says.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=_NO_METADATA, transparent=True)
    text = stream.getvalue()
    text = re.sub(r"<!--.*?-->\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    # A style sheet inside an inline SVG would hold for the whole page.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg (.*?)width="[^"]*" height="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r' d="[^"]*"', lambda found: _FINE.sub(lambda n: f"{float(n[0]):.2f}", found[0]), text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)


def as_png(figure: Figure, dpi: float | None = None) -> bytes:
    """The figure as PNG, the same bytes each time.

    Args:
        figure: made in the house style.
        dpi: dots an inch; None for the figure's own.
    """
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi or "figure", metadata={"Software": None})
    return stream.getvalue()


def short(texts: Sequence[str], most: int = 22) -> list[str]:
    """Each text, cut to `most` characters with an ellipsis: at its end, or in its middle where two would else be the same."""
    cut = [text if len(text) <= most else f"{text[: most - 1]}…" for text in texts]
    if len(set(cut)) == len(set(texts)):
        return cut
    tail = most // 2
    return [text if len(text) <= most else f"{text[: most - tail - 1]}…{text[-tail:]}" for text in texts]
