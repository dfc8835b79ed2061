"""One subject's image and mask, read and checked alone and against each other; and one scan under two codes.

Every data set reads its files here, so that they believe and refuse the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from fedprivseg.core.errors import DataError
from fedprivseg.core.records import Subject, Volume
from fedprivseg.imaging import geometry
from fedprivseg.imaging.dataset import Dataset, Fault, Release, ReleaseWarning, Scan
from fedprivseg.imaging.duplicates import fingerprint, opening, together
from fedprivseg.imaging.geometry import FileFault, Geometry, Limits
from fedprivseg.imaging.nifti import intensities, opened

APART_MM = 0.1
"""How far a mask may lie from its image: header rounding stays far below, a shift by one voxel far above."""

Depth = Literal["header", "frames", "whole"]


class Found(Exception):
    """A fault met while reading one subject; it becomes a `Fault` or a DataError, never a message with a path."""

    def __init__(self, code: str, file: Path, what: str) -> None:
        super().__init__(code)
        self.code, self.file, self.what = code, file, what

    def fault(self, root: Path) -> Fault:
        """The fault, of a file in the release `root`."""
        inside = self.file.relative_to(root) if self.file.is_relative_to(root) else Path(self.file.name)
        return Fault(self.code, shown(inside.as_posix()), self.what)

    def warning(self, root: Path) -> ReleaseWarning:
        """The same as a warning."""
        return ReleaseWarning(**vars(self.fault(root)))


def shown(text: str, limit: int = 160) -> str:
    """`text` from a release, safe to print: no control characters, bounded."""
    return (text if text.isprintable() else ascii(text))[:limit]


def file_inside(root: Path, path: Path) -> Path:
    """`path` with all links followed, if it is a plain file inside the release `root`. Raises Found."""
    real = path.resolve()
    if not real.is_relative_to(root):
        raise Found("outside-release", path, "the file, or a folder above it, is a link that leads out of the release")
    if not real.is_file():
        raise Found("missing-file", path, "no such file")
    return real


def read_scan(dataset: Dataset, subject: Subject, names: Sequence[str], depth: Depth) -> tuple[Scan, dict[str, Volume]]:
    """Image and mask of one subject.

    Args:
        dataset: says what a file must be.
        subject: whose; time points of one frame are read once, under the first one's name.
        names: the structures of the task, in the order of its labels.
        depth: ``header`` decodes no voxels and gives no volumes; ``frames`` decodes the labelled ones; ``whole`` reads to the
            end of the files, so that gzip's checksum is verified.

    Raises Found.
    """
    wanted: dict[str, int] = {}
    for time, frame in subject.frames.items():
        if frame not in wanted.values():
            wanted[time] = frame
    place, frames, images = _read(dataset, subject.image, wanted, depth)
    shape = (*place.shape, frames)
    masks: dict[int, np.ndarray] = {}
    if subject.mask is not None:
        mask_place, mask_frames, masks = _read(dataset, subject.mask, wanted, depth)
        if (mask_shape := (*mask_place.shape, mask_frames)) != shape:
            raise Found("shape-mismatch", subject.mask, f"the mask is {mask_shape}, the image {shape}")
        refuse_apart(place, mask_place, subject.mask)
    volumes: dict[str, Volume] = {}
    for time, frame in wanted.items() if depth != "header" else ():
        mask = None if subject.mask is None else _labels(dataset, subject, masks[frame], time, names)
        volumes[time] = Volume(_intensities(subject.image, images[frame], time), mask, place.affine)
    labels = sorted(
        {int(value) for volume in volumes.values() if volume.mask is not None for value in np.unique(volume.mask)}
    )
    seen = tuple(labels) if depth != "header" and subject.mask is not None else None
    return Scan(shape, place.spacing, seen), volumes


def read_masks(dataset: Dataset, subject: Subject, names: Sequence[str]) -> tuple[dict[str, np.ndarray], float]:
    """Time point -> mask, and the volume of a voxel in ml; no masks of an unlabelled subject. Raises Found."""
    if subject.mask is None:
        return {}, 0.0
    place, _, frames = _read(dataset, subject.mask, subject.frames, "frames")
    masks = {time: _labels(dataset, subject, frames[frame], time, names) for time, frame in subject.frames.items()}
    return masks, voxel_ml(place.spacing)


def refuse_apart(one: Geometry, other: Geometry, file: Path) -> None:
    """Raises Found if the image `file` with the geometry `other` lies elsewhere than `one`."""
    apart = geometry.apart_mm(one, other)
    if apart > APART_MM:
        what = f"a corner of it lies {apart:.2f} mm from the image's; at most {APART_MM} mm is rounding"
        raise Found("affine-mismatch", file, what)


def loaded(dataset: Dataset, subject: Subject, names: Sequence[str]) -> dict[str, Volume]:
    """What `Dataset.load` gives. Raises DataError."""
    try:
        return read_scan(dataset, subject, names, "frames")[1]
    except Found as found:
        raise DataError(
            f"the files of a subject have the fault {found.code!r} ({dataset.faults[found.code]}). "
            "Run `fedprivseg data check` on the release: it names the file; fix it, or take the subject out."
        ) from None


def voxel_ml(spacing: Sequence[float]) -> float:
    """The volume in ml of a voxel of `spacing` mm."""
    return float(np.prod(spacing)) / 1000


def in_task_order(mask: np.ndarray, order: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """`mask` uint8 whose labels 1, 2, 3... stand for the structures `order`, with labels that stand for `names`."""
    if tuple(order) == tuple(names):
        return mask
    return np.array([0, *(list(names).index(name) + 1 for name in order)], np.uint8)[mask]


def without_copies(dataset: Dataset, release: Release, names: Sequence[str]) -> Release:
    """`release` without subjects who have the same scan, in order. Only of those whose first slices agree are frames
    decoded."""
    alike = together({subject.code: _opening(subject, dataset.limits) for subject in release.subjects})
    candidates = {code for group in alike for code in group}
    marks = {
        subject.code: _fingerprints(dataset, subject, names)
        for subject in release.subjects
        if subject.code in candidates
    }
    return in_order(release, marks)


def fingerprints(volumes: Mapping[str, Volume]) -> set[str]:
    """The marks by which a copy of a scan is known."""
    return {fingerprint(volume.image) for volume in volumes.values()}


def in_order(release: Release, marks: Mapping[str, set[str]]) -> Release:
    """`release` without the subjects that share a mark, which become faults, and all of it in order. marks: code -> its
    scan's."""
    by_code = {subject.code: subject for subject in release.subjects}
    copies = [[by_code[code] for code in group] for group in together(marks)]
    faults = list(release.faults)
    for group in copies:
        named = " and ".join(f"{subject.code} ({subject.split})" for subject in group)
        what = f"{named} have the same voxels; nothing tells which code is right, and all of them are left out"
        faults.append(Found("same-scan", group[0].image, what).fault(release.folder))
    gone = {subject.code for group in copies for subject in group}
    return Release(
        folder=release.folder,
        subjects=tuple(sorted((s for s in release.subjects if s.code not in gone), key=lambda subject: subject.code)),
        faults=tuple(sorted(faults, key=lambda fault: (fault.file, fault.code, fault.what))),
        scans=MappingProxyType({code: scan for code, scan in release.scans.items() if code not in gone}),
        warnings=tuple(sorted(release.warnings, key=lambda each: (each.file, each.code, each.what))),
    )


def _opening(subject: Subject, limits: Limits) -> set[str]:
    """The mark by which copies of a scan are looked for. A file that cannot be read has none: whoever decodes it says so."""
    try:
        return {opening(subject.image, next(iter(subject.frames.values())), limits)}
    except FileFault:
        return set()


def _fingerprints(dataset: Dataset, subject: Subject, names: Sequence[str]) -> set[str]:
    """The marks of a subject; none if its frames cannot be read, as in `_opening`."""
    try:
        return fingerprints(read_scan(dataset, subject, names, "frames")[1])
    except Found:
        return set()


def _read(
    dataset: Dataset, path: Path, wanted: Mapping[str, int], depth: Depth
) -> tuple[Geometry, int, dict[int, np.ndarray]]:
    """(geometry, number of frames, frame index -> (X, Y, Z) array with scaling applied) of one NIfTI file. Raises Found.

    The gzip stream is opened once and the frames are taken in file order, so nothing is decompressed twice and nothing
    after the last wanted frame, but at depth ``whole``.
    """
    try:
        with opened(path, dataset.limits) as file:
            if file.is_3d != (dataset.axes == 3):
                given = file.geometry.shape if file.is_3d else (*file.geometry.shape, file.frames)
                needed = "(X, Y, Z)" if dataset.axes == 3 else "(X, Y, Z, T)"
                raise FileFault("wrong-dimensions", f"the shape is {given}; {needed} is needed")
            for time, frame in wanted.items():
                if not 0 <= frame < file.frames:
                    what = f"{time} is frame {frame}; the file has frames 0 to {file.frames - 1}"
                    raise FileFault("frame-range", what)
            frames: dict[int, np.ndarray] = {}
            if depth != "header":
                frames = {frame: file.frame(frame) for frame in sorted(set(wanted.values()))}
            if depth == "whole":
                file.read_to_the_end()
    except FileFault as fault:
        raise Found(fault.code, path, fault.what) from None
    return file.geometry, file.frames, frames


def _intensities(path: Path, frame: np.ndarray, time: str) -> np.ndarray:
    try:
        return intensities(frame)
    except FileFault as fault:
        raise Found(fault.code, path, f"at {time} {fault.what}") from None


def _labels(dataset: Dataset, subject: Subject, frame: np.ndarray, time: str, names: Sequence[str]) -> np.ndarray:
    assert subject.mask is not None  # no mask, no labels
    highest = len(names)
    if not np.isin(frame, np.arange(highest + 1)).all():
        wrong = np.setdiff1d(frame, np.arange(highest + 1))
        raise Found(
            "bad-labels", subject.mask, f"{time} holds {wrong[:5].tolist()}; whole numbers 0 to {highest} are allowed"
        )
    mask = frame.astype(np.uint8)
    if not (dataset.may_lack or mask.any()):
        raise Found("empty-mask", subject.mask, f"no voxel is labelled at {time}")
    return in_task_order(mask, subject.order, names)
