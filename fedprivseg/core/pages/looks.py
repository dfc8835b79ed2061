"""Who looks how on a page's figures: a colour, a marker and a line for each method (or site), the same in every figure.

Two looks differ in all three wherever they can, so that neither a colour-blind reader nor a grey print confuses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's colours without yellow, which is too pale on white. In all common forms of colour blindness any two
differ by at least 15 in CIELAB."""

FORBIDDEN = "#A61B1B"
"""For what a policy forbids; as far from every colour of the palette as these are from each other."""

Dashes = tuple[int, tuple[float, ...]]
LINES: tuple[Dashes, ...] = ((0, ()), (0, (5, 2)), (0, (5, 1.5, 1, 1.5)), (0, (1.5, 1.5)))
"""matplotlib's dash patterns: solid, dashed, dash and dot, dotted."""

MARKERS = "os^Dv<Php"
"""Seven colours, nine markers and four lines have no common divisor: they come together again only after 252."""

_FORBIDDEN_MARKERS = "Xd*>8H"


@dataclass(frozen=True)
class Look:
    """How one looks.

    Attributes:
        colour: ``#RRGGBB``.
        marker: a marker of matplotlib.
        line: offset and dash pattern in units of the line's width.
    """

    colour: str
    marker: str
    line: Dashes


def looks_of(forbidden: Sequence[bool]) -> list[Look]:
    """One look each, in order; no two of them the same.

    Args:
        forbidden: of each, whether a policy forbids it: such ones are red, and take no look away from the others.

    Raises:
        ValueError: there are more than there are looks (252, and 12 that are forbidden).
    """
    looks, allowed, red = [], 0, 0
    for each in forbidden:
        place, colours, markers = (red, (FORBIDDEN,), _FORBIDDEN_MARKERS) if each else (allowed, PALETTE, MARKERS)
        red, allowed = red + each, allowed + (not each)
        looks.append(
            Look(colours[place % len(colours)], markers[place % len(markers)], LINES[place % len(LINES)]),
        )
    if len(set(looks)) < len(looks):
        raise ValueError(f"{len(looks)} cannot be told apart in one figure; show fewer")
    return looks
