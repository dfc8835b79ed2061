"""The M&Ms release on disk: which subjects are there, which cannot be used and why, and the two annotated frames.

Campello et al., Multi-Centre, Multi-Vendor and Multi-Disease Cardiac Segmentation: The M&Ms Challenge, IEEE TMI
40(12):3543, 2021. Layout, with or without the outer ``OpenDataset`` folder::

    OpenDataset/
      211230_M&Ms_Dataset_information_diagnosis_opendataset.csv
      Training/Labeled/<code>/<code>_sa.nii.gz, <code>_sa_gt.nii.gz
      Training/Unlabeled/<code>/...   Validation/<code>/...   Testing/<code>/...

Nothing in a release is trusted. A code from the table becomes a path only if it is 1 to 32 letters and digits and such
a folder was listed; no file outside the release is opened. Two depths: `read_release` reads the table and the NIfTI
headers, `check_release` also decodes every file to its end. A subject with a fault is reported and left out; what only looks
wrong is a warning, and leaves out nobody.

In memory the labels of every mask are 1 LV, 2 MYO, 3 RV, the release's order. A site whose files have another order states it
(`labels` in its site.toml), and its masks are put in this order as they are read; whatever is written has this order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from fedprivseg.core.errors import DataError
from fedprivseg.core.files import is_companion
from fedprivseg.core.records import PHASES, STRUCTURES, Subject, Volume
from fedprivseg.imaging import geometry
from fedprivseg.imaging.duplicates import fingerprint, opening, together
from fedprivseg.imaging.geometry import FileFault, Geometry
from fedprivseg.imaging.nifti import intensities, opened
from fedprivseg.imaging.plausibility import implausible
from fedprivseg.imaging.release_warnings import ReleaseWarning
from fedprivseg.imaging.table import COLUMNS, SUFFIXES, TABLE, NoTable, Table, read_table

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
        "bad-row": "a row of the table has more cells than there are columns, so which is which cannot be told",
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
        "same-scan": "two codes have the same scan: a patient would count twice, or train and test",
        "not-finite": "the image holds NaN or infinite values",
        "no-signal": "a frame or a slice of it would reach a network as a constant",
        "bad-labels": "the mask holds values other than 0, 1, 2, 3",
        "empty-mask": "a labelled subject whose mask is empty at ED or ES",
    }
)
"""Every fault code that a `Fault` may carry, and its meaning."""

_CODE = re.compile(r"[A-Za-z0-9]{1,32}")
_WHOLE = re.compile(r"-?[0-9]{1,9}([.,]0*)?")  # "1" or "1.0": tables saved by pandas turn whole numbers into floats
_AGE = re.compile(r"[0-9]{1,3}([.,][0-9]*)?")
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
    """A release as found. subjects: the usable ones, by code. faults: what was left out. scans: code -> `Scan`. warnings: what
    looks wrong and leaves out nobody."""

    folder: Path
    subjects: tuple[Subject, ...]
    faults: tuple[Fault, ...]
    scans: Mapping[str, Scan]
    warnings: tuple[ReleaseWarning, ...] = ()


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
    root, table, placed, warnings = _layout(folder)
    faults: list[Fault] = []
    subjects: list[Subject] = []
    scans: dict[str, Scan] = {}
    seen = Counter(row["External code"] for row in table.rows)
    for code, times in seen.items():
        if times > 1 and _CODE.fullmatch(code):
            faults.append(Fault("duplicate-code", _shown(table.path.name), f"{code} stands in {times} rows"))
    for at, row in enumerate(table.rows):
        code = row["External code"]
        try:
            if not _CODE.fullmatch(code):
                raise _Found(
                    "unsafe-code", table.path, f"{_shown(code, 48)} is given; allowed are 1 to 32 letters and digits"
                )
            if at in table.overlong:
                what = f"{code}: its row has cells beyond the last column; put a cell with a delimiter in it in quotes"
                raise _Found("bad-row", table.path, what)
            if seen[code] == 1:
                subject = _subject(root, table.path, row, placed.get(code, []))
                scans[code], _ = _pair(subject, "header")
                subjects.append(subject)
        except _Found as found:
            faults.append(found.fault(root))
    for code, places in placed.items():
        if code not in seen:
            faults += [
                _Found("unlisted-folder", path, "no row of the table has this code").fault(root) for _, path in places
            ]
    alike = together({subject.code: _opening(subject) for subject in subjects})
    candidates = {code for group in alike for code in group}
    marks = {subject.code: _fingerprints(subject) for subject in subjects if subject.code in candidates}
    return _sorted(Release(root, tuple(subjects), tuple(faults), scans, warnings), marks)


def check_release(
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    orders: Mapping[int, Sequence[str]] | None = None,
) -> Release:
    """Like `read_release`, but decodes every file to its end (gzip checksum) and looks into the ED and ES frames.

    ``progress(done, total)`` is called after each subject. orders: centre -> `Subject.order` of its masks, where that is not
    the release's. Raises DataError as `read_release` does.
    """
    release = read_release(folder)
    faults, warnings, subjects, scans = list(release.faults), list(release.warnings), [], {}
    marks: dict[str, set[str]] = {}
    for done, found in enumerate(release.subjects, start=1):
        subject = replace(found, order=tuple((orders or {}).get(found.centre, STRUCTURES)))
        try:
            scans[subject.code], volumes = _pair(subject, "whole")
            subjects.append(subject)
            marks[subject.code] = {fingerprint(volume.image) for volume in volumes.values()}
            if len(marks[subject.code]) < len(volumes):
                what = f"frames {subject.ed} and {subject.es} are equal"
                warnings.append(_warning("same-frame", release.folder, subject.image, what))
            masks = {phase: volume.mask for phase, volume in volumes.items() if volume.mask is not None}
            warnings += _implausible(release.folder, subject, masks, _ml(scans[subject.code].spacing))
        except _Found as fault:
            faults.append(fault.fault(release.folder))
        if progress is not None:
            progress(done, len(release.subjects))
    return _sorted(Release(release.folder, tuple(subjects), tuple(faults), scans, tuple(warnings)), marks)


def warnings_of_masks(folder: Path, subjects: Sequence[Subject]) -> tuple[ReleaseWarning, ...]:
    """The warnings that `check_release` gives about the masks of `subjects` of the release `folder`; no image is decoded.

    A mask with a fault is passed over: `load_phases` refuses it.
    """
    found: list[ReleaseWarning] = []
    for subject in subjects:
        try:
            found += _implausible(folder, subject, *_masks(subject))
        except _Found:
            continue
    return tuple(found)


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


def _layout(
    folder: Path,
) -> tuple[Path, Table, dict[str, list[tuple[str, Path]]], tuple[ReleaseWarning, ...]]:
    """(release folder, its table, code -> [(split folder, subject folder)], warnings)."""
    expected = (
        "Expected is an M&Ms release: a folder (or its OpenDataset) that holds "
        f"{', '.join(SPLITS)} (at least one) and the table {TABLE} with the columns {', '.join(COLUMNS)}."
    )
    root = Path(folder).resolve()
    if not root.is_dir():
        raise DataError(f"The data folder does not exist or is no folder. {expected}")
    homes = [home for home in (root, root / "OpenDataset") if home.is_dir()]
    placed: dict[str, list[tuple[str, Path]]] = {}
    try:
        splits = [(name, home / name) for home in homes for name in SPLITS if (home / name).is_dir()]
        for name, path in splits:
            for entry in sorted(path.iterdir()):
                if entry.is_dir():
                    placed.setdefault(entry.name, []).append((name, entry))
        files = [path for home in homes for path in sorted(home.iterdir()) if path.is_file() and not is_companion(path)]
    except OSError as fault:
        raise DataError(f"The data folder cannot be listed ({type(fault).__name__}). {expected}") from None
    if not splits:
        raise DataError(f"The data folder has none of the split folders. {expected}")
    table = _table(root, files, expected)
    if not table.rows and not placed:
        raise DataError(f"The release is empty: its table lists nobody and no subject folder is there. {expected}")
    warnings = []
    if table.guessed:
        what = f"read as cp1252 (Western Windows); if {_shown(table.guessed, 48)!r} is misspelt, save it as UTF-8"
        warnings.append(_warning("table-encoding", root, table.path, what))
    within = [entry for entries in placed.values() for _, entry in entries]
    if companions := _companions(root, [*homes, *(path for _, path in splits), *within]):
        what = f"{len(companions)} of them, this one the first; none is read"
        warnings.append(_warning("companion-files", root, companions[0], what))
    return root, table, placed, tuple(warnings)


def _companions(root: Path, folders: Sequence[Path]) -> list[Path]:
    """The companion files of macOS in `folders`, of those that lie in the release and can be listed."""
    found: list[Path] = []
    for folder in folders:
        try:
            if folder.resolve().is_relative_to(root):
                found += [path for path in sorted(folder.iterdir()) if is_companion(path)]
        except OSError:
            continue  # its subject has no files then, and that is a fault
    return found


def _table(root: Path, files: Sequence[Path], expected: str) -> Table:
    """The one table among `files`: that of the release's own name, or the only one that has the columns. Raises DataError that
    says of the others what was seen."""
    files = [path for path in files if path.name.lower().endswith(SUFFIXES)]
    found: list[Table] = []
    seen: list[str] = []
    for path in [path for path in files if path.name == TABLE] or files:
        try:
            if not path.resolve().is_relative_to(root):
                raise NoTable("it is a link that leads out of the release")
            found.append(read_table(path))
        except (NoTable, OSError) as fault:
            seen.append(f"{_shown(path.name, 80)}: {fault if isinstance(fault, NoTable) else 'it cannot be read'}")
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(_shown(table.path.name, 80) for table in found)
        raise DataError(f"The data folder has {len(found)} tables ({names}); exactly one is needed. {expected}")
    what = "; ".join(seen[:3]) or f"there is no file whose name ends in {', '.join(SUFFIXES)}"
    raise DataError(f"No table of the data folder can be used. Seen: {what}. {expected}")


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
        age=float(row["Age"].replace(",", ".")) if _AGE.fullmatch(row.get("Age", "")) else None,
    )


def _whole(table: Path, row: Mapping[str, str], column: str) -> int:
    if not _WHOLE.fullmatch(row[column]):
        what = f"{row['External code']}: {column} is {_shown(row[column], 24)!r}; it must be a whole number"
        raise _Found("bad-number", table, what)
    return int(re.split("[.,]", row[column])[0])


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
            mask = None if mask is None else in_release_order(mask, subject.order)
            volumes[phase] = Volume(_intensities(subject.image, images[frame], phase), mask, place.affine)
    labels = sorted(
        {int(value) for volume in volumes.values() if volume.mask is not None for value in np.unique(volume.mask)}
    )
    seen = tuple(labels) if depth != "header" and subject.mask is not None else None
    return Scan(shape, place.spacing, seen), volumes


def in_release_order(mask: np.ndarray, order: Sequence[str]) -> np.ndarray:
    """`mask` (X, Y, Z) uint8 whose labels 1, 2, 3 stand for the structures `order`, with labels that stand for `STRUCTURES`."""
    if tuple(order) == STRUCTURES:
        return mask
    return np.array([0, *(STRUCTURES.index(name) + 1 for name in order)], np.uint8)[mask]


def _masks(subject: Subject) -> tuple[dict[str, np.ndarray], float]:
    """Phase -> mask, and the volume of a voxel in ml; no masks of an unlabelled subject. Raises _Found."""
    if subject.mask is None:
        return {}, 0.0
    wanted = {"ED": subject.ed, "ES": subject.es}
    place, _, frames = _read(subject.mask, wanted, "frames")
    masks = {
        phase: in_release_order(_labels(subject.mask, frames[frame], phase), subject.order)
        for phase, frame in wanted.items()
    }
    return masks, _ml(place.spacing)


def _ml(spacing: Sequence[float]) -> float:
    """The volume in ml of a voxel of `spacing` mm."""
    return float(np.prod(spacing)) / 1000


def _implausible(
    root: Path, subject: Subject, masks: Mapping[str, np.ndarray], voxel_ml: float
) -> Iterator[ReleaseWarning]:
    """What `implausible` finds, with the file."""
    for doubt in implausible(masks, voxel_ml, subject.order):
        assert subject.mask is not None  # no masks, no doubt
        yield _warning(doubt.kind, root, subject.mask, doubt.what)


def _warning(code: str, root: Path, file: Path, what: str) -> ReleaseWarning:
    fault = _Found(code, file, what).fault(root)
    return ReleaseWarning(fault.code, fault.file, fault.what)


def _opening(subject: Subject) -> set[str]:
    """The mark by which copies of a scan are looked for. A file that cannot be read has none: whoever decodes it says so."""
    try:
        return {opening(subject.image, subject.ed)}
    except FileFault:
        return set()


def _fingerprints(subject: Subject) -> set[str]:
    """The marks by which a copy of a scan is known; none of a subject whose frames cannot be read, as in `_opening`."""
    try:
        return {fingerprint(volume.image) for volume in _pair(subject, "frames")[1].values()}
    except _Found:
        return set()


def _sorted(release: Release, marks: Mapping[str, set[str]]) -> Release:
    """`release` without the subjects that share a mark, which become faults, and all of it in order. marks: code -> its
    scan's."""
    by_code = {subject.code: subject for subject in release.subjects}
    copies = [[by_code[code] for code in group] for group in together(marks)]
    faults = list(release.faults)
    for group in copies:
        named = " and ".join(f"{subject.code} ({subject.split})" for subject in group)
        what = f"{named} have the same voxels; nothing tells which code is right, and all of them are left out"
        faults.append(_Found("same-scan", group[0].image, what).fault(release.folder))
    gone = {subject.code for group in copies for subject in group}
    return Release(
        folder=release.folder,
        subjects=tuple(sorted((s for s in release.subjects if s.code not in gone), key=lambda subject: subject.code)),
        faults=tuple(sorted(faults, key=lambda fault: (fault.file, fault.code, fault.what))),
        scans=MappingProxyType({code: scan for code, scan in release.scans.items() if code not in gone}),
        warnings=tuple(sorted(release.warnings, key=lambda each: (each.file, each.code, each.what))),
    )


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
