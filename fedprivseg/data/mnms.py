"""The M&Ms release on disk: which subjects are there, which cannot be used and why, and the two annotated frames.

Campello et al., Multi-Centre, Multi-Vendor and Multi-Disease Cardiac Segmentation: The M&Ms Challenge, IEEE TMI
40(12):3543, 2021. Layout, with or without the outer ``OpenDataset`` folder::

    OpenDataset/
      211230_M&Ms_Dataset_information_diagnosis_opendataset.csv
      Training/Labeled/<code>/<code>_sa.nii.gz, <code>_sa_gt.nii.gz
      Training/Unlabeled/<code>/...   Validation/<code>/...   Testing/<code>/...

Nothing in a release is trusted. A code from the table becomes a path only if it is 1 to 32 letters and digits and such
a folder was listed; no file outside the release is opened. Two depths: `read_release` reads the table and the NIfTI
headers, `check_release` also decodes every file to its end. A subject with a fault is reported and left out.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from fedprivseg.errors import DataError
from fedprivseg.records import PHASES, STRUCTURES, Subject, Volume

TABLE = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
COLUMNS = ("External code", "VendorName", "Centre", "ED", "ES")
"""The columns without which a table is not the table of a release; Age, Sex and Pathology may be missing."""

HEADER_FIELDS = (
    *("sizeof_hdr", "magic", "dim", "datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter", "pixdim"),
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
"""The fields of a NIfTI header that are used, to decode the voxels and to place them; nothing follows from any other field, nor
from an extension (minimal necessity, T/SCGS 313008-2024 clauses 5.1.1 and 5.1.2-d)."""

SPLITS: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "Training/Labeled": ("train", True),
        "Training/Unlabeled": ("train", False),
        "Validation": ("val", True),
        "Testing": ("test", True),
    }
)
"""Folder -> (split, whether its subjects carry labels)."""

FAULTS: Mapping[str, str] = MappingProxyType(
    {
        "unsafe-code": "a code in the table is not 1 to 32 letters and digits",
        "duplicate-code": "the table lists a code more than once",
        "bad-number": "Centre, ED or ES in the table is not a whole number that makes sense",
        "unlisted-folder": "a subject folder that the table does not list",
        "two-folders": "a code has folders in more than one split",
        "missing-file": "a folder or file that the table promises is not there",
        "outside-release": "a link that leads out of the release",
        "unreadable": "no complete gzipped NIfTI-1 file of real numbers",
        "wrong-dimensions": "the image or mask is not 4-D (X, Y, Z, T)",
        "bad-geometry": "the affine is no usable voxel-to-mm map, or the matrix is beyond any scanner's",
        "frame-range": "ED or ES is not a frame of the file",
        "shape-mismatch": "image and mask differ in shape",
        "affine-mismatch": "image and mask lie apart in space",
        "not-finite": "the image holds NaN or infinite values",
        "bad-labels": "the mask holds values other than 0, 1, 2, 3",
        "empty-mask": "a labelled subject whose mask is empty at ED or ES",
    }
)
"""Every fault code that a `Fault` may carry, and its meaning."""

_CODE = re.compile(r"[A-Za-z0-9]{1,32}")
_WHOLE = re.compile(r"-?[0-9]{1,9}(\.0*)?")  # "1" or "1.0": tables saved by pandas turn whole numbers into floats
_SPACING_MM = (0.05, 100.0)  # a header outside this range is in the wrong unit or broken
_FRAME_VOXELS = 2**26  # 256 MiB as float32, 100 x the release's largest frame: a header cannot ask for more memory
_APART_MM = 0.1  # header rounding stays far below, a shift by one voxel far above
_UNREADABLE = (OSError, EOFError, zlib.error, ImageFileError, HeaderDataError, WrapStructError, ValueError)

Depth = Literal["header", "frames", "whole"]


@dataclass(frozen=True)
class Fault:
    """Why something in a release cannot be used. code: a key of `FAULTS`. file: its name relative to the release.
    what: the particulars. For the site's own eyes: it names codes."""

    code: str
    file: str
    what: str


@dataclass(frozen=True)
class Scan:
    """Geometry of a subject's image. shape: (X, Y, Z, T). spacing: mm along X, Y, Z. labels: the label values seen at
    ED and ES, or None if no mask was decoded."""

    shape: tuple[int, int, int, int]
    spacing: tuple[float, float, float]
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Release:
    """A release as found. subjects: the usable ones, by code. faults: what was left out. scans: code -> `Scan`."""

    folder: Path
    subjects: tuple[Subject, ...]
    faults: tuple[Fault, ...]
    scans: Mapping[str, Scan]


class _Found(Exception):
    """A fault met while reading one subject; it becomes a `Fault` or a DataError, never a message with a path."""

    def __init__(self, code: str, file: Path, what: str) -> None:
        super().__init__(code)
        self.code, self.file, self.what = code, file, what

    def fault(self, root: Path) -> Fault:
        inside = self.file.relative_to(root) if self.file.is_relative_to(root) else Path(self.file.name)
        return Fault(self.code, _shown(inside.as_posix()), self.what)


def read_release(folder: Path) -> Release:
    """The release in `folder`, from its table, file names and NIfTI headers; no frame is decoded.

    Raises DataError if the folder is absent, empty or no M&Ms release. Faults of single subjects are in the result.
    """
    root, table, rows, placed = _layout(folder)
    faults: list[Fault] = []
    subjects: list[Subject] = []
    scans: dict[str, Scan] = {}
    seen = Counter(row["External code"] for row in rows)
    for code, times in seen.items():
        if times > 1 and _CODE.fullmatch(code):
            faults.append(Fault("duplicate-code", _shown(table.name), f"{code} stands in {times} rows"))
    for row in rows:
        code = row["External code"]
        try:
            if not _CODE.fullmatch(code):
                raise _Found(
                    "unsafe-code", table, f"{_shown(code, 48)} is given; allowed are 1 to 32 letters and digits"
                )
            if seen[code] == 1:
                subject = _subject(root, table, row, placed.get(code, []))
                scans[code], _ = _pair(subject, "header")
                subjects.append(subject)
        except _Found as found:
            faults.append(found.fault(root))
    for code, places in placed.items():
        if code not in seen:
            faults += [
                _Found("unlisted-folder", path, "no row of the table has this code").fault(root) for _, path in places
            ]
    return Release(
        folder=root,
        subjects=tuple(sorted(subjects, key=lambda subject: subject.code)),
        faults=tuple(sorted(faults, key=lambda fault: (fault.file, fault.code, fault.what))),
        scans=MappingProxyType(scans),
    )


def check_release(folder: Path, progress: Callable[[int, int], None] | None = None) -> Release:
    """Like `read_release`, but decodes every file to its end (gzip checksum) and looks into the ED and ES frames.

    ``progress(done, total)`` is called after each subject. Raises DataError as `read_release` does.
    """
    release = read_release(folder)
    faults, subjects, scans = list(release.faults), [], {}
    for done, subject in enumerate(release.subjects, start=1):
        try:
            scans[subject.code], _ = _pair(subject, "whole")
            subjects.append(subject)
        except _Found as found:
            faults.append(found.fault(release.folder))
        if progress is not None:
            progress(done, len(release.subjects))
    faults.sort(key=lambda fault: (fault.file, fault.code, fault.what))
    return Release(release.folder, tuple(subjects), tuple(faults), MappingProxyType(scans))


def load_phases(subject: Subject) -> dict[str, Volume]:
    """The annotated phases of `subject`: ``{"ED": volume, "ES": volume}``, or ED alone where ED and ES are one frame.

    image: (X, Y, Z) float32 in scanner units (scl_slope and scl_inter applied); mask: (X, Y, Z) uint8 in 0..3, or None.
    A gzip file is read once, up to the later of the two frames. Raises DataError if the files have a fault.
    """
    try:
        return _pair(subject, "frames")[1]
    except _Found as found:
        raise DataError(
            f"the files of a subject have the fault {found.code!r} ({FAULTS[found.code]}). "
            "Run the deep check on the release: it names the file; mend it, or take the subject out of the table."
        ) from None


# --- the table and the folders ---------------------------------------------------------------------------------------


def _layout(folder: Path) -> tuple[Path, Path, list[dict[str, str]], dict[str, list[tuple[str, Path]]]]:
    """(release folder, table file, its rows, code -> [(split folder, subject folder)])."""
    expected = (
        "Expected is an M&Ms release: a folder (or its OpenDataset) that holds "
        f"{', '.join(SPLITS)} (at least one) and the table {TABLE} with the columns {', '.join(COLUMNS)}."
    )
    root = Path(folder).resolve()
    if not root.is_dir():
        raise DataError(f"The data folder does not exist or is no folder. {expected}")
    homes = (root, root / "OpenDataset")
    try:
        placed: dict[str, list[tuple[str, Path]]] = {}
        splits = [(name, home / name) for home in homes for name in SPLITS if (home / name).is_dir()]
        for name, path in splits:
            for entry in sorted(path.iterdir()):
                if entry.is_dir():
                    placed.setdefault(entry.name, []).append((name, entry))
        tables = [found for home in homes if home.is_dir() for found in _tables(root, home)]
    except OSError as fault:
        raise DataError(f"The data folder cannot be listed ({type(fault).__name__}). {expected}") from None
    if not splits:
        raise DataError(f"The data folder has none of the split folders. {expected}")
    named = [found for found in tables if found[0].name == TABLE]
    chosen = named if named else tables
    if len(chosen) != 1:
        raise DataError(
            f"The data folder has {len(chosen)} tables with these columns; exactly one is needed. {expected}"
        )
    table, rows = chosen[0]
    if not rows and not placed:
        raise DataError(f"The release is empty: its table lists nobody and no subject folder is there. {expected}")
    return root, table, rows, placed


def _tables(root: Path, home: Path) -> Iterable[tuple[Path, list[dict[str, str]]]]:
    """The files in `home` that are tables of a release, with their rows; others are none of our business."""
    for path in sorted(home.glob("*.csv")):
        if not path.is_file() or not path.resolve().is_relative_to(root):
            continue
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                lines = list(csv.reader(stream))
        except (UnicodeDecodeError, csv.Error):
            continue
        header = [name.strip() for name in lines[0]] if lines else []
        if set(COLUMNS) <= set(header):
            width = len(header)
            cells = [[cell.strip() for cell in line] + [""] * (width - len(line)) for line in lines[1:] if any(line)]
            yield path, [dict(zip(header, line, strict=False)) for line in cells]


def _subject(root: Path, table: Path, row: Mapping[str, str], places: Sequence[tuple[str, Path]]) -> Subject:
    """One row of the table with its files. Raises _Found."""
    code = row["External code"]
    centre, ed, es = (_whole(table, row, column) for column in ("Centre", "ED", "ES"))
    if centre < 1:
        raise _Found("bad-number", table, f"{code}: Centre is {centre}; it must be 1 or more")
    if not places:
        raise _Found("missing-file", root / code, f"no folder {code} in any of {', '.join(SPLITS)}")
    if len(places) > 1:
        raise _Found("two-folders", places[0][1], f"also in {', '.join(name for name, _ in places[1:])}")
    name, folder = places[0]
    split, marked = SPLITS[name]
    labelled = marked and ed != es  # the release marks its 25 unlabelled subjects by ED == ES
    return Subject(
        code=code,
        centre=centre,
        vendor=_shown(row["VendorName"], 32),
        split=split,
        labelled=labelled,
        ed=ed,
        es=es,
        image=_file(root, folder / f"{code}_sa.nii.gz"),
        mask=_file(root, folder / f"{code}_sa_gt.nii.gz") if labelled else None,
        pathology=_shown(row.get("Pathology", ""), 32),
        sex=_shown(row.get("Sex", ""), 8),
        age=float(row["Age"]) if re.fullmatch(r"[0-9]{1,3}(\.[0-9]*)?", row.get("Age", "")) else None,
    )


def _whole(table: Path, row: Mapping[str, str], column: str) -> int:
    if not _WHOLE.fullmatch(row[column]):
        what = f"{row['External code']}: {column} is {_shown(row[column], 24)!r}; it must be a whole number"
        raise _Found("bad-number", table, what)
    return int(float(row[column]))


def _file(root: Path, path: Path) -> Path:
    """`path` with all links followed, if it is a plain file inside the release. Raises _Found."""
    real = path.resolve()
    if not real.is_relative_to(root):
        raise _Found("outside-release", path, "the file, or a folder above it, is a link that leads out of the release")
    if not real.is_file():
        raise _Found("missing-file", path, "no such file")
    return real


def _shown(text: str, limit: int = 160) -> str:
    """`text` from a release, safe to print: no control characters, bounded."""
    return (text if text.isprintable() else ascii(text))[:limit]


# --- the files -------------------------------------------------------------------------------------------------------


def _pair(subject: Subject, depth: Depth) -> tuple[Scan, dict[str, Volume]]:
    """Image and mask of one subject, checked alone and against each other. Volumes are empty at depth ``header``.
    Raises _Found."""
    wanted = {"ED": subject.ed, "ES": subject.es} if subject.ed != subject.es else {"ED": subject.ed}
    shape, affine, images = _read(subject.image, wanted, depth)
    masks: dict[int, np.ndarray] = {}
    if subject.mask is not None:
        mask_shape, mask_affine, masks = _read(subject.mask, wanted, depth)
        if mask_shape != shape:
            raise _Found("shape-mismatch", subject.mask, f"the mask is {mask_shape}, the image {shape}")
        apart = _apart(affine, mask_affine, shape)
        if apart > _APART_MM:
            what = f"a corner of the mask lies {apart:.2f} mm from the image's; at most {_APART_MM} mm is rounding"
            raise _Found("affine-mismatch", subject.mask, what)
    volumes: dict[str, Volume] = {}
    for phase in PHASES if depth != "header" else ():
        if phase in wanted:
            frame = wanted[phase]
            mask = _labels(subject.mask, masks[frame], phase) if subject.mask is not None else None
            volumes[phase] = Volume(_intensities(subject.image, images[frame], phase), mask, affine)
    labels = sorted(
        {int(value) for volume in volumes.values() if volume.mask is not None for value in np.unique(volume.mask)}
    )
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    seen = tuple(labels) if depth != "header" and subject.mask is not None else None
    return Scan(shape, (float(spacing[0]), float(spacing[1]), float(spacing[2])), seen), volumes


def _read(
    path: Path, wanted: Mapping[str, int], depth: Depth
) -> tuple[tuple[int, int, int, int], np.ndarray, dict[int, np.ndarray]]:
    """(shape, affine, frame index -> (X, Y, Z) array with scaling applied) of one NIfTI file. Raises _Found.

    The gzip stream is opened once and the frames are taken in file order, so nothing is decompressed twice and nothing
    after the last wanted frame; at depth ``whole`` the rest is read too, so that gzip's checksum is verified.
    """
    try:
        with gzip.open(path, "rb") as stream:
            image = nib.Nifti1Image.from_stream(stream)
            shape, affine = _geometry(path, image, wanted)
            frames: dict[int, np.ndarray] = {}
            if depth != "header":
                frames = {frame: np.asarray(image.dataobj[..., frame]) for frame in sorted(set(wanted.values()))}
            if depth == "whole":
                while stream.read(2**20):
                    pass
                end = cast(ArrayProxy, image.dataobj).offset + int(np.prod(shape)) * image.get_data_dtype().itemsize
                if stream.tell() < end:
                    raise EOFError
    except _UNREADABLE as fault:
        raise _Found(
            "unreadable", path, f"reading it ends with {type(fault).__name__}: broken, cut short or no NIfTI-1"
        ) from None
    return shape, affine, frames


def _geometry(
    path: Path, image: nib.Nifti1Image, wanted: Mapping[str, int]
) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """Shape and affine from the header, if they are those of a cine MRI that has the wanted frames. Raises _Found."""
    if len(image.shape) != 4 or min(image.shape) < 1:
        raise _Found("wrong-dimensions", path, f"the shape is {image.shape}; (X, Y, Z, T) is needed")
    if image.get_data_dtype().kind not in "iuf":
        raise _Found("unreadable", path, f"the data type is {image.get_data_dtype()}; integers or floats are needed")
    x, y, z, t = (int(size) for size in image.shape)
    affine = np.asarray(image.affine, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    low, high = _SPACING_MM
    if not np.isfinite(affine).all() or spacing.min() < low or spacing.max() > high:
        raise _Found("bad-geometry", path, f"the spacing is {spacing.tolist()} mm; {low} to {high} mm is allowed")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 0.1:  # 1 for perpendicular axes, 0 for axes in one plane
        raise _Found("bad-geometry", path, "the axes of the affine do not span space")
    if x * y * z > _FRAME_VOXELS:
        raise _Found("bad-geometry", path, f"a frame has {x * y * z} voxels; at most {_FRAME_VOXELS} are allowed")
    for phase, frame in wanted.items():
        if not 0 <= frame < t:
            raise _Found("frame-range", path, f"{phase} is frame {frame}; the file has frames 0 to {t - 1}")
    return (x, y, z, t), affine


def _apart(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """How far apart two affines put the same corner of a volume, at most, in mm."""
    corners = np.array([(*np.multiply(corner, np.array(shape[:3]) - 1), 1) for corner in np.ndindex(2, 2, 2)])
    return float(np.sqrt((((one - other) @ corners.T)[:3] ** 2).sum(axis=0)).max())


def _intensities(path: Path, frame: np.ndarray, phase: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is a fault like any infinite value
        image = frame.astype(np.float32)
    if not np.isfinite(image).all():
        raise _Found("not-finite", path, f"{int((~np.isfinite(image)).sum())} voxels at {phase} are NaN or infinite")
    return image


def _labels(path: Path, frame: np.ndarray, phase: str) -> np.ndarray:
    highest = len(STRUCTURES)
    if not np.isin(frame, np.arange(highest + 1)).all():
        wrong = np.setdiff1d(frame, np.arange(highest + 1))
        raise _Found(
            "bad-labels", path, f"{phase} holds {wrong[:5].tolist()}; whole numbers 0 to {highest} are allowed"
        )
    mask = frame.astype(np.uint8)
    if not mask.any():
        raise _Found("empty-mask", path, f"no voxel is labelled at {phase}")
    return mask
