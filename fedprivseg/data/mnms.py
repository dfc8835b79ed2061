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
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from fedprivseg.data import geometry
from fedprivseg.data.geometry import FileFault, Geometry
from fedprivseg.data.nifti import intensities, opened
from fedprivseg.errors import DataError
from fedprivseg.records import PHASES, STRUCTURES, Subject, Volume

TABLE = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
COLUMNS = ("External code", "VendorName", "Centre", "ED", "ES")
"""The columns without which a table is not the table of a release; Age, Sex and Pathology may be missing."""

HEADER_FIELDS = (
    *("sizeof_hdr", "magic", "dim", "datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter", "pixdim"),
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "xyzt_units"),
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
        "unreadable": "no complete single-file NIfTI of real numbers",
        "wrong-dimensions": "the image or mask is not 4-D (X, Y, Z, T)",
        **geometry.FAULTS,
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
_APART_MM = 0.1  # header rounding stays far below, a shift by one voxel far above

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
    """Geometry of a subject's image. shape: (X, Y, Z, T), Z from slice to slice whatever the order in the file. spacing: mm
    along X, Y, Z. labels: the label values seen at ED and ES, or None if no mask was decoded."""

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
    place, frames, images = _read(subject.image, wanted, depth)
    shape = (*place.shape, frames)
    masks: dict[int, np.ndarray] = {}
    if subject.mask is not None:
        mask_place, mask_frames, masks = _read(subject.mask, wanted, depth)
        if (mask_shape := (*mask_place.shape, mask_frames)) != shape:
            raise _Found("shape-mismatch", subject.mask, f"the mask is {mask_shape}, the image {shape}")
        apart = geometry.apart_mm(place, mask_place)
        if apart > _APART_MM:
            what = f"a corner of the mask lies {apart:.2f} mm from the image's; at most {_APART_MM} mm is rounding"
            raise _Found("affine-mismatch", subject.mask, what)
    volumes: dict[str, Volume] = {}
    for phase in PHASES if depth != "header" else ():
        if phase in wanted:
            frame = wanted[phase]
            mask = _labels(subject.mask, masks[frame], phase) if subject.mask is not None else None
            volumes[phase] = Volume(_intensities(subject.image, images[frame], phase), mask, place.affine)
    labels = sorted(
        {int(value) for volume in volumes.values() if volume.mask is not None for value in np.unique(volume.mask)}
    )
    seen = tuple(labels) if depth != "header" and subject.mask is not None else None
    return Scan(shape, place.spacing, seen), volumes


def _read(path: Path, wanted: Mapping[str, int], depth: Depth) -> tuple[Geometry, int, dict[int, np.ndarray]]:
    """(geometry, number of frames, frame index -> (X, Y, Z) array with scaling applied) of one NIfTI file. Raises _Found.

    The gzip stream is opened once and the frames are taken in file order, so nothing is decompressed twice and nothing
    after the last wanted frame; at depth ``whole`` the rest is read too, so that gzip's checksum is verified.
    """
    try:
        with opened(path) as file:
            if file.is_3d:
                raise FileFault("wrong-dimensions", f"the shape is {file.geometry.shape}; (X, Y, Z, T) is needed")
            for phase, frame in wanted.items():
                if not 0 <= frame < file.frames:
                    what = f"{phase} is frame {frame}; the file has frames 0 to {file.frames - 1}"
                    raise FileFault("frame-range", what)
            frames: dict[int, np.ndarray] = {}
            if depth != "header":
                frames = {frame: file.frame(frame) for frame in sorted(set(wanted.values()))}
            if depth == "whole":
                file.read_to_the_end()
    except FileFault as fault:
        raise _Found(fault.code, path, fault.what) from None
    return file.geometry, file.frames, frames


def _intensities(path: Path, frame: np.ndarray, phase: str) -> np.ndarray:
    try:
        return intensities(frame)
    except FileFault as fault:
        raise _Found(fault.code, path, f"at {phase} {fault.what}") from None


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
