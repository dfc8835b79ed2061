"""The heart of the phantom: two ventricles, the diseases they may have, and how they contract.

Coordinates are mm. ``p`` runs to the patient's left and ``q`` to the back, in the plane of a short-axis slice, from the
long axis of the left ventricle; heights are counted along that axis from its apex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ANGLES = 1024
TURN = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False, dtype=np.float32)
"""The angles, radians in (p, q), at which every table over angle is given."""


@dataclass(frozen=True)
class Contraction:
    """The ventricles at one moment, in mm.

    length: apex to base. tip: thickness at the apex. outer, inner: radii at the equator. depth: of the right ventricle.
    """

    length: float
    tip: float
    outer: float
    inner: float
    depth: float


@dataclass(frozen=True)
class Heart:
    """Two ventricles: what they measure at end-diastole and what they eject.

    cavity, wall and right: volumes in ml of left cavity, left myocardium, right cavity. ejected and right_ejected:
    fractions, of which both sides eject the same volume. length: outer apex to base, mm. tip: apical thickness, mm.
    descent: how far the base comes down in systole, mm. septum: where the septum faces, radians in (p, q). outline:
    (3, ANGLES) factors on the radii over angle: outer surface, cavity at end-diastole, cavity at end-systole, each of mean
    square 1 so that they leave volumes alone. crescent: (ANGLES,) depth of the right ventricle over angle, about 1 at most.
    papillary: (2,) angles of the two muscles. tilt: lean of the long axis, mm per mm. trabeculae: how many, 0 to 1.
    """

    cavity: float
    wall: float
    right: float
    ejected: float
    right_ejected: float
    length: float
    tip: float
    descent: float
    septum: float
    outline: np.ndarray
    crescent: np.ndarray
    papillary: np.ndarray
    tilt: tuple[float, float]
    trabeculae: float

    def at(self, phase: float) -> Contraction:
        """The shape at `phase`, 0 at end-diastole and 1 at end-systole.

        The apex stays, the base descends. The left ventricle is a truncated ellipsoid inside another; its radii follow
        from the two volumes, so the myocardial volume is the same in every phase. The right ventricle's depth follows
        from its volume, a quadratic in that depth.
        """
        length = self.length - phase * self.descent
        tip = self.tip * (1 + 0.3 * phase)
        cavity = 1e3 * self.cavity * (1 - phase * self.ejected)
        inner = np.sqrt(cavity / _unit_volume(length - tip))
        outer = np.sqrt((cavity + 1e3 * self.wall) / _unit_volume(length))
        height = (np.arange(200) + 0.5) / 200 * length
        along = right_profile(height, length)
        step = length / 200 * 2 * np.pi / ANGLES
        radius = outer * profile(height, length)[:, None] * self.outline[0]
        depth = along[:, None] * self.crescent
        linear, square = float((radius * depth).sum() * step), float((depth**2).sum() * step / 2)
        volume = 1e3 * self.right * (1 - phase * self.right_ejected)
        return Contraction(
            length=length,
            tip=tip,
            outer=float(outer),
            inner=float(inner),
            depth=float((np.sqrt(linear**2 + 4 * square * volume) - linear) / (2 * square)),
        )


_CUT = 0.4
"""Height of the base above the equator of the ellipsoid, as a share of its long semi-axis."""


def _unit_volume(length: float) -> float:
    """Volume of the truncated ellipsoid of this length and equatorial radius 1: pi c (1 + k - (1 + k^3)/3)."""
    return np.pi * length / (1 + _CUT) * (1 + _CUT - (1 + _CUT**3) / 3)


def profile(height: np.ndarray, length: float) -> np.ndarray:
    """Radius of that ellipsoid at `height`, as a share of its equatorial radius; 0 below the apex."""
    semi = length / (1 + _CUT)
    return np.sqrt(np.clip(1 - ((height - semi) / semi) ** 2, 0, 1)) * (height > 0)


def right_profile(height: np.ndarray, length: float) -> np.ndarray:
    """Depth of the right ventricle at `height` as a share of its greatest: none at the apex, full below the base."""
    share = np.clip((height / length - 0.12) / 0.88, 0, 1)
    return share**0.6 * (1 - 0.2 * share**3)


def bump(centre: float, width: float) -> np.ndarray:
    """A smooth bump over angle, 1 at `centre`, with the given standard deviation in radians."""
    return np.exp(-0.5 * ((np.mod(TURN - centre + np.pi, 2 * np.pi) - np.pi) / width) ** 2)


def _volume_keeping(factor: np.ndarray) -> np.ndarray:
    return (factor / np.sqrt(np.mean(factor**2))).astype(np.float32)


_VALUES = {
    "NOR": (143, 81, 0.595, 0.555),
    "DCM": (235, 130, 0.26, 0.40),
    "HCM": (118, 150, 0.68, 0.60),
    "HHD": (135, 122, 0.58, 0.55),
    "ARV": (138, 85, 0.54, 0.35),
    "IHD": (180, 115, 0.38, 0.49),
}
"""Left cavity and left wall in ml, left and right ejection fraction, of an average adult with each pathology."""

PATHOLOGIES = tuple(_VALUES)
"""Codes of the release: normal, dilated, hypertrophic, hypertensive, arrhythmogenic right ventricle, ischaemic."""


def draw_heart(draw: np.random.Generator, pathology: str, size: float) -> Heart:
    """A heart with this pathology. size: 1 for an average adult; volumes scale with its cube.

    Both ventricles eject the same stroke volume, as they must where nothing leaks from one side to the other: the right one's
    volume follows from it and from its own ejection fraction. Normal values are means of cine MRI in healthy adults, over both
    sexes (Petersen et al., J Cardiovasc Magn Reson 19:18, 2017: left 143 ml, right 154 ml, muscle 85 g, of 1.05 g/ml); those
    of diseases fit the usual definitions of them. Nothing is fitted to any cohort.
    """
    vary = draw.normal(1, [0.1, 0.1, 0.05, 0.06]).clip(0.8, 1.2)
    cavity, wall, ejected, right_ejected = _VALUES[pathology] * vary
    ejected, right_ejected = min(ejected, 0.75), min(right_ejected, 0.70)
    right = cavity * ejected / right_ejected
    grow = size**3
    septum = np.deg2rad(draw.normal(208, 9))
    harmonics = sum(
        draw.normal(0, amount) * np.cos(order * TURN + draw.uniform(0, 2 * np.pi))
        for order, amount in ((2, 0.025), (3, 0.012), (4, 0.006))
    )
    outer = _volume_keeping(1 + harmonics)
    inner = 1 + harmonics + 0.03 * draw.normal() * np.cos(TURN - draw.uniform(0, 2 * np.pi))
    late = inner.copy()
    if pathology == "HCM":  # the septum takes most of the excess
        bulge = bump(septum + draw.normal(0, 0.3), 0.75)
        inner, late = inner - 0.16 * bulge, late - 0.18 * bulge
    if pathology == "IHD":  # an infarct is thin and does not move
        scar = bump(draw.uniform(-np.pi, np.pi), draw.uniform(0.4, 0.7))
        inner, late = inner + 0.05 * scar, late + 0.16 * scar
    # The right ventricle: a bump on the free side, cut flat by the diaphragm and by the chest wall.
    turn = np.mod(TURN - septum + np.pi, 2 * np.pi) - np.pi
    free = np.clip(np.cos(np.clip(turn / np.deg2rad(draw.uniform(74, 84)), -1, 1) * np.pi / 2), 0, 1) ** 0.7
    free *= np.clip(1 + draw.uniform(0.0, 0.25) * turn, 0.5, 1.6)
    for facing, distance in (
        (draw.normal(112, 6), draw.uniform(0.9, 1.1)),
        (draw.normal(258, 6), draw.uniform(1.35, 1.7)),
    ):
        plane = distance / np.maximum(np.cos(TURN - np.deg2rad(facing)), 0.05) - 1  # in radii of the left ventricle
        free = -0.08 * np.logaddexp(-free / 0.08, -plane / (1.15 * 0.08))
    crescent = np.clip(free, 0, None)
    length = draw.normal(86, 4) * size * (1.06 if pathology == "DCM" else 1.0)
    return Heart(
        cavity=cavity * grow,
        wall=wall * grow,
        right=right * grow,
        ejected=ejected,
        right_ejected=right_ejected,
        length=length,
        tip=draw.uniform(5, 7) * (1.4 if pathology in ("HCM", "HHD") else 1.0),
        descent=0.24 * ejected * length,
        septum=float(septum),
        outline=np.stack([outer, _volume_keeping(inner), _volume_keeping(late)]),
        crescent=crescent.astype(np.float32),
        papillary=septum + np.pi + np.array([-0.95, 0.95]) + draw.normal(0, 0.15, 2),
        tilt=(float(draw.normal(0, 0.05)), float(draw.normal(0, 0.05))),
        trabeculae=draw.uniform(0.6, 1.0),
    )
