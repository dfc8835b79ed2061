"""The cohort table of a release: who is there, per centre and split, with the geometry that sets centres apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fedprivseg.core.records import Subject
from fedprivseg.imaging.dataset import Release, Scan


@dataclass(frozen=True)
class CentreSplit:
    """One row of the cohort table: one centre in one split.

    spacing_median, spacing_min, spacing_max: mm along X, Y, Z. matrix_min, matrix_max: voxels along X, Y.
    slices_min, slices_max: Z. labels: label values seen, or None before a deep check.
    """

    centre: int | str
    split: str
    subjects: int
    labelled: int
    vendors: tuple[str, ...]
    spacing_median: tuple[float, ...]
    spacing_min: tuple[float, ...]
    spacing_max: tuple[float, ...]
    matrix_min: tuple[int, ...]
    matrix_max: tuple[int, ...]
    slices_min: int
    slices_max: int
    labels: tuple[int, ...] | None


def summarise(release: Release) -> tuple[CentreSplit, ...]:
    """The cohort table of a release: one row per centre and split that has usable subjects, sorted."""
    order = ("train", "val", "test")
    groups: dict[tuple[int | str, int], list[Subject]] = {}
    for subject in release.subjects:
        groups.setdefault((subject.centre, order.index(subject.split)), []).append(subject)
    return tuple(
        _row(centre, order[split], group, release.scans)
        for (centre, split), group in sorted(groups.items(), key=lambda item: (str(item[0][0]), item[0][1]))
    )


def _row(centre: int | str, split: str, group: Sequence[Subject], by_code: Mapping[str, Scan]) -> CentreSplit:
    scans = [by_code[subject.code] for subject in group]
    spacings = list(zip(*(scan.spacing for scan in scans), strict=True))
    matrices = list(zip(*(scan.shape[:2] for scan in scans), strict=True))
    seen = [scan.labels for scan in scans if scan.labels is not None]
    return CentreSplit(
        centre=centre,
        split=split,
        subjects=len(group),
        labelled=sum(subject.labelled for subject in group),
        vendors=tuple(sorted({vendor for subject in group if (vendor := subject.attributes.get("vendor"))})),
        spacing_median=tuple(median(axis) for axis in spacings),
        spacing_min=tuple(min(axis) for axis in spacings),
        spacing_max=tuple(max(axis) for axis in spacings),
        matrix_min=tuple(min(axis) for axis in matrices),
        matrix_max=tuple(max(axis) for axis in matrices),
        slices_min=min(scan.shape[2] for scan in scans),
        slices_max=max(scan.shape[2] for scan in scans),
        labels=tuple(sorted({value for labels in seen for value in labels})) if seen else None,
    )
