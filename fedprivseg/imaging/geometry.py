"""Where the voxels of a NIfTI image lie, by its header: which transform counts, and when a header is not believed.

A NIfTI header (https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields) tells a voxel's size and place up to three times:
``srow`` (the sform), a quaternion with ``pixdim`` (the qform), and ``pixdim`` alone. The rules, in this order:

1. **Units.** Millimetres, metres and microns are converted to mm. A header that names no unit is read in mm, as ITK does, and
   rule 6 finds what is none. Any other code is ``bad-units``.
2. **Which counts.** The sform, if ``sform_code`` is 1 to 5; otherwise the qform, if ``qform_code`` is; a code of 0 switches its
   transform off. An affine that is not finite, or whose axes are not perpendicular, is ``bad-geometry``.
3. **Contradiction.** Programs differ in what they read (ITK takes sizes from ``pixdim`` whatever counts, nibabel from the
   sform), so a header that says two things shows every program another body. All that is switched on must agree: the sform's
   voxel sizes with ``pixdim``, and every corner by sform and qform. Otherwise it is ``contradicting-header``: a subject with it
   is left out, and nothing is chosen.
4. **No transform.** With both codes 0 the place is unknown and the sizes are nominal, those of ``pixdim``. Masks written for
   such an image have both codes 0 too. A size of exactly 1, or none, is what a writer puts where it knows nothing:
   ``invented-sizes``.
5. **Which axis is Z.** The one whose voxels are as long as slices lie apart, while the other two are as short as pixels are. If
   several could be, it is ``slice-axis``, unless the modality has isotropic voxels (`Limits`). Arrays are turned so that Z is
   last (`Geometry.slices_last`), and back for what is written (`Geometry.stored`). The other two axes keep their order and
   direction.
6. **Plausibility.** Sizes that no image of the modality has (`Limits`) are ``implausible-geometry``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, final

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

FAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bad-geometry": "the header holds no usable map from voxels to mm, or a matrix beyond any scanner's",
        "bad-units": "the header states a unit of length that is none",
        "contradicting-header": "the header states two sizes or two places of the same voxels",
        "invented-sizes": "the header has no transform, and sizes that nobody measured",
        "implausible-geometry": "no image of this modality has voxels or a field of view of these sizes",
        "slice-axis": "the sizes do not tell which axis runs from slice to slice",
    }
)
"""Every fault code of a header's geometry, and its meaning."""

AGREE_SIZE: Final = 0.01
"""Relative: sizes written with two decimals differ less, and over a whole field of view it is 4 mm."""

AGREE_MM: Final = 1.0
"""How far apart sform and qform may put a corner: near half a turn a quaternion in single precision is 0.001 rad off, which is
0.5 mm over a large field of view."""

_SKEW = 0.02  # cosine: a degree from perpendicular; scanners and converters stay below 0.001
_UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # code -> mm: not stated, metre, millimetre, micron
_CODES = range(6)
_SPACE, _SPACE_AND_TIME = 0b000111, 0b111111  # bits of xyzt_units
_COPIED = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)

Header = nib.Nifti1Header | nib.Nifti2Header


class FileFault(Exception):
    """What is wrong with one image file. code: a fault code. what: the particulars, in a sentence without a path."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(code)
        self.code, self.what = code, what


@final
@dataclass(frozen=True)
class Limits:
    """What sizes an image of a modality can have, each from lowest to highest in mm.

    modality: its name.
    pixel: edges of a voxel in the plane of a slice.
    slices: from one slice's centre to the next, with any gap.
    view: the field of view along each axis of the plane.
    isotropic: whether slices may lie as near as pixels: where several axes could be Z, it is the one of the longest voxel edge,
        the file's last of equal ones.
    """

    modality: str
    pixel: tuple[float, float]
    slices: tuple[float, float]
    view: tuple[float, float]
    isotropic: bool = False


ANY_IMAGE: Final = Limits(
    "a tomographic image", pixel=(0.05, 10.0), slices=(0.05, 30.0), view=(5.0, 3000.0), isotropic=True
)
"""For images of any organ: from the micro-scans of specimens to the whole body."""


@final
@dataclass(frozen=True)
class Geometry:
    """Where the voxels of one image lie.

    shape: (X, Y, Z), Z from slice to slice.
    affine: (4, 4) float64, voxel of that shape to mm; without a transform, sizes alone.
    order: which axis of the file is X, Y and Z.
    placed: whether the place is known; False where the header has no transform.
    header: a NIfTI header of the image's version with its geometry, as it is stored, and nothing else, for masks.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    order: tuple[int, int, int]
    placed: bool
    header: bytes

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edges along X, Y, Z in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def slices_last(self, frame: np.ndarray) -> np.ndarray:
        """A frame as the file has its three axes -> (X, Y, Z)."""
        return frame.transpose(self.order)

    def stored(self, labels: np.ndarray) -> np.ndarray:
        """(X, Y, Z[, T]) -> the axes as the file has them; what `slices_last` did, undone."""
        back = [self.order.index(axis) for axis in range(3)]
        return labels.transpose(*back, *range(3, labels.ndim))


def read_header(header: Header, limits: Limits) -> Geometry:
    """The geometry that an unchecked `header` (as it stands in the file) states, by the rules above.

    Raises FileFault with one of `FAULTS` where a rule is broken.
    """
    codes = {name: int(header[f"{name}_code"]) for name in ("qform", "sform")}
    for name, code in codes.items():
        if code not in _CODES:
            raise FileFault("bad-geometry", f"{name}_code is {code}; 0 to {_CODES[-1]} are defined")
    unit = int(header["xyzt_units"]) & _SPACE
    if unit not in _UNITS:
        raise FileFault("bad-units", f"xyzt_units names length {unit}; 0 (none), 1 (m), 2 (mm), 3 (micron) are defined")
    to_mm = _UNITS[unit]
    sizes = np.asarray(header["pixdim"][1:4], np.float64) * to_mm
    placed = any(codes.values())
    if not placed:
        _refuse_invented(sizes, to_mm)
    elif not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise FileFault("bad-geometry", f"pixdim says {_mm(sizes)}; sizes above 0 are needed")
    shape = np.array(header.get_data_shape()[:3])
    affine = np.diag([*sizes, 1.0])
    if codes["qform"]:
        affine = _qform(header, to_mm)
    if codes["sform"]:
        by_qform, affine = affine, _sform(header, to_mm)
        _refuse_contradiction(affine, by_qform if codes["qform"] else None, sizes, shape)
    order = _order(np.linalg.norm(affine[:3, :3], axis=0), shape, limits)
    x, y, z = (int(shape[axis]) for axis in order)
    return Geometry((x, y, z), affine[:, [*order, 3]], order, placed, _bare(header))


def apart_mm(one: Geometry, other: Geometry) -> float:
    """How far apart two images of one shape put the same corner, at most, in mm; by their sizes alone if one has no place."""
    first, second = one.affine, other.affine
    if not (one.placed and other.placed):
        first, second = np.diag([*one.spacing, 1.0]), np.diag([*other.spacing, 1.0])
    return _apart(first, second, one.shape)


def moved(header: Header, change: np.ndarray) -> Header:
    """The geometry of `header`, and nothing else of it, for an array of which each voxel is one of the image's at `change`.

    change: (4, 4), from the new array's indices to the image's: a positive scale for each axis, and a shift.

    Codes and unit stay. Raises ValueError if the qform is switched on and its quaternion is no rotation.
    """
    made = type(header)(_bare(header), check=False)
    if header["qform_code"] > 0:
        first = (_signed(header).get_qform(coded=False) @ change)[:3, 3]
        made["qoffset_x"], made["qoffset_y"], made["qoffset_z"] = first
    for row in ("srow_x", "srow_y", "srow_z"):
        made[row] = header[row] @ change
    made["pixdim"][1:4] *= np.diag(change)[:3]
    return made


def _refuse_invented(sizes: np.ndarray, to_mm: float) -> None:
    if not np.isfinite(sizes).all() or (sizes <= 0).any() or np.isclose(sizes, to_mm, rtol=1e-6).any():
        what = f"qform_code and sform_code are 0 and pixdim says {_mm(sizes)}; state the sizes, or better a transform"
        raise FileFault("invented-sizes", what)


def _qform(header: Header, to_mm: float) -> np.ndarray:
    try:
        affine = np.array(_signed(header).get_qform(coded=False), np.float64)
    except (HeaderDataError, ValueError):
        raise FileFault("bad-geometry", "the quaternion of the qform is no rotation") from None
    return _usable(affine, to_mm, "qform")


def _signed(header: Header) -> Header:
    """`header` with a qfac of 1 or -1; 0 and anything else count as 1, says the standard."""
    plain = header.copy()
    plain["pixdim"][0] = -1 if plain["pixdim"][0] < 0 else 1
    return plain


def _sform(header: Header, to_mm: float) -> np.ndarray:
    rows = [np.asarray(header[f"srow_{axis}"], np.float64) for axis in "xyz"]
    return _usable(np.array([*rows, [0, 0, 0, 1]]), to_mm, "sform")


def _usable(affine: np.ndarray, to_mm: float, name: str) -> np.ndarray:
    """`affine` in mm, if it maps a volume to a volume with perpendicular edges."""
    affine[:3] *= to_mm
    if not np.isfinite(affine).all():
        raise FileFault("bad-geometry", f"the {name} holds NaN or infinity")
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if sizes.min() < 1e-9:
        raise FileFault("bad-geometry", f"the {name} says that voxels are {_mm(sizes)}; sizes above 0 are needed")
    axes = affine[:3, :3] / sizes
    skew = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if skew > _SKEW:
        raise FileFault(
            "bad-geometry", f"axes of the {name} are not perpendicular (cosine {skew:.2f}; at most {_SKEW})"
        )
    return affine


def _refuse_contradiction(sform: np.ndarray, qform: np.ndarray | None, sizes: np.ndarray, shape: np.ndarray) -> None:
    stated = np.linalg.norm(sform[:3, :3], axis=0)
    if not np.allclose(stated, sizes, rtol=AGREE_SIZE, atol=0):
        other = "qform and pixdim say" if qform is not None else "pixdim says"
        what = f"the sform says that voxels are {_mm(stated)}, {other} {_mm(sizes)}"
        raise FileFault("contradicting-header", f"{what}. Correct the wrong one; sform_code 0 switches the sform off")
    far = 0.0 if qform is None else _apart(sform, qform, shape)
    if far > AGREE_MM:
        what = (
            f"sform and qform put a corner {far:.1f} mm apart; at most {AGREE_MM} mm is rounding. Set one's code to 0"
        )
        raise FileFault("contradicting-header", what)


def _order(sizes: np.ndarray, shape: np.ndarray, limits: Limits) -> tuple[int, int, int]:
    """The file's axes as X, Y, Z: rules 5 and 6."""
    possible = _slice_axes(sizes, limits)
    if limits.isotropic:
        possible = [axis for axis in possible if sizes[axis] >= (1 - AGREE_SIZE) * sizes[possible].max()][-1:]
    if len(possible) > 1:
        raise FileFault("slice-axis", f"voxels are {_mm(sizes)}; slices must lie further apart than pixels")
    if not possible:
        units = {"centimetres": 10.0, "metres": 1000.0, "microns": 0.001}
        meant = [name for name, factor in units.items() if _slice_axes(sizes * factor, limits)]
        hint = f"; are these {meant[0]}?" if meant else ""
        raise FileFault(
            "implausible-geometry",
            f"voxels are {_mm(sizes)}; {limits.modality} has pixels of {_range(limits.pixel)} and slices "
            f"{_range(limits.slices)} apart{hint}",
        )
    x, y = (axis for axis in range(3) if axis != possible[0])
    view = (sizes * shape)[[x, y]]
    if not _within(view, limits.view):
        raise FileFault(
            "implausible-geometry",
            f"the field of view is {_mm(view)}; that of {limits.modality} is {_range(limits.view)}",
        )
    return x, y, possible[0]


def _slice_axes(sizes: np.ndarray, limits: Limits) -> list[int]:
    """The axes that may run from slice to slice, by the sizes of the voxels."""
    return [
        axis
        for axis in range(3)
        if _within(sizes[axis], limits.slices) and _within(np.delete(sizes, axis), limits.pixel)
    ]


def _within(values: Any, limits: tuple[float, float]) -> bool:
    low, high = limits[0] * (1 - 1e-6), limits[1] * (1 + 1e-6)  # headers are in single precision
    return bool(np.all((low <= values) & (values <= high)))


def _apart(one: np.ndarray, other: np.ndarray, shape: Sequence[int] | np.ndarray) -> float:
    corners = np.array([(*np.multiply(corner, np.array(shape) - 1), 1) for corner in np.ndindex(2, 2, 2)])
    return float(np.linalg.norm(((one - other) @ corners.T)[:3], axis=0).max())


def _bare(header: Header) -> bytes:
    """The stored geometry in a header of its own, little-endian: no text of the image's comes along."""
    bare = type(header)(endianness="<")
    for name in _COPIED:
        bare[name] = header[name]
    bare["pixdim"][:5] = header["pixdim"][:5]  # up to the time between frames
    bare["xyzt_units"] = int(header["xyzt_units"]) & _SPACE_AND_TIME
    return bytes(bare.binaryblock)


def _mm(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes) + " mm"


def _range(limits: tuple[float, float]) -> str:
    return f"{limits[0]:g} to {limits[1]:g} mm"
