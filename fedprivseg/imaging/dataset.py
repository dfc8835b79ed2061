"""What the package asks of a layout of images and masks on disk, and what it finds there.

A data set reads a folder and says who is in it, what cannot be used and why, and what is to be segmented. It loads the labelled
frames of a subject; from then on nobody knows which layout it was. Nothing in a folder is trusted: a file is opened only inside
of it and only through `nifti`, a subject with a fault is reported and left out, and what only looks wrong is a warning.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

from fedprivseg.core.errors import DataError
from fedprivseg.core.records import Subject, Volume
from fedprivseg.core.task import SegmentationTask
from fedprivseg.imaging import geometry
from fedprivseg.imaging.geometry import Limits

FAULTS: Mapping[str, str] = MappingProxyType(
    {
        "missing-file": "a folder or file that the release promises is not there",
        "outside-release": "a link that leads out of the release",
        "unreadable": "no complete single-file NIfTI of real numbers",
        "wrong-dimensions": "the file has other axes than this layout's",
        **geometry.FAULTS,
        "frame-range": "a time point is not a frame of the file",
        "shape-mismatch": "image and mask differ in shape",
        "affine-mismatch": "image and mask lie apart in space",
        "same-scan": "two codes have the same scan: a patient would count twice, or train and test",
        "not-finite": "the image holds NaN or infinite values",
        "no-signal": "a frame or a slice of it would reach a network as a constant",
        "bad-labels": "the mask holds values that are no label of the task",
        "empty-mask": "a mask is empty, and everybody has what is labelled",
    }
)
"""The fault codes of every data set, and their meaning; one that has more lists them as its own."""


@dataclass(frozen=True)
class Fault:
    """Why something in a release cannot be used. For the site's own eyes: it names codes.

    Attributes:
        code: what kind of fault.
        file: the file's name relative to the release.
        what: the particulars.
    """

    code: str
    file: str
    what: str


@dataclass(frozen=True)
class ReleaseWarning:
    """Something to look at that leaves out nobody; as `Fault`."""

    code: str
    file: str
    what: str


@dataclass(frozen=True)
class Scan:
    """Geometry of a subject's image.

    Attributes:
        shape: (X, Y, Z, T), Z from slice to slice whatever the order in the file.
        spacing: mm along X, Y, Z.
        labels: the label values seen, or None if no mask was decoded.
    """

    shape: tuple[int, int, int, int]
    spacing: tuple[float, float, float]
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Release:
    """A release as found.

    Attributes:
        folder: where it lies.
        subjects: the usable ones, by code.
        faults: what was left out.
        scans: code -> its image's geometry.
        warnings: what looks wrong and leaves out nobody.
    """

    folder: Path
    subjects: tuple[Subject, ...]
    faults: tuple[Fault, ...]
    scans: Mapping[str, Scan]
    warnings: tuple[ReleaseWarning, ...] = ()


@dataclass(frozen=True)
class Dataset(ABC):
    """A layout of images and masks on disk. Final subclasses only; one file each; listed in `datasets.DATASETS`.

    Attributes:
        channel: which of several images of a subject is read, by name or number; empty: the first.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    limits: ClassVar[Limits]
    """Which sizes of voxels and fields of view its images can have."""
    axes: ClassVar[Literal[3, 4]]
    """How many a file has: three of space, or a fourth of time."""
    may_lack: ClassVar[bool]
    """Whether a subject may have nothing that is labelled, as a patient without a lesion."""
    faults: ClassVar[Mapping[str, str]]
    """Every fault code that it may report, and its meaning."""

    channel: str = ""

    @classmethod
    @abstractmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether `folder` looks like one of these; no file is opened."""

    @abstractmethod
    def task(self, folder: Path) -> SegmentationTask:
        """What the release in `folder` is labelled for. Raises DataError if it does not say."""

    @abstractmethod
    def read(self, folder: Path) -> Release:
        """The release in `folder`, from its table, file names and NIfTI headers; no frame is decoded, but of subjects that may
        have the same scan.

        Raises DataError if the folder is absent, empty or no such release. Faults of single subjects are in the result.
        """

    @abstractmethod
    def check(
        self,
        folder: Path,
        progress: Callable[[int, int], None] | None = None,
        orders: Mapping[str, Sequence[str]] | None = None,
    ) -> Release:
        """Like `read`, but decodes every file to its end and looks into the labelled frames.

        Args:
            folder: the release.
            progress: called with (subjects done, subjects in all).
            orders: centre, as text -> `Subject.order` of its masks, where that is not the release's.
        """

    @abstractmethod
    def doubts(self, folder: Path, subjects: Sequence[Subject]) -> tuple[ReleaseWarning, ...]:
        """What looks wrong in the masks of `subjects` of the release `folder`; no image is decoded."""

    @abstractmethod
    def load(self, subject: Subject, task: SegmentationTask) -> dict[str, Volume]:
        """The labelled frames of `subject` by time point of `task`.

        image: (X, Y, Z) float32 in scanner units (scl_slope and scl_inter applied); mask: (X, Y, Z) uint8 with the labels of
        the task, or None. Raises DataError if the files have a fault.
        """


def require_folder(folder: Path, expected: str) -> Path:
    """`folder` with all links followed. Raises DataError, which ends with what is `expected`, if it is none."""
    root = Path(folder).resolve()
    if not root.is_dir():
        raise DataError(f"The data folder does not exist or is no folder. {expected}")
    return root
