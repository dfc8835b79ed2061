"""The M&Ms release on disk: which subjects are there, which cannot be used and why, and the two annotated frames.

Campello et al., Multi-Centre, Multi-Vendor and Multi-Disease Cardiac Segmentation: The M&Ms Challenge, IEEE TMI
40(12):3543, 2021. Layout, with or without the outer ``OpenDataset`` folder::

    OpenDataset/
      211230_M&Ms_Dataset_information_diagnosis_opendataset.csv
      Training/Labeled/<code>/<code>_sa.nii.gz, <code>_sa_gt.nii.gz
      Training/Unlabeled/<code>/...   Validation/<code>/...   Testing/<code>/...

A code from the table becomes a path only if it is 1 to 32 letters and digits and such a folder was listed.

In memory the labels of every mask are 1 LV, 2 MYO, 3 RV, the release's order. A site whose files have another order states it
(`labels` in its site.toml), and its masks are put in this order as they are read; whatever is written has this order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, final

import numpy as np

from fedprivseg.core.errors import DataError
from fedprivseg.core.files import is_companion
from fedprivseg.core.records import Subject, Volume
from fedprivseg.core.task import SegmentationTask, task_named
from fedprivseg.imaging import dataset
from fedprivseg.imaging.dataset import Dataset, Fault, Release, ReleaseWarning, Scan, require_folder
from fedprivseg.imaging.geometry import Limits
from fedprivseg.imaging.mnms.plausibility import PHASES, STRUCTURES, implausible
from fedprivseg.imaging.mnms.table import COLUMNS, SUFFIXES, TABLE, NoTable, Table, read_table
from fedprivseg.imaging.scans import (
    Found,
    file_inside,
    fingerprints,
    in_order,
    loaded,
    read_masks,
    read_scan,
    shown,
    voxel_ml,
    without_copies,
)

SHORT_AXIS_CINE = Limits("short-axis cine MRI", pixel=(0.5, 3.5), slices=(2.5, 20.0), view=(40.0, 600.0))
"""Why these. Pixels: published sets have 0.7 to 2.0 mm; below 0.5 no cine resolves anything, above 3.5 a myocardium of 8 mm is
two pixels. Slices: 5 to 10 mm thick with gaps of up to 10, in infants 3. View: a newborn's heart is 40 mm wide, a magnet's bore
600 to 700. Beyond them a header is wrong, in its unit or otherwise; what is only unusual passes."""

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
        **dataset.FAULTS,
        "unsafe-code": "a code in the table is not 1 to 32 letters and digits",
        "duplicate-code": "the table lists a code more than once",
        "bad-row": "a row of the table has more cells than there are columns, so which is which cannot be told",
        "bad-number": "Centre, ED or ES in the table is not a whole number that makes sense",
        "unlisted-folder": "a subject folder that the table does not list",
        "two-folders": "a code has folders in more than one split",
    }
)
"""Every fault code that a release may show, and its meaning."""

WARNINGS: Mapping[str, str] = MappingProxyType(
    {
        "companion-files": "files that macOS wrote beside others (._*) are ignored",
        "table-encoding": "nothing tells the table's encoding; it was read as cp1252",
        "label-order": "by the anatomy, the mask's labels stand for other structures than LV, MYO and RV",
        "open-myocardium": "the myocardium does not enclose the LV",
        "missing-structure": "a labelled frame lacks LV, MYO or RV",
        "phase-order": "the LV is not larger at ED than at ES",
        "same-frame": "ED and ES are the same image",
    }
)
"""Every code that a warning about a release may carry, and its meaning."""

_CODE = re.compile(r"[A-Za-z0-9]{1,32}")
_WHOLE = re.compile(r"-?[0-9]{1,9}([.,]0*)?")  # "1" or "1.0": tables saved by pandas turn whole numbers into floats


@final
class MnMs(Dataset):
    """The release of the M&Ms challenge, and whatever has its layout."""

    name = "mnms"
    title = "M&Ms release"
    limits = SHORT_AXIS_CINE
    axes = 4
    may_lack = False
    faults: ClassVar[Mapping[str, str]] = FAULTS

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """See `Dataset`: a split folder is there."""
        return any((home / split).is_dir() for home in (folder, folder / "OpenDataset") for split in SPLITS)

    def task(self, folder: Path) -> SegmentationTask:
        """See `Dataset`: every such release has the same. Raises DataError if a channel is asked for: there is one."""
        if self.channel:
            raise DataError(
                f"data.channel is {self.channel!r}, and an M&Ms release has one image a subject; leave it out"
            )
        return task_named("short-axis-cine")

    def read(self, folder: Path) -> Release:
        """See `Dataset`."""
        root, table, placed, warnings = _layout(folder)
        faults: list[Fault] = []
        subjects: list[Subject] = []
        scans: dict[str, Scan] = {}
        seen = Counter(row["External code"] for row in table.rows)
        for code, times in seen.items():
            if times > 1 and _CODE.fullmatch(code):
                faults.append(Fault("duplicate-code", shown(table.path.name), f"{code} stands in {times} rows"))
        for at, row in enumerate(table.rows):
            code = row["External code"]
            try:
                if not _CODE.fullmatch(code):
                    raise Found(
                        "unsafe-code", table.path, f"{shown(code, 48)} is given; allowed are 1 to 32 letters and digits"
                    )
                if at in table.overlong:
                    what = (
                        f"{code}: its row has cells beyond the last column; put a cell with a delimiter in it in quotes"
                    )
                    raise Found("bad-row", table.path, what)
                if seen[code] == 1:
                    subject = _subject(root, table.path, row, placed.get(code, []))
                    scans[code], _ = read_scan(self, subject, STRUCTURES, "header")
                    subjects.append(subject)
            except Found as found:
                faults.append(found.fault(root))
        for code, places in placed.items():
            if code not in seen:
                faults += [
                    Found("unlisted-folder", path, "no row of the table has this code").fault(root)
                    for _, path in places
                ]
        return without_copies(self, Release(root, tuple(subjects), tuple(faults), scans, warnings), STRUCTURES)

    def check(
        self,
        folder: Path,
        progress: Callable[[int, int], None] | None = None,
        orders: Mapping[str, Sequence[str]] | None = None,
    ) -> Release:
        """See `Dataset`."""
        release = self.read(folder)
        faults, warnings, subjects, scans = list(release.faults), list(release.warnings), [], {}
        marks: dict[str, set[str]] = {}
        for done, found in enumerate(release.subjects, start=1):
            subject = replace(found, order=tuple((orders or {}).get(str(found.centre), STRUCTURES)))
            try:
                scans[subject.code], volumes = read_scan(self, subject, STRUCTURES, "whole")
                subjects.append(subject)
                marks[subject.code] = fingerprints(volumes)
                if len(marks[subject.code]) < len(volumes):
                    what = f"frames {' and '.join(map(str, subject.frames.values()))} are equal"
                    warnings.append(Found("same-frame", subject.image, what).warning(release.folder))
                masks = {phase: volume.mask for phase, volume in volumes.items() if volume.mask is not None}
                warnings += _implausible(release.folder, subject, masks, voxel_ml(scans[subject.code].spacing))
            except Found as fault:
                faults.append(fault.fault(release.folder))
            if progress is not None:
                progress(done, len(release.subjects))
        return in_order(Release(release.folder, tuple(subjects), tuple(faults), scans, tuple(warnings)), marks)

    def doubts(self, folder: Path, subjects: Sequence[Subject]) -> tuple[ReleaseWarning, ...]:
        """See `Dataset`. A mask with a fault is passed over: `load` refuses it."""
        found: list[ReleaseWarning] = []
        for subject in subjects:
            try:
                masks, voxel = read_masks(self, subject, STRUCTURES)
                found += _implausible(folder, subject, masks, voxel)
            except Found:
                continue
        return tuple(found)

    def load(self, subject: Subject, task: SegmentationTask) -> dict[str, Volume]:
        """See `Dataset`: ED and ES, or ED alone where ED and ES are one frame."""
        return loaded(self, subject, STRUCTURES)


# --- the table and the folders ---------------------------------------------------------------------------------------


def _layout(
    folder: Path,
) -> tuple[Path, Table, dict[str, list[tuple[str, Path]]], tuple[ReleaseWarning, ...]]:
    """(release folder, its table, code -> [(split folder, subject folder)], warnings)."""
    expected = (
        "Expected is an M&Ms release: a folder (or its OpenDataset) that holds "
        f"{', '.join(SPLITS)} (at least one) and the table {TABLE} with the columns {', '.join(COLUMNS)}."
    )
    root = require_folder(folder, expected)
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
        what = f"read as cp1252 (Western Windows); if {shown(table.guessed, 48)!r} is misspelt, save it as UTF-8"
        warnings.append(Found("table-encoding", table.path, what).warning(root))
    within = [entry for entries in placed.values() for _, entry in entries]
    if companions := _companions(root, [*homes, *(path for _, path in splits), *within]):
        what = f"{len(companions)} of them, this one the first; none is read"
        warnings.append(Found("companion-files", companions[0], what).warning(root))
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
            seen.append(f"{shown(path.name, 80)}: {fault if isinstance(fault, NoTable) else 'it cannot be read'}")
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(shown(table.path.name, 80) for table in found)
        raise DataError(f"The data folder has {len(found)} tables ({names}); exactly one is needed. {expected}")
    what = "; ".join(seen[:3]) or f"there is no file whose name ends in {', '.join(SUFFIXES)}"
    raise DataError(f"No table of the data folder can be used. Seen: {what}. {expected}")


def _subject(root: Path, table: Path, row: Mapping[str, str], places: Sequence[tuple[str, Path]]) -> Subject:
    """One row of the table with its files. Raises Found."""
    code = row["External code"]
    centre, ed, es = (_whole(table, row, column) for column in ("Centre", "ED", "ES"))
    if centre < 1:
        raise Found("bad-number", table, f"{code}: Centre is {centre}; it must be 1 or more")
    if not places:
        raise Found("missing-file", root / code, f"no folder {code} in any of {', '.join(SPLITS)}")
    if len(places) > 1:
        raise Found("two-folders", places[0][1], f"also in {', '.join(name for name, _ in places[1:])}")
    name, folder = places[0]
    split, marked = SPLITS[name]
    labelled = marked and ed != es  # the release marks its 25 unlabelled subjects by ED == ES
    return Subject(
        code=code,
        centre=centre,
        split=split,
        labelled=labelled,
        frames=dict(zip(PHASES, (ed, es), strict=True)),
        image=file_inside(root, folder / f"{code}_sa.nii.gz"),
        mask=file_inside(root, folder / f"{code}_sa_gt.nii.gz") if labelled else None,
        order=STRUCTURES,
        attributes={
            "disease": shown(row.get("Pathology", ""), 32),
            "sex": shown(row.get("Sex", ""), 8),
            "vendor": shown(row["VendorName"], 32),
            **({"age": shown(row["Age"], 8)} if row.get("Age") else {}),
        },
    )


def _whole(table: Path, row: Mapping[str, str], column: str) -> int:
    if not _WHOLE.fullmatch(row[column]):
        what = f"{row['External code']}: {column} is {shown(row[column], 24)!r}; it must be a whole number"
        raise Found("bad-number", table, what)
    return int(re.split("[.,]", row[column])[0])


# --- the files -------------------------------------------------------------------------------------------------------


def _implausible(
    root: Path, subject: Subject, masks: Mapping[str, np.ndarray], voxel: float
) -> Iterator[ReleaseWarning]:
    """What `implausible` finds, with the file. voxel: its volume in ml."""
    for issue in implausible(masks, voxel, subject.order):
        assert subject.mask is not None  # no masks, no issue
        yield Found(issue.kind, subject.mask, issue.what).warning(root)
