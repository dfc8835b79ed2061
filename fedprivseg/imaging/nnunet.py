"""The raw layout of nnU-Net: images and labels of any organ, which nearly everybody who segments has at hand.

Isensee et al., nnU-Net, Nature Methods 18:203, 2021; documentation/dataset_format.md there. Layout::

    Dataset001_Name/
      dataset.json                         channel_names, labels, file_ending
      imagesTr/<case>_0000.nii.gz, ...     one file a channel; every case has all of them
      labelsTr/<case>.nii.gz
      imagesTs/..., labelsTs/...           optional; cases without labels are used for nothing
      cases.csv                            optional, this package's own: case,site,split and attributes of the patients

Who is where. With ``cases.csv`` every case has a row: its site, and its split ``train``, ``val`` or ``test`` (left out:
``train`` for ``imagesTr``, ``test`` for ``imagesTs``). Further columns, such as disease, sex or vendor, are attributes of the
patient. Without it a case's site is what its name has before the last ``_`` or ``-``: ``north_017`` is of ``north``.

One network sees one channel, which the scenario chooses (`DataConfig.channel`). Labels are whole numbers 0, 1, 2... with 0 for
the background; regions (lists of labels) and an ``ignore`` label are refused, because every structure has one label here.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, final

from pydantic import ValidationError

from fedprivseg.core.errors import DataError
from fedprivseg.core.files import is_companion
from fedprivseg.core.records import Subject, Volume
from fedprivseg.core.task import SegmentationTask, Structure
from fedprivseg.imaging import dataset
from fedprivseg.imaging.dataset import Dataset, Fault, Release, ReleaseWarning, Scan, require_folder
from fedprivseg.imaging.geometry import ANY_IMAGE, FileFault
from fedprivseg.imaging.nifti import opened
from fedprivseg.imaging.scans import (
    Found,
    file_inside,
    fingerprints,
    in_order,
    loaded,
    read_scan,
    refuse_apart,
    shown,
    without_copies,
)

DESCRIPTION, CASES = "dataset.json", "cases.csv"
SIDES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"imagesTr": ("labelsTr", "train"), "imagesTs": ("labelsTs", "test")}
)
"""Folder of images -> (folder of their labels, split)."""

ENDINGS = (".nii.gz", ".nii")
TIME = "scan"
"""The one time point of a case."""

FAULTS: Mapping[str, str] = MappingProxyType(
    {
        **dataset.FAULTS,
        "unsafe-code": "the name of a case is not 1 to 48 letters, digits, _ and -",
        "duplicate-code": "a case has images, or rows of the table, in more than one place",
        "bad-row": "a row of the table lacks its site, or has a split that is none, or more cells than there are columns",
        "unlisted-case": "images of a case that the table does not list",
        "no-site": "there is no table, and nothing in the name of the case tells its site",
        "no-labels": "a case for training has no labels",
    }
)
"""Every fault code that such a release may show, and its meaning."""

_CASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}")
_MOST_TEXT = 2**24
_EXPECTED = (
    f"Expected is the raw layout of nnU-Net: a folder with {DESCRIPTION} (channel_names, labels, file_ending), imagesTr and "
    "labelsTr."
)


@dataclass(frozen=True)
class _Description:
    """What a ``dataset.json`` says. channels: names in the order of their numbers."""

    name: str
    channels: tuple[str, ...]
    structures: tuple[Structure, ...]
    ending: str


@final
class NnUNet(Dataset):
    """A folder as nnU-Net takes it, NIfTI files only."""

    name = "nnunet"
    title = "nnU-Net raw"
    limits = ANY_IMAGE
    axes = 3
    may_lack = True
    faults: ClassVar[Mapping[str, str]] = FAULTS

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """See `Dataset`: `DESCRIPTION` is there."""
        return (folder / DESCRIPTION).is_file()

    def task(self, folder: Path) -> SegmentationTask:
        """See `Dataset`: the labels of `DESCRIPTION`, one time point."""
        said = _description(folder)
        self._channel(said)
        words = re.sub(r"[^a-z0-9]+", "-", said.name.lower()).strip("-")[:48]
        name = words if words[:1].isalpha() else f"dataset-{words}".rstrip("-")[:48]
        return SegmentationTask(name=name, structures=said.structures)

    def read(self, folder: Path) -> Release:
        """See `Dataset`."""
        release, names = self._listed(folder)
        return without_copies(self, release, names)

    def check(
        self,
        folder: Path,
        progress: Callable[[int, int], None] | None = None,
        orders: Mapping[str, Sequence[str]] | None = None,
    ) -> Release:
        """See `Dataset`; the other channels of a case too."""
        release, names = self._listed(folder)
        said = _description(folder)
        faults, subjects, scans = list(release.faults), [], {}
        marks: dict[str, set[str]] = {}
        for done, found in enumerate(release.subjects, start=1):
            subject = replace(found, order=tuple((orders or {}).get(str(found.centre), names)))
            try:
                scans[subject.code], volumes = read_scan(self, subject, names, "whole")
                self._check_channels(subject, said)
                subjects.append(subject)
                marks[subject.code] = fingerprints(volumes)
            except Found as fault:
                faults.append(fault.fault(release.folder))
            if progress is not None:
                progress(done, len(release.subjects))
        return in_order(Release(release.folder, tuple(subjects), tuple(faults), scans), marks)

    def doubts(self, folder: Path, subjects: Sequence[Subject]) -> tuple[ReleaseWarning, ...]:
        """See `Dataset`: of an unknown organ nobody can say how its masks look."""
        return ()

    def load(self, subject: Subject, task: SegmentationTask) -> dict[str, Volume]:
        """See `Dataset`: ``{"scan": volume}``."""
        return loaded(self, subject, task.names)

    def _channel(self, said: _Description) -> int:
        """The number of the chosen channel. Raises DataError."""
        if self.channel in said.channels:
            return said.channels.index(self.channel)
        number = int(self.channel or 0) if self.channel.isdecimal() or not self.channel else len(said.channels)
        if number >= len(said.channels):
            listed = ", ".join(f"{number} {shown(name, 32)}" for number, name in enumerate(said.channels))
            raise DataError(f"data.channel is {self.channel!r}; the channels of this release are: {listed}")
        return number

    def _listed(self, folder: Path) -> tuple[Release, tuple[str, ...]]:
        """The release by names and headers, and the names of its structures."""
        root = require_folder(folder, _EXPECTED)
        said = _description(root)
        channel = self._channel(said)
        names = tuple(structure.name for structure in said.structures)
        placed, faults = _placed(root, said.ending)
        if not placed and not faults:
            raise DataError(f"The release is empty: imagesTr holds no image that ends in {said.ending}. {_EXPECTED}")
        rows = _rows(root, faults)
        subjects: list[Subject] = []
        scans: dict[str, Scan] = {}
        for case, sides in placed.items():
            try:
                subject = _subject(root, said, case, sides, channel, rows, names)
                if subject is not None:
                    scans[case], _ = read_scan(self, subject, names, "header")
                    subjects.append(subject)
            except Found as found:
                faults.append(found.fault(root))
        return Release(root, tuple(subjects), tuple(faults), scans), names

    def _check_channels(self, subject: Subject, said: _Description) -> None:
        """Raises Found unless every channel of the case can be read and lies where the chosen one does."""
        with opened(subject.image, self.limits) as first:
            place = first.geometry
        for number in range(len(said.channels)):
            path = subject.image.with_name(f"{subject.code}_{number:04d}{said.ending}")
            if path == subject.image:
                continue
            if not path.is_file():
                raise Found("missing-file", path, f"channel {number} of the case is not there")
            try:
                with opened(path, self.limits) as file:
                    file.read_to_the_end()
            except FileFault as fault:
                raise Found(fault.code, path, fault.what) from None
            if file.geometry.shape != place.shape:
                what = f"this channel is {file.geometry.shape}, another of the case {place.shape}"
                raise Found("shape-mismatch", path, what)
            refuse_apart(place, file.geometry, path)


def _description(folder: Path) -> _Description:
    """What the ``dataset.json`` of `folder` says. Raises DataError that names the key."""
    root = require_folder(folder, _EXPECTED)
    path = root / DESCRIPTION
    try:
        said = json.loads(_text(root, path))
    except ValueError:
        raise DataError(f"{DESCRIPTION} is no JSON. {_EXPECTED}") from None
    if not isinstance(said, dict):
        raise DataError(f"{DESCRIPTION} is no JSON object. {_EXPECTED}")
    channels = said.get("channel_names")
    numbers = [str(number) for number in range(len(channels))] if isinstance(channels, dict) else []
    if not isinstance(channels, dict) or not numbers or sorted(map(str, channels)) != sorted(numbers):
        raise DataError(
            f'{DESCRIPTION}: channel_names must number the channels from 0, such as {{ "0": "T1" }}; given '
            f"{shown(json.dumps(channels), 80)}. (Format 1 of nnU-Net calls them modality; nnUNetv2_convert_old_nnUNet_dataset "
            "converts it.)"
        )
    ending = said.get("file_ending")
    if ending not in ENDINGS:
        raise DataError(
            f"{DESCRIPTION}: file_ending is {shown(json.dumps(ending), 40)}; only NIfTI is read: {', '.join(ENDINGS)}"
        )
    name = said.get("name")
    return _Description(
        name=name if isinstance(name, str) and name else root.name,
        channels=tuple(str(channels[number]) for number in numbers),
        structures=_structures(said.get("labels")),
        ending=ending,
    )


def _structures(labels: Any) -> tuple[Structure, ...]:
    """The structures of ``labels``, by number. Raises DataError that says which label is none."""
    example = '{ "background": 0, "lesion": 1 }'
    if not isinstance(labels, dict) or not labels:
        raise DataError(f"{DESCRIPTION}: labels must name every label's number, such as {example}")
    for name, value in labels.items():
        if isinstance(value, list):
            raise DataError(
                f"{DESCRIPTION}: the label {shown(str(name), 48)!r} is a region of several labels, {shown(str(value), 48)}. "
                "Regions are not supported: here every voxel has one label. Name each label by its own number."
            )
        if type(value) is not int:
            raise DataError(
                f"{DESCRIPTION}: the label {shown(str(name), 48)!r} is {shown(json.dumps(value), 48)}, and must be a whole "
                f"number, as in {example}"
            )
        if name == "ignore":
            raise DataError(
                f"{DESCRIPTION}: an 'ignore' label is not supported; label the voxels, or leave the case out"
            )
    if sorted(labels.values()) != list(range(len(labels))) or labels.get("background") != 0 or len(labels) < 2:
        raise DataError(
            f"{DESCRIPTION}: labels are {sorted(labels.values())}; needed are 'background' with 0 and others with 1, 2, 3 and "
            f"so on, each once, as in {example}"
        )
    named = {number: re.sub(r"[^A-Za-z0-9+_-]+", "-", name).strip("-")[:32] for name, number in labels.items()}
    if len(set(named.values())) < len(named):
        raise DataError(f"{DESCRIPTION}: two labels have the same name but for blanks and signs; give them other names")
    words = {number: shown(name, 80) for name, number in labels.items()}
    try:
        return tuple(Structure(name=named[n], label=n, meaning=words[n]) for n in sorted(named) if n)
    except ValidationError:
        raise DataError(f"{DESCRIPTION}: a label's name has no letter or digit, or there are more than 255") from None


def _placed(root: Path, ending: str) -> tuple[dict[str, list[str]], list[Fault]]:
    """Case -> the folders that hold images of it, and files with other names."""
    placed: dict[str, list[str]] = {}
    faults = []
    name_of = re.compile(rf"(.+)_\d{{4}}{re.escape(ending)}")
    for side in SIDES:
        try:
            paths = sorted((root / side).iterdir()) if (root / side).is_dir() else []
        except OSError as fault:
            raise DataError(f"{side} cannot be listed ({type(fault).__name__}). {_EXPECTED}") from None
        for path in paths:
            if is_companion(path) or not path.name.endswith(ending):
                continue
            if not (found := name_of.fullmatch(path.name)):
                what = f"images are called <case>_0000{ending}, with the channel's number in four digits"
                faults.append(Found("unsafe-code", path, what).fault(root))
            elif side not in placed.setdefault(found[1], []):
                placed[found[1]].append(side)
    return placed, faults


def _rows(root: Path, faults: list[Fault]) -> Mapping[str, Mapping[str, str]] | None:
    """Case -> its row of ``cases.csv``; None without such a file. What is wrong with single rows goes to `faults`."""
    path = root / CASES
    if not path.exists():
        return None
    lines = csv.DictReader(io.StringIO(_text(root, path), newline=""), strict=True)
    try:
        rows = [{(key or "").strip().lower(): value for key, value in line.items()} for line in lines]
    except csv.Error as fault:
        raise DataError(f"{CASES} is no CSV ({fault}); its first line is case,site,split") from None
    columns = [name.strip().lower() for name in lines.fieldnames or ()]
    if missing := [name for name in ("case", "site") if name not in columns]:
        raise DataError(
            f"{CASES} lacks the column {missing[0]}; its first line is case,site,split, and attributes if known"
        )
    found: dict[str, Mapping[str, str]] = {}
    times = Counter((row["case"] or "").strip() for row in rows)
    for row in rows:
        overlong = bool(row.pop("", None))
        cells = {key: (value or "").strip() for key, value in row.items()}
        case = cells["case"]
        problem = None
        if times[case] > 1:
            problem = "duplicate-code", f"{shown(case, 48)} stands in {times[case]} rows"
        elif overlong or not cells["site"] or cells.get("split", "") not in ("", "train", "val", "test"):
            what = f"{shown(case, 48)}: a row needs a site, and as split train, val, test or nothing"
            problem = "bad-row", what
        if problem:
            faults.append(Found(problem[0], path, problem[1]).fault(root))
        else:
            found[case] = cells
    return found


def _subject(
    root: Path,
    said: _Description,
    case: str,
    sides: Sequence[str],
    channel: int,
    rows: Mapping[str, Mapping[str, str]] | None,
    names: tuple[str, ...],
) -> Subject | None:
    """One case with its files; None for a test case without labels. Raises Found."""
    folder = root / sides[0]
    if not _CASE.fullmatch(case):
        raise Found("unsafe-code", folder, f"{shown(case, 48)} is given; allowed are 1 to 48 letters, digits, _ and -")
    if len(sides) > 1:
        raise Found("duplicate-code", folder / case, f"also in {', '.join(sides[1:])}")
    labels, split = SIDES[sides[0]]
    mask = root / labels / f"{case}{said.ending}"
    row: Mapping[str, str] = {}
    if rows is not None:
        if case not in rows:
            raise Found("unlisted-case", folder / case, f"no row of {CASES} has this case, or its row has a fault")
        row = rows[case]
        site = row["site"]
    else:
        site = re.split(r"[_-][^_-]*$", case)[0]
        if site == case:
            raise Found("no-site", folder / case, f"add {CASES}, or name cases as in north_017")
    if not mask.exists():
        if split == "test":
            return None
        raise Found("no-labels", mask, f"{labels} holds no labels of {case}")
    return Subject(
        code=case,
        centre=shown(site, 48),
        split=row.get("split") or split,
        labelled=True,
        frames={TIME: 0},
        image=file_inside(root, folder / f"{case}_{channel:04d}{said.ending}"),
        mask=file_inside(root, mask),
        order=names,
        attributes={key: shown(value, 32) for key, value in row.items() if key not in ("case", "site", "split")},
    )


def _text(root: Path, path: Path) -> str:
    """The text of a small file of the release. Raises DataError."""
    try:
        if not path.resolve().is_relative_to(root):
            raise DataError(f"{path.name} is a link that leads out of the release. {_EXPECTED}")
        with path.open("rb") as file:
            body = file.read(_MOST_TEXT + 1)
    except OSError as fault:
        raise DataError(f"{path.name} cannot be read ({type(fault).__name__}). {_EXPECTED}") from None
    if len(body) > _MOST_TEXT:
        raise DataError(f"{path.name} has more than {_MOST_TEXT} bytes. {_EXPECTED}")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path.name} is not UTF-8 text; save it as UTF-8") from None
