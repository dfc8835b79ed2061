"""Slices and codes as small inline SVG: a grey PNG of the pixels as they are, outlines as paths over it.

Arrays come with X along rows, as NIfTI stores them; they are drawn transposed, X to the right and Y down, as a viewer
shows a slice. An outline runs through the middle between two pixel centres, so its points are whole numbers of half
pixels: it is exact, sharp at any zoom, and a few bytes a corner.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import contourpy
import numpy as np
from PIL import Image

MARGIN_MM = 14.0
"""How much is shown around what is labelled."""

RAGGED = 12_000
"""Bytes of an outline beyond which a region is tinted instead: so many specks cannot be told apart as lines, and their image
would be larger than all others together."""

_DASHES = "4.2 2.1"


@dataclass(frozen=True)
class Case:
    """One slice of a test volume, and how the volume fared.

    Attributes:
        image: (X, Y), any unit.
        truth: (X, Y) labels of the reference, 0 background.
        prediction: (X, Y) labels of the network.
        spacing: mm along X and Y.
        dice: mean of the volume.
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    spacing: tuple[float, float]
    dice: float

    @property
    def window(self) -> tuple[slice, slice]:
        """Index ranges of a square (in mm) around all that is labelled, true or predicted; of all if nothing is."""
        marked = np.argwhere((self.truth > 0) | (self.prediction > 0))
        if marked.size == 0:
            return slice(0, self.truth.shape[0]), slice(0, self.truth.shape[1])
        edges = np.asarray(self.spacing)
        low, high = marked.min(axis=0) * edges, (marked.max(axis=0) + 1) * edges
        half = max(high - low) / 2 + MARGIN_MM
        starts = np.maximum(np.floor(((low + high) / 2 - half) / edges), 0).astype(int)
        stops = np.minimum(np.ceil(((low + high) / 2 + half) / edges), self.truth.shape).astype(int)
        return slice(int(starts[0]), int(stops[0])), slice(int(starts[1]), int(stops[1]))

    @property
    def grey(self) -> np.ndarray:
        """The window of the image (X, Y), 0..1 between its first and its 99th percentile."""
        image = np.asarray(self.image[self.window], np.float32)
        low, high = np.percentile(image, (1, 99))
        return np.clip((image - low) / max(high - low, 1e-6), 0, 1)


def case_svg(case: Case, name: str, title: str, lines: Mapping[str, str]) -> str:
    """The slice, cropped around what is labelled, truth as dashed and prediction as solid lines; as inline SVG.

    Args:
        case: what is drawn.
        name: unique in the page.
        title: what a screen reader says.
        lines: structure -> the colour of its outline, by label.
    """
    x_mm, y_mm = case.spacing
    grey = case.grey
    wide, high = grey.shape[0] * x_mm, grey.shape[1] * y_mm
    tints, paths = [], []
    for kind, labels in (("truth", case.truth), ("net", case.prediction)):
        # The first last: of nested structures it is the innermost, and would else be hidden under the others.
        for label, structure in reversed(list(enumerate(lines, start=1))):
            inside = labels[case.window] == label
            path = outline(inside)
            if len(path) > RAGGED:
                tints.append(_tint(inside, lines[structure], wide, high))
            elif path:
                key = f"{name}-{kind}-{structure}"
                dashes = f' stroke-dasharray="{_DASHES}"' if kind == "truth" else ""
                paths.append(
                    f'<path id="{key}" d="{path}" vector-effect="non-scaling-stroke"/>'
                    f'<use href="#{key}" stroke="{lines[structure]}" stroke-opacity="1" stroke-width="1.8"{dashes}/>'
                )
    # A dark rim under each line keeps it apart from bright tissue.
    rim = f'<g transform="scale({x_mm / 2:g} {y_mm / 2:g})" fill="none" stroke="#000" stroke-opacity=".56" stroke-width="3">'
    return _svg(wide, high, title, _image(grey, wide, high) + "".join(tints) + rim + "".join(paths) + "</g>")


def image_svg(image: np.ndarray, title: str) -> str:
    """A slice (H, W) on square pixels, 0..1, as inline SVG. title: what a screen reader says."""
    wide, high = np.shape(image)
    return _svg(wide, high, title, _image(image, wide, high))


def code_svg(code: np.ndarray, title: str) -> str:
    """All channels of a code (C, h, w) side by side, each stretched to its own range, as inline SVG; `title` is what a screen
    reader says."""
    tiles = mosaic(code).T
    wide, high = tiles.shape
    return _svg(wide, high, title, _image(np.nan_to_num(tiles, nan=1.0), wide, high, style="image-rendering:pixelated"))


def mosaic(code: np.ndarray) -> np.ndarray:
    """The channels of a code (C, h, w) as one image of tiles, drawn as slices are (transposed), 1.5 times as wide as high.

    Each channel is stretched from its own least value (0) to its greatest (1), so that whatever shape a channel holds
    shows; a constant channel is 0. Gaps are NaN.
    """
    channels = np.asarray(code, np.float64).transpose(0, 2, 1)
    low = channels.min(axis=(1, 2), keepdims=True)
    span = channels.max(axis=(1, 2), keepdims=True) - low
    channels = (channels - low) / np.where(span > 0, span, 1)
    count, height, width = channels.shape
    gap = max(1, width // 8)
    ideal = max(1.0, math.sqrt(count * 1.5 * height / width))
    # Full rows if that is possible without a strip; 1.3 lets 128 square channels stand in 16 columns.
    whole = [number for number in range(1, count + 1) if count % number == 0 and ideal / 1.3 < number < ideal * 1.3]
    columns = max(whole, default=min(count, round(ideal)))
    lines = math.ceil(count / columns)
    tiles = np.full((lines * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for index, channel in enumerate(channels):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        tiles[top : top + height, left : left + width] = channel
    return tiles


def outline(inside: np.ndarray) -> str:
    """The edges of a region as the ``d`` of an SVG path, in half pixels from the corner of the first pixel.

    Args:
        inside: (X, Y) bool.

    Returns:
        Closed pieces such as ``M1 0l1 1-1 1-1-1z`` (one pixel: a lozenge), straight runs joined; "" for an empty region.
    """
    if not inside.any():
        return ""
    # A margin of one pixel closes what touches the border; of a padded index i the centre stands at 2 i - 1 half pixels.
    around = np.pad(inside, 1).astype(np.float64).T
    pieces = []
    for points in contourpy.contour_generator(z=around).lines(0.5):
        corners = np.rint(2 * np.asarray(points) - 1).astype(int)[:-1]
        steps = np.diff(corners, axis=0, append=corners[:1])
        before = np.roll(steps, 1, axis=0)
        turns = steps[:, 0] * before[:, 1] != steps[:, 1] * before[:, 0]
        corners = corners[turns]
        moves = " ".join(f"{x} {y}" for x, y in np.diff(corners, axis=0))
        pieces.append(f"M{corners[0, 0]} {corners[0, 1]}l{moves}z".replace(" -", "-"))
    return "".join(pieces)


def _image(grey: np.ndarray, wide: float, high: float, style: str = "") -> str:
    """An (X, Y) image, 0..1, as an ``<image>`` that fills `wide` x `high`; the browser smooths unless `style` forbids."""
    return _embedded(Image.fromarray(np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8).T), wide, high, style)


def _tint(inside: np.ndarray, colour: str, wide: float, high: float) -> str:
    """An (X, Y) bool region as an ``<image>`` that fills `wide` x `high`: half transparent in `colour`, else nothing."""
    image = Image.frombytes("P", inside.shape, inside.T.astype(np.uint8).tobytes())
    image.putpalette([0, 0, 0, *bytes.fromhex(colour.removeprefix("#"))])
    return _embedded(image, wide, high, "image-rendering:pixelated;opacity:.5", transparency=0, bits=1)


def _embedded(image: Image.Image, wide: float, high: float, style: str, **options: int) -> str:
    stream = io.BytesIO()
    image.save(stream, "png", optimize=True, **options)
    body = base64.b64encode(stream.getvalue()).decode("ascii")
    look = f' style="{style}"' if style else ""
    return f'<image width="{wide:g}" height="{high:g}" preserveAspectRatio="none"{look} href="data:image/png;base64,{body}"/>'


def _svg(wide: float, high: float, title: str, body: str) -> str:
    return f'<svg role="img" aria-label="{html.escape(title)}" viewBox="0 0 {wide:g} {high:g}">{body}</svg>'
