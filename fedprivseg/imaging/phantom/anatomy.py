"""The pictures behind the phantom: a chest and the heart in it, painted as signal on the slices of a short-axis stack.

Coordinates are those of `heart`. Shapes are painted from the back to the front. A painted edge is as soft as one pixel
is wide, which is the partial volume of a straight edge; through the slice the heart is averaged over several planes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from fedprivseg.imaging.phantom.heart import ANGLES, TURN, Contraction, Heart, bump, profile, right_profile

PLANES = 3
"""Planes over which a slice is averaged."""


@dataclass(frozen=True)
class Body:
    """The chest round the heart, in mm and radians.

    centre, axes: of the body's section. lean: its rotation. fat: subcutaneous thickness. breast: extra fat at the left
    front.
    """

    centre: tuple[float, float]
    axes: tuple[float, float]
    lean: float
    fat: float
    breast: float
    outline: np.ndarray
    rise: float
    stomach: bool
    shifts: np.ndarray


def draw_body(draw: np.random.Generator, size: float, fatness: float, female: bool) -> Body:
    """A chest for a person of this `size` and `fatness` (each 1 on average)."""
    ripple = sum(draw.normal(0, 0.018) * np.cos(order * TURN + draw.uniform(0, 2 * np.pi)) for order in range(2, 6))
    return Body(
        centre=(draw.normal(-32, 6), draw.normal(48, 4)),
        axes=(178 * size * draw.normal(1, 0.03), 128 * size * draw.normal(1, 0.03)),
        lean=draw.normal(0.22, 0.06),
        fat=float(np.clip(11 * fatness**2 * draw.normal(1, 0.1), 5, 26)),
        breast=draw.uniform(10, 24) * fatness if female else draw.uniform(0, 5),
        outline=(1 + ripple).astype(np.float32),
        rise=draw.normal(0, 8),
        stomach=bool(draw.random() < 0.5),
        shifts=draw.uniform(-1, 1, 12),
    )


def _index(angle: np.ndarray) -> np.ndarray:
    """Where `angle`, -pi to pi, falls in a table over angle."""
    return ((angle + np.float32(np.pi)) * np.float32(ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES


def _turned(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine


def _window(p: np.ndarray, q: np.ndarray, reach: float) -> tuple[slice, slice]:
    """The part of (X, Y) that holds every point within `reach` mm of the origin of (p, q)."""
    near = p * p + q * q < reach * reach
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _edge(distance: np.ndarray, pixel: float) -> np.ndarray:
    """How much of a pixel lies inside an edge at this signed distance, mm, negative inside: 0 to 1."""
    cover = distance * np.float32(-1 / pixel)
    cover += np.float32(0.5)
    return np.clip(cover, 0, 1, out=cover)


def _over(canvas: np.ndarray, cover: np.ndarray, value: np.ndarray | float) -> None:
    """Paint `value` on `canvas` in place where `cover` (0 to 1) says so."""
    canvas += cover * (value - canvas)


def _texture(draw: np.random.Generator, shape: tuple[int, ...], grain: float) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1, (X, Y) float32; `grain` is its scale in pixels."""
    step = max(1, int(grain / 1.5))  # drawn on a coarse grid, then interpolated
    noise = draw.standard_normal((shape[0] // step + 2, shape[1] // step + 2), dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, grain / step, truncate=3)
    for axis in (0, 1):
        place = np.arange(shape[axis], dtype=np.float32) / np.float32(step)
        left = place.astype(np.int32)
        weight = (place % 1).reshape((-1, 1) if axis == 0 else (1, -1))
        noise = noise.take(left, axis) * (1 - weight) + noise.take(left + 1, axis) * weight
    return noise / noise.std()


def paint_chest(
    p: np.ndarray,
    q: np.ndarray,
    share: float,
    pixel: float,
    body: Body,
    signals: Mapping[str, float],
    draw: np.random.Generator,
) -> np.ndarray:
    """Everything but the heart on one slice, (X, Y) float32, in units of the signal of blood.

    p, q: (X, Y) float32 mm. share: its height over the length of the heart, 0 at the apex and 1 at the base. pixel: mm.
    """
    inferior = min(max(0.5 - share, -1.0), 1.0)  # the diaphragm comes up towards the apex
    canvas = np.zeros(p.shape, np.float32)
    fine, middle, coarse = (_texture(draw, p.shape, grain / pixel) for grain in (1.7, 4.0, 13.0))
    fat = signals["fat"] * (1 + 0.06 * coarse + 0.05 * middle)
    muscle = signals["muscle"] * (1 + 0.08 * middle + 0.08 * coarse)

    # The wall of the chest in polar coordinates round the middle of the body: skin, fat, muscle with ribs, then the
    # inside.
    dp, dq = _turned(p - np.float32(body.centre[0]), q - np.float32(body.centre[1]), body.lean)
    radius, angle = np.hypot(dp, dq), np.arctan2(dq, dp)
    at = _index(angle)
    power = 2.4
    oval = np.abs(np.cos(TURN) / body.axes[0]) ** power + np.abs(np.sin(TURN) / body.axes[1]) ** power
    fat_depth = body.fat * (1 + 0.6 * bump(0.2, 0.6) + 0.5 * bump(np.pi, 0.5)) + body.breast * bump(-0.95, 0.4)
    muscle_depth = 13 + 12 * bump(0.0, 0.5) + 12 * bump(np.pi, 0.6) + 14 * bump(1.75, 0.6) - 5 * bump(-1.9, 0.5)
    skin_table = oval ** (-1 / power) * body.outline
    skin = radius - skin_table.astype(np.float32)[at]
    fascia = skin + fat_depth.astype(np.float32)[at] + 1.5 * coarse
    cavity = fascia + muscle_depth.astype(np.float32)[at] + 0.8 * middle
    inside = _edge(cavity, pixel)
    _over(canvas, _edge(skin, pixel), signals["muscle"])
    _over(canvas, _edge(skin + 1.8, pixel), fat * (1 - 0.5 * np.clip(coarse * 2 - 2.4, 0, 1)))
    _over(canvas, _edge(fascia, pixel), muscle)
    streaks = np.clip((np.sin(0.55 * fascia + 2.6 * coarse + middle) - 0.6) * 2.5, 0, 1) * np.clip(0.8 * coarse, 0, 1)
    _over(canvas, _edge(fascia + 2, pixel) * streaks, fat)
    rib = np.cos(angle * 13 + np.float32(6 * share + body.shifts[11])) + 0.25 * coarse
    rib = (np.clip(rib, -0.3, 1) - 0.45) * 9 - np.abs(cavity - 5) * 0.9
    _over(canvas, _edge(-rib - 3.4, pixel), signals["bone"])
    _over(canvas, _edge(-rib - 1.2, pixel), signals["marrow"])
    vessels = np.clip((fine - 2.1) * 1.4, 0, 1) + np.clip((middle - 2.1) * 1.6, 0, 1)
    _over(canvas, inside, signals["lung"] * (1 + 0.3 * middle) + 0.5 * np.clip(vessels, 0, 1))

    def organ(
        x: float,
        y: float,
        a: float,
        b: float,
        value: np.ndarray | float,
        lean: float = 0.0,
        rise: float = 0.0,
        rough: float = 0.0,
        clip: np.ndarray | None = None,
    ) -> None:
        """Paint an ellipse. rise: how far forward it moves by the apex, mm. rough: unevenness of its edge, mm."""
        reach = max(a, b) + rise + 3 * rough + 10
        box = _window(p - np.float32(x), q - np.float32(y), reach)
        across, down = _turned(p[box] - np.float32(x), q[box] - np.float32(y) + np.float32(rise * inferior), lean)
        distance = (np.hypot(across / np.float32(a), down / np.float32(b)) - 1) * np.float32(min(a, b))
        cover = _edge(distance + np.float32(rough) * coarse[box], pixel)
        if clip is not None:
            cover *= clip[box]
        _over(canvas[box], cover, value[box] if isinstance(value, np.ndarray) else value)

    organ(
        -46, 54, 48, 54, muscle + np.clip(1.5 * middle + coarse, 0, 1) * (0.8 * fat - muscle), 0.2, rough=4, clip=inside
    )
    level = 90 - 0.6 * body.rise
    ducts = np.clip((middle - 1.7) * 1.6, 0, 1) * 0.3 + np.clip(1.3 - np.abs(coarse + 0.5 * middle) * 10, 0, 1) * (
        0.22 * np.clip(middle + 0.3, 0, 1)
    )
    organ(-100, level, 104, 78, signals["bone"], 0.25, rise=48, rough=2.5, clip=inside)
    organ(-100, level, 102, 76, signals["liver"] * (1 + 0.06 * middle + 0.04 * coarse) + ducts, 0.25, 48, 2.5, inside)
    x, y = 34 + 10 * body.shifts[2], level + 2 + 4 * body.shifts[3]
    a, b = 52 + 6 * body.shifts[0], 38 + 5 * body.shifts[1]
    content = signals["spleen"] * (1 + 0.07 * middle)
    if body.stomach:
        content = np.clip(0.38 + 0.07 * coarse + 0.06 * middle + 0.10 * np.clip(fine + middle - 1, 0, 2), 0.05, 1.1)
    organ(x, y, a + 3, b + 3, fat, 0.4, 34, 2.5, inside)
    organ(x, y, a, b, muscle, 0.4, 34, 2.5, inside)
    thick = 4.0 if body.stomach else 0.5
    organ(x, y, a - thick, b - thick, content, 0.4, 34, 2.5, inside)

    # The back: muscles beside the spine, canal, vertebra; in front of it aorta, vena cava and oesophagus.
    x, y = -50 + 5 * body.shifts[4], 116 + 3 * body.shifts[5]
    for side in (-1, 1):
        organ(
            x + 35 * side, y + 34, 30, 21, muscle + np.clip(2 * middle - 2, 0, 1) * (fat - muscle), -0.2 * side, rough=2
        )
    organ(x, y + 42, 9, 17, signals["bone"], rough=2)
    organ(x, y + 30, 12, 11, fat, rough=1)
    organ(x, y + 30, 9, 8, 0.75 * signals["fluid"], rough=1)
    organ(x, y + 30, 6, 5, signals["spleen"])
    organ(x, y, 23, 18, signals["bone"], rough=1.5)
    organ(x, y, 21, 16, signals["marrow"] * (1 + 0.15 * middle + 0.06 * fine), rough=1.5)
    width = 11 + 1.5 * body.shifts[8]
    ax, ay = x + 24 + 4 * body.shifts[6], y - 27 + 3 * body.shifts[7]
    organ(ax, ay, width + 1.8, width + 1.8, signals["muscle"], rough=0.6)
    organ(ax, ay, width, width, 0.9 + 0.06 * middle, rough=0.6)
    organ(x - 22 + 4 * body.shifts[9], y - 50 + 4 * body.shifts[10], 13, 9, 0.75 + 0.05 * middle, 0.5, rough=1)
    organ(ax - 14, ay - 14, 7, 5, 1.1 * muscle, 0.3, rough=0.6)
    return canvas


class HeartPainter:
    """Paints one heart on one stack at any phase; what does not depend on the phase is worked out once.

    chest: (Z, X, Y) the signal behind the heart. p, q: (Z, X, Y) mm. planes: (Z, PLANES) heights above the apex, mm.
    draw: for the textures of blood and muscle, which move little and are taken as fixed.
    """

    def __init__(
        self,
        heart: Heart,
        chest: np.ndarray,
        p: np.ndarray,
        q: np.ndarray,
        planes: np.ndarray,
        pixel: float,
        signals: Mapping[str, float],
        draw: np.random.Generator,
    ) -> None:
        relaxed = heart.at(0.0)
        far = relaxed.outer * heart.outline[0] + relaxed.depth * heart.crescent
        x, y = -20.0, -8.0  # about the middle of both ventricles
        reach = float(np.hypot(far * np.cos(TURN) - x, far * np.sin(TURN) - y).max())
        # Wide enough for every slice, whatever its shift.
        self._box = _window(p[0] - np.float32(x), q[0] - np.float32(y), max(reach + 22, 74))
        box = (slice(None), *self._box)
        self._whole, self._chest, p, q = chest, chest[box], p[box], q[box]
        self._heart, self._planes, self._pixel, self._signals = heart, planes.astype(np.float32), pixel, signals
        lean = self._planes - np.float32(heart.length / 2)
        self._p = p[:, None] - np.float32(heart.tilt[0]) * lean[..., None, None]  # (Z, PLANES, X, Y)
        self._q = q[:, None] - np.float32(heart.tilt[1]) * lean[..., None, None]
        self._radius = np.hypot(self._p, self._q)
        self._at = _index(np.arctan2(self._q, self._p))
        flow, muscle, strands, rough = (
            np.stack([_texture(draw, p.shape[1:], grain / pixel) for _ in p]) for grain in (9.0, 3.0, 2.0, 2.5)
        )
        self._blood = 1 + 0.06 * flow
        self._muscle = signals["myocardium"] * (1 + 0.07 * muscle)
        self._strands = np.clip((strands - 0.9) * 1.2, 0, 1) * np.float32(heart.trabeculae)
        self._rough = rough
        self._slope = np.gradient(heart.crescent, 2 * np.pi / ANGLES).astype(np.float32)
        self._fat = (
            0.5 + 7 * bump(heart.septum + 1.35, 0.3) + 5 * bump(heart.septum - 1.4, 0.3) + 4 * bump(heart.septum, 0.7)
        ).astype(np.float32)

    def paint(self, phase: float) -> tuple[np.ndarray, np.ndarray]:
        """The signal, (Z, X, Y) float32, and the labels, (Z, X, Y) uint8, at `phase`: 0 end-diastole, 1 end-systole.

        Labels: 0 background, 1 left cavity with papillary muscles and trabeculae, 2 left myocardium, 3 right cavity; a
        voxel has the label that fills most of it.
        """
        now = self._heart.at(phase)
        outline = self._heart.outline[1] * (1 - phase) + self._heart.outline[2] * phase
        whole, labels = self._whole.copy(), np.zeros(self._whole.shape, np.uint8)
        for z, heights in enumerate(self._planes):
            signal = np.zeros_like(self._chest[z])
            fractions = np.zeros((4, *signal.shape), np.float32)
            for plane, height in enumerate(heights):
                below = float(
                    np.clip((now.length - height) / 1.5 + 0.5, 0, 1)
                )  # 1 in the ventricles, 0 above the valves
                drawn = self._chest[z].copy()
                if below < 1:
                    self._paint_atria(drawn, z, plane, 1 - below)
                if below > 0 and height > -4:
                    present = below * min(1.0, (float(height) + 4) / 4)
                    covers = self._paint_ventricles(drawn, z, plane, now, outline, phase, present)
                    for label, cover in enumerate(covers, start=1):
                        fractions[label] += cover
                signal += drawn
            fractions[0] = len(heights) - fractions[1:].sum(axis=0)
            whole[z][self._box] = signal / np.float32(len(heights))
            labels[z][self._box] = fractions.argmax(axis=0)
        return whole, labels

    def _paint_atria(self, drawn: np.ndarray, z: int, plane: int, above: float) -> None:
        """Above the valves: fat, both atria, the root of the aorta and the outflow tract. They carry no label."""
        p, q = self._p[z, plane], self._q[z, plane]
        pad = (np.hypot((p + 18) / 62, (q + 2) / 48) - 1) * 48 + 2 * self._rough[z]
        _over(drawn, above * _edge(pad, self._pixel), 0.9 * self._signals["fat"])
        for x, y, a, b in ((8, 12, 30, 24), (-50, 8, 25, 29), (-16, -13, 15, 15), (-26, -42, 17, 13)):
            distance = (np.hypot((p - x) / a, (q - y) / b) - 1) * min(a, b) + 0.8 * self._rough[z]
            _over(drawn, above * _edge(distance - 2.0, self._pixel), self._muscle[z])
            _over(drawn, above * _edge(distance, self._pixel), 0.93 * self._blood[z])

    def _paint_ventricles(
        self, drawn: np.ndarray, z: int, plane: int, now: Contraction, outline: np.ndarray, phase: float, present: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pericardium, fat, right wall and cavity, left wall and cavity; covers (X, Y) of labels 1, 2, 3."""
        height, pixel, heart = self._planes[z, plane], self._pixel, self._heart
        radius, at = self._radius[z, plane], self._at[z, plane]
        outer_radius = now.outer * profile(height, now.length)
        inner_radius = now.inner * profile(height - now.tip, now.length - now.tip)
        depth = now.depth * right_profile(height, now.length)
        outer = heart.outline[0][at] * np.float32(outer_radius)
        crescent = np.float32(depth) * heart.crescent[at]
        right = radius - outer - crescent
        # Radial distance is longer than distance where the outline is steep.
        right /= np.sqrt(1 + (np.float32(depth) * self._slope[at] / np.maximum(radius, 8)) ** 2)
        walled = np.clip(crescent / 4, 0, 1)
        wall = (2.2 + 0.8 * phase) * walled
        fat = self._fat[at] * np.float32(min(1.0, height / 20 + 0.2) if height > 0 else 0.3) + 1.0 * self._rough[z]
        _over(drawn, present * _edge(right - wall - np.maximum(fat, 0) - 1.2, pixel), self._signals["bone"])
        _over(drawn, present * _edge(right - wall - np.maximum(fat, 0), pixel), self._signals["fat"])
        _over(drawn, present * _edge(right - wall, pixel) * walled, self._muscle[z])
        in_right = present * _edge(right, pixel) * (crescent > 0)
        _over(drawn, in_right, 0.88 * self._blood[z])  # venous blood has a shorter T2
        _over(drawn, in_right * self._strands[z] * 0.5, self._muscle[z])
        in_left = present * _edge(radius - outer, pixel) * (outer_radius > 0)
        _over(drawn, in_left, self._muscle[z])
        inner = outline[at] * np.float32(inner_radius)
        in_cavity = present * _edge(radius - inner, pixel) * (inner_radius > 0)
        _over(drawn, in_cavity, self._blood[z])
        if inner_radius > 0:
            rim = np.clip((radius / inner - 0.66) * 4, 0, 1)
            _over(drawn, in_cavity * rim * np.clip(1.5 * self._strands[z], 0, 1), self._muscle[z])
            level = height / now.length
            size = (5.6 - 5 * abs(level - 0.42)) * (1 + 0.1 * phase) * min(1.0, inner_radius / 22)
            for angle in heart.papillary if level < 0.74 else ():
                x, y = 0.72 * inner_radius * np.cos(angle), 0.72 * inner_radius * np.sin(angle)
                away = np.hypot(self._p[z, plane] - np.float32(x), self._q[z, plane] - np.float32(y))
                _over(drawn, in_cavity * _edge(away - np.float32(size) + 1.4 * self._rough[z], pixel), self._muscle[z])
        return in_cavity, in_left - in_cavity, np.maximum(in_right - in_left, 0)
