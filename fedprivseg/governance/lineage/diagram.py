"""A trace as an image: lanes for site, gate and server, time from left to right, a box for each artefact.

Boxes stand in columns: an artefact stands right of those it was made from, and right of what happened before it in its lane;
what arrived at the server stands under what the gate released. Lengths are in inches.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from fedprivseg.core.pages.drawing import INK, MUTED, as_png, as_svg, house_style
from fedprivseg.governance.lineage.provenance import LANES, Artefact, Lane, Reference, Trace

_BOX, _GAP, _LABEL, _EDGE = 2.3, 0.42, 1.35, 0.18
_LINE, _PAD, _CHANNEL = 0.155, 0.1, 0.34
_HEAD, _FOOT = 0.95, 0.5
_WIDE = 34
"""Characters of a box's small text in a line."""

_PAPER: Mapping[Lane, str] = MappingProxyType({"site": "#EEF4F8", "gate": "#FBF4E4", "server": "#F1F1F4"})
_LINES: Mapping[Lane, str] = MappingProxyType({"site": "#0B4F6C", "gate": "#8A5A00", "server": "#4A4E69"})
_Dashes = str | tuple[int, tuple[int, int]]
_RED, _GREEN, _GREY = "#A61B1B", "#1B6E4B", "#9AA5B1"
_SMALL, _TINY = 8.0, 7.2


@dataclass(frozen=True)
class _Text:
    """A line of a box."""

    text: str
    size: float = _SMALL
    colour: str = INK
    mono: bool = False


def svg_of(trace: Trace, *, titled: bool = True) -> str:
    """The image as an ``<svg>`` element, whose texts stay texts; titled: with its title in it."""
    with house_style("trace"):
        return as_svg(draw(trace, titled=titled), title_of(trace))


def png_of(trace: Trace, dpi: int = 150) -> bytes:
    """The image as PNG."""
    with house_style("trace"):
        return as_png(draw(trace), dpi)


def title_of(trace: Trace) -> str:
    """What the image shows, in a line."""
    if trace.side == "server":
        return f"Life of shard {trace.label} at the server"
    return f"Life of the data of subject {trace.label} of {trace.site}"


def subtitle_of(trace: Trace) -> str:
    """In which study, what for, and on which day it began."""
    days = sorted({artefact.time[:10] for artefact in trace.artefacts if artefact.time})
    when = "" if not days else f"{days[0]} to {days[-1]}, times in UTC" if days[1:] else f"{days[0]}, times in UTC"
    return "   ·   ".join(part for part in (trace.role, trace.method, f"run {trace.run}", when) if part)


def lines_of(references: Sequence[Reference]) -> str:
    """Ledger lines as ``centre1:4, 7   server:16``; many of one ledger as the first and the last with their number."""
    found: dict[str, list[int]] = {}
    for reference in references:
        found.setdefault(reference.ledger, []).append(reference.line)
    parts = []
    for name, numbers in found.items():
        few = len(numbers) <= 4
        shown = ", ".join(map(str, numbers)) if few else f"{numbers[0]} … {numbers[-1]} ({len(numbers)} lines)"
        parts.append(f"{name}:{shown}")
    return "   ".join(parts)


def places(artefacts: Sequence[Artefact]) -> dict[str, int]:
    """The column of each artefact, by its id; no two artefacts of a lane stand in one."""
    columns: dict[str, int] = {}
    last: dict[str, int] = dict.fromkeys(LANES, -1)
    for artefact in artefacts:
        before = [columns[each] for each in artefact.made_from if each in columns]
        if artefact.sort == "end":
            column = max(columns.values(), default=-1) + 1
            last = dict.fromkeys(LANES, column)
        elif artefact.lane == "server" and _under(artefact, artefacts):
            column = max(*before, last["server"] + 1)
        elif artefact.lane == "gate":
            column = max([each + 1 for each in before] + [last["gate"] + 1, last["server"] + 1])
        else:
            column = max([each + 1 for each in before] + [last[artefact.lane] + 1])
        columns[artefact.id] = column
        last[artefact.lane] = max(last[artefact.lane], column)
    return columns


def _under(artefact: Artefact, artefacts: Sequence[Artefact]) -> bool:
    """Whether the artefact arrived through the gate, and so stands under it."""
    return any(each.lane == "gate" and each.id in artefact.made_from for each in artefacts)


def _texts(artefact: Artefact) -> list[_Text]:
    """What stands in a box, line by line, under its title."""
    gone = artefact.state == "gone"
    texts = [_Text(line, colour=MUTED) for line in _wrapped(artefact.act, 2)]
    texts += [_Text(line) for line in _wrapped(artefact.where, 2)]
    texts += [_Text(line) for line in _wrapped(", ".join(artefact.done), 2)]
    texts += [_Text(line, colour=_GREEN) for line in _wrapped("; ".join(artefact.protections), 3)]
    texts += [_Text(line, colour=_RED) for line in _wrapped("; ".join(artefact.lacking) if not gone else "", 2)]
    if gone:
        why = f"gone: ledger {artefact.ended}" if artefact.ended else "gone; no ledger here says why"
        texts += [_Text(line, colour=_RED) for line in _wrapped(why, 2)]
    texts += [_Text(line, _TINY, MUTED, mono=True) for line in _wrapped(lines_of(artefact.references), 2)]
    return texts


def _wrapped(text: str, most: int) -> list[str]:
    return textwrap.wrap(text, _WIDE, max_lines=most, placeholder=" …")


def draw(trace: Trace, *, titled: bool = True) -> Figure:
    """The image as a figure; to be made and written in the house style. titled: with title and subtitle over it."""
    head = _HEAD if titled else 0.0
    artefacts, columns = trace.artefacts, places(trace.artefacts)
    texts = {artefact.id: _texts(artefact) for artefact in artefacts}
    tall = {
        lane: max([len(texts[artefact.id]) for artefact in artefacts if artefact.lane == lane], default=2) * _LINE
        + 0.26
        + 2 * _PAD
        for lane in LANES
    }
    width = _LABEL + _EDGE + (max(columns.values(), default=0) + 1) * (_BOX + _GAP)
    height = head + _FOOT + sum(tall.values()) + len(LANES) * 2 * _CHANNEL
    figure = Figure(figsize=(max(width, 9.6), height))
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set_xlim(0, max(width, 9.6))
    panel.set_ylim(height, 0)
    panel.set_axis_off()
    tops = _lanes(panel, trace, tall, max(width, 9.6), head)
    if titled:
        panel.text(_EDGE, 0.32, title_of(trace), fontsize=14, fontweight="bold", va="center")
        panel.text(_EDGE, 0.6, subtitle_of(trace), fontsize=9, color=MUTED, va="center")
    boxes = {
        artefact.id: _Box(
            _LABEL + _EDGE + columns[artefact.id] * (_BOX + _GAP), tops[artefact.lane], tall[artefact.lane]
        )
        for artefact in artefacts
    }
    ends = [artefact for artefact in artefacts if artefact.sort == "end"]
    for artefact in ends:
        x = boxes[artefact.id].x - _GAP / 2
        panel.plot((x, x), (head, height - _FOOT), color=_RED, linewidth=1.6, zorder=2)
    _arrows(panel, artefacts, boxes, columns)
    for artefact in artefacts:
        _box(panel, artefact, boxes[artefact.id], texts[artefact.id])
    _times(panel, artefacts, columns, boxes, head)
    _legend(panel, height)
    return figure


@dataclass(frozen=True)
class _Box:
    """A box by its upper left corner and height; y grows downwards."""

    x: float
    y: float
    tall: float

    @property
    def right(self) -> float:
        return self.x + _BOX

    @property
    def middle(self) -> float:
        return self.y + self.tall / 2

    @property
    def bottom(self) -> float:
        return self.y + self.tall


def _lanes(panel: Axes, trace: Trace, tall: Mapping[Lane, float], width: float, head: float) -> dict[Lane, float]:
    """Draw the lanes; the top of the boxes in each."""
    names = {
        "site": (trace.site, "data manager"),
        "gate": ("gate", f"policy of {trace.site}"),
        "server": ("server", "researcher"),
    }
    top, tops = head, {}
    for lane in LANES:
        high = tall[lane] + 2 * _CHANNEL
        panel.add_patch(Rectangle((0, top), width, high, color=_PAPER[lane], linewidth=0, zorder=0))
        panel.text(
            _EDGE, top + high / 2 - 0.1, names[lane][0], fontsize=11, fontweight="bold", color=_LINES[lane], va="center"
        )
        panel.text(_EDGE, top + high / 2 + 0.12, names[lane][1], fontsize=_SMALL, color=MUTED, va="center")
        if not any(artefact.lane == lane for artefact in trace.artefacts):
            panel.text(_LABEL + _EDGE, top + high / 2, trace.role, fontsize=9, color=MUTED, style="italic", va="center")
        tops[lane] = top + _CHANNEL
        top += high
        panel.plot((0, width), (top, top), color="white", linewidth=2, zorder=0.5)
    return tops


def _box(panel: Axes, artefact: Artefact, box: _Box, texts: Sequence[_Text]) -> None:
    colour = _LINES[artefact.lane]
    face, weight = "white", 1.3
    style: _Dashes = (0, (4, 2)) if artefact.state == "passed" else "-"
    if artefact.state == "gone":
        colour, face = _GREY, "#F7F7F7"
    if artefact.state in ("refused", "end"):
        colour, face, weight = _RED, "#FDF1F1", 1.6
    shape = "round,pad=0,rounding_size=0.06"
    panel.add_patch(
        FancyBboxPatch(
            (box.x, box.y), _BOX, box.tall, boxstyle=shape, facecolor=face, edgecolor=colour, linewidth=weight,
            linestyle=style, zorder=3,
        )
    )  # fmt: skip
    title = _GREY if artefact.state == "gone" else colour
    top = box.y + _PAD + 0.1
    panel.text(box.x + 0.1, top, artefact.title, fontsize=10, fontweight="bold", color=title, va="center", zorder=4)
    if artefact.level is not None:
        panel.text(
            box.right - 0.09,
            top,
            f"level {artefact.level}",
            fontsize=_TINY,
            color=MUTED,
            va="center",
            ha="right",
            zorder=4,
        )
    for row, text in enumerate(texts):
        panel.text(
            box.x + 0.1, top + 0.2 + row * _LINE, text.text, fontsize=text.size, color=text.colour, va="center", zorder=4,
            family="DejaVu Sans Mono" if text.mono else None,
        )  # fmt: skip


def _arrows(panel: Axes, artefacts: Sequence[Artefact], boxes: Mapping[str, _Box], columns: Mapping[str, int]) -> None:
    """From what was there to what was made of it, in straight pieces that cross no box."""
    lanes = {artefact.id: artefact.lane for artefact in artefacts}
    sources = list(dict.fromkeys(each for artefact in artefacts for each in artefact.made_from))
    for artefact in artefacts:
        for number, source in enumerate(artefact.made_from):
            if source not in boxes:
                continue
            one, two = boxes[source], boxes[artefact.id]
            shift = 0.07 * (sources.index(source) % 4)
            next_door = columns[artefact.id] == columns[source] + 1
            if lanes[source] == artefact.lane:
                points = (
                    [(one.right, one.middle), (two.x, two.middle)]
                    if next_door
                    else _around(one, two, below=artefact.lane == "server", shift=shift)
                )
            elif columns[artefact.id] == columns[source]:
                points = [(one.x + _BOX / 2, one.bottom), (one.x + _BOX / 2, two.y)]
            elif LANES.index(artefact.lane) > LANES.index(lanes[source]):
                level = one.bottom + 0.12 + shift
                # Out on the right half and in on the left, so that lines of neighbours do not seem to be one.
                into = two.x + _BOX * 0.28 + 0.16 * (number - (len(artefact.made_from) - 1) / 2)
                leave = one.x + _BOX * 0.72
                points = [(leave, one.bottom), (leave, level), (into, level), (into, two.y)]
            else:
                gap = two.x - _GAP / 2
                points = [(one.right, one.middle), (gap, one.middle), (gap, two.middle), (two.x, two.middle)]
            _line(panel, points)


def _around(one: _Box, two: _Box, *, below: bool, shift: float) -> list[tuple[float, float]]:
    """Past the boxes between, under or over them."""
    leave, into = one.x + _BOX * 0.62, two.x + _BOX * 0.38
    start, level = (one.bottom, one.bottom + 0.1 + shift) if below else (one.y, one.y - 0.1 - shift)
    return [(leave, start), (leave, level), (into, level), (into, start)]


def _line(panel: Axes, points: Sequence[tuple[float, float]]) -> None:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    panel.plot(xs, ys, color=MUTED, linewidth=1.1, solid_joinstyle="round", zorder=2)
    panel.annotate(
        "", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.1, "shrinkA": 0,
        "shrinkB": 0, "mutation_scale": 9}, zorder=2.5,
    )  # fmt: skip


def _times(
    panel: Axes, artefacts: Sequence[Artefact], columns: Mapping[str, int], boxes: Mapping[str, _Box], head: float
) -> None:
    """Over each column the time of the first artefact that stands in it."""
    first: dict[int, Artefact] = {}
    for artefact in artefacts:
        if artefact.time and (columns[artefact.id] not in first or artefact.time < first[columns[artefact.id]].time):
            first[columns[artefact.id]] = artefact
    for artefact in first.values():
        time = datetime.fromisoformat(artefact.time).strftime("%H:%M:%S")
        panel.text(boxes[artefact.id].x + 0.1, head + 0.12, time, fontsize=_TINY, color=MUTED, va="center")


def _legend(panel: Axes, height: float) -> None:
    """What frames and colours mean."""
    y = height - _FOOT / 2
    x = _LABEL + _EDGE
    words = (
        ("kept", INK, "-", "white"),
        ("passed on, not kept", INK, (0, (4, 2)), "white"),
        ("gone", _GREY, "-", "#F7F7F7"),
        ("refused, or the end", _RED, "-", "#FDF1F1"),
    )
    for text, colour, style, face in words:
        panel.add_patch(
            Rectangle((x, y - 0.07), 0.24, 0.14, facecolor=face, edgecolor=colour, linestyle=style, linewidth=1.2)
        )
        panel.text(x + 0.32, y, text, fontsize=_SMALL, color=MUTED, va="center")
        x += 0.55 + 0.068 * len(text)
    panel.text(x, y, "centre1:4 is line 4 of centre1's ledger", fontsize=_SMALL, color=MUTED, va="center")
