"""A phantom of another organ: heads with one lesion each, written in the raw layout of nnU-Net.

Nobody's head: nested ellipsoids (scalp, skull, brain, grey and white matter, ventricles) and a lesion in the white matter,
drawn from a seed. Two channels follow from relaxation times by the spin-echo equation, signal = PD (1 - exp(-TR / T1))
exp(-TE / T2): FLAIR-like, in which the lesion is bright and water dark, and T1-weighted, in which it is a little dark.
Magnitude noise is Rician (Gudbjartsson and Patz, Magn Reson Med 34:910, 1995). Sites differ in voxels, noise, coil field and
sequence.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.core.records import Subject, Volume
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.core.task import SegmentationTask, Structure
from fedprivseg.imaging.nifti import write_nifti
from fedprivseg.imaging.nnunet import CASES, DESCRIPTION, SIDES, TIME

FEWEST_SUBJECTS = 2
CHANNELS = ("FLAIR", "T1")
STRUCTURE = "lesion"
TASK = SegmentationTask(
    name="brain-lesion",
    structures=(Structure(name=STRUCTURE, label=1, meaning="What is not as the tissue around it."),),
    body_part="brain",
    modality="mri",
    region="lesion",
    slice="axial slice",
    aim="outline lesions in brain MRI",
)
DISEASES = ("sclerosis", "glioma", "stroke")

# Proton density, T1 and T2 in ms at 1.5 T, in the range of the literature (Stanisz et al., Magn Reson Med 54:507, 2005).
_TISSUES = (
    *((0.0, 1.0, 1.0), (0.9, 300.0, 80.0), (0.1, 500.0, 10.0)),  # air, scalp, skull
    *(
        (0.85, 1100.0, 95.0),
        (0.70, 750.0, 75.0),
        (1.0, 4000.0, 1500.0),
        (0.85, 1250.0, 150.0),
    ),  # grey, white, water, lesion
)
_AIR, _SCALP, _SKULL, _GREY, _WHITE, _WATER, _LESION = range(len(_TISSUES))
_FIELD_MM = (170.0, 205.0)


@dataclass(frozen=True)
class _Scanner:
    """How a site images. pixel, slices: mm. noise: of the brightest tissue. field: strength of the coil's shading. ti:
    inversion time of the FLAIR, ms."""

    pixel: float
    slices: float
    noise: float
    field: float
    ti: float


@dataclass(frozen=True)
class _Patient:
    case: str
    place: int | str
    index: int
    side: str
    disease: str
    sex: str


def announced_brains(subjects: int, seed: int, centres: Sequence[int | str]) -> tuple[Subject, ...]:
    """Whom `write_brains` would write with these arguments, without drawing anybody; their files do not exist."""
    return tuple(
        Subject(
            code=one.case,
            centre=str(one.place),
            split=SIDES[one.side][1],
            labelled=True,
            frames={TIME: 0},
            image=Path(one.side),
            mask=Path(SIDES[one.side][0]),
            order=(STRUCTURE,),
            attributes={"disease": one.disease, "sex": one.sex},
        )
        for one in _patients(subjects, seed, centres)
    )


def write_brains(
    folder: Path,
    subjects: int,
    seed: int,
    *,
    centres: Sequence[int | str] = (1, 2, 3),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a consortium of heads as an nnU-Net raw data set with a ``cases.csv``, and return `folder`.

    Args:
        folder: absent or empty; it appears at once and whole, or not at all.
        subjects: per centre, 2 or more; a third of them is for testing.
        seed: the same arguments give the same bytes; a centre's files do not depend on which others are asked for.
        centres: what the sites are called in the table.
        progress: called with (subjects written, subjects in all).

    Raises RequestError for too few subjects, FolderError if the folder holds anything or cannot be written.
    """
    if subjects < FEWEST_SUBJECTS:
        raise RequestError(
            f"{subjects} subjects per centre: ask for {FEWEST_SUBJECTS} or more, one to train and one to test"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderError("the folder for the phantom already holds something: name an empty or a new folder")
    patients = list(_patients(subjects, seed, centres))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            release = Path(scratch) / "release"
            for side, (labels, _) in SIDES.items():
                (release / side).mkdir(parents=True)
                (release / labels).mkdir()
            for done, one in enumerate(patients, start=1):
                images, mask, affine = draw_head(seed, one.place, one.index)
                for number, image in enumerate(images):
                    write_nifti(release / one.side / f"{one.case}_{number:04d}.nii.gz", image, affine)
                write_nifti(release / SIDES[one.side][0] / f"{one.case}.nii.gz", mask, affine)
                if progress is not None:
                    progress(done, len(patients))
            _write_texts(release, patients)
            release.rename(folder)  # an empty folder gives way to a full one in one step
    except OSError as fault:
        raise FolderError(
            f"the folder for the phantom cannot be written ({fault.strerror or type(fault).__name__}); check rights and room"
        ) from fault
    return folder


def draw_head(seed: int, place: int | str, index: int) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """One patient.

    Returns:
        Images of all `CHANNELS`, (X, Y, Z) int16; the mask, (X, Y, Z) uint8 with 1 for the lesion; the affine (4, 4) voxel to
        mm.
    """
    scanner = _scanner(seed, place)
    draw = numpy_generator(seed, "phantom-brain", place, index, "head")
    size = draw.normal(1, 0.05, 3).clip(0.85, 1.15)
    depth = int(draw.integers(11, 14))
    shape = (round(_FIELD_MM[0] / scanner.pixel), round(_FIELD_MM[1] / scanner.pixel), depth)
    axes = [
        (np.arange(count) - (count - 1) / 2) * step
        for count, step in zip(shape, (scanner.pixel, scanner.pixel, scanner.slices), strict=True)
    ]
    tilt = np.deg2rad(draw.normal(0, 4))
    u, v, z = np.meshgrid(*axes, indexing="ij")
    x, y = (np.cos(tilt) * u + np.sin(tilt) * v) / size[0], (np.cos(tilt) * v - np.sin(tilt) * u) / size[1]
    z = z / size[2]
    # A cortex of folds: the radius of the grey matter's inner border waves with the angle.
    folds = 0.03 * np.sin(np.arctan2(y, x) * draw.integers(9, 14) + draw.uniform(0, 6)) * np.cos(z / 11)
    tissue = np.full(shape, _AIR, np.uint8)
    for kind, radii, waves in (
        (_SCALP, (76, 95, 105), 0.0),
        (_SKULL, (71, 90, 99), 0.0),
        (_WATER, (66, 85, 93), 0.0),
        (_GREY, (64, 82, 90), folds),
        (_WHITE, (55, 72, 80), 2 * folds),
    ):
        tissue[(x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2 < 1 + waves] = kind
    for half in (-1, 1):
        tissue[((x - 11 * half) / 6) ** 2 + ((y + 4) / 22) ** 2 + (z / 26) ** 2 < 1] = _WATER
    mask = _lesion(x, y, z, draw) & (tissue >= _GREY)
    tissue[mask] = _LESION
    return (
        tuple(_imaged(tissue, scanner, channel, seed, place, index) for channel in CHANNELS),
        mask.astype(np.uint8),
        _affine(shape, scanner, draw),
    )


def passer_by(seed: int, index: int, channel: str = "") -> dict[str, Volume]:
    """A patient of no site, on a scanner of its own.

    Args:
        seed: of the whole crowd.
        index: which of them.
        channel: of `CHANNELS`; empty: the first.
    """
    images, mask, affine = draw_head(seed, f"passer-by {index}", index)
    image = images[CHANNELS.index(channel) if channel else 0]
    return {TIME: Volume(image.astype(np.float32), mask, affine)}


def _lesion(x: np.ndarray, y: np.ndarray, z: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Where the lesion is: two ellipsoids that overlap, on one side of the head."""
    centre = np.array([draw.choice((-1, 1)) * draw.uniform(22, 36), draw.uniform(-35, 35), draw.uniform(-25, 25)])
    radii = draw.uniform((10, 10, 14), (19, 21, 26))
    away = draw.uniform(-0.6, 0.6, 3) * radii
    inside = np.zeros(x.shape, bool)
    for shift in (0.0, 1.0):
        p = [(axis - at) / radius for axis, at, radius in zip((x, y, z), centre + shift * away, radii, strict=True)]
        inside |= p[0] ** 2 + p[1] ** 2 + p[2] ** 2 < 1 - 0.3 * shift
    return inside


def _imaged(tissue: np.ndarray, scanner: _Scanner, channel: str, seed: int, place: int | str, index: int) -> np.ndarray:
    """The image of one channel, (X, Y, Z) int16."""
    draw = numpy_generator(seed, "phantom-brain", place, index, channel)
    density, t1, t2 = np.array(_TISSUES).T
    if channel == "FLAIR":
        signals = np.abs(density * (1 - 2 * np.exp(-scanner.ti / t1) + np.exp(-8000 / t1))) * np.exp(-110 / t2)
    else:
        signals = density * (1 - np.exp(-500 / t1)) * np.exp(-12 / t2)
    signal = signals[tissue] / signals[_GREY]
    signal = signal * (1 + 0.05 * draw.standard_normal(signal.shape))
    ramps = [np.linspace(-1, 1, count) for count in signal.shape]
    slopes = draw.normal(0, scanner.field, 3)
    for axis, (ramp, slope) in enumerate(zip(ramps, slopes, strict=True)):
        signal = signal * (1 + slope * ramp).reshape([-1 if at == axis else 1 for at in range(3)])
    noise = scanner.noise * draw.standard_normal((2, *signal.shape))
    return np.rint(400 * np.hypot(signal + noise[0], noise[1])).clip(0, 32_000).astype(np.int16)


def _scanner(seed: int, place: int | str) -> _Scanner:
    """A site's habits, drawn once for it."""
    draw = numpy_generator(seed, "phantom-brain", place, "scanner")
    return _Scanner(
        pixel=float(draw.uniform(2.2, 2.9)),
        slices=float(draw.uniform(8.0, 10.0)),
        noise=float(draw.uniform(0.04, 0.10)),
        field=float(draw.uniform(0.05, 0.15)),
        ti=float(draw.uniform(2300, 2500)),
    )


def _patients(subjects: int, seed: int, centres: Sequence[int | str]) -> Iterator[_Patient]:
    """The patients of all centres, in order: for training, then for testing."""
    test = max(1, round(subjects / 3))
    for place in sorted(set(centres), key=str):
        for index in range(subjects):
            draw = numpy_generator(seed, "phantom-brain", place, index, "person")
            yield _Patient(
                case=f"{place}_{index:03d}",
                place=place,
                index=index,
                side="imagesTr" if index < subjects - test else "imagesTs",
                disease=str(draw.choice(DISEASES, p=(0.5, 0.3, 0.2))),
                sex=str(draw.choice(("F", "M"))),
            )


def _affine(shape: tuple[int, ...], scanner: _Scanner, draw: np.random.Generator) -> np.ndarray:
    """An axial stack, the head near the middle of the scanner."""
    affine = np.diag([scanner.pixel, scanner.pixel, scanner.slices, 1.0])
    middle = (np.array(shape) - 1) / 2
    affine[:3, 3] = draw.normal(0, 5, 3) - affine[:3, :3] @ middle
    return affine


def _write_texts(release: Path, patients: Sequence[_Patient]) -> None:
    """``dataset.json`` and ``cases.csv``."""
    description = {
        "name": "BrainLesionPhantom",
        "channel_names": {str(number): name for number, name in enumerate(CHANNELS)},
        "labels": {"background": 0, STRUCTURE: 1},
        "numTraining": sum(one.side == "imagesTr" for one in patients),
        "file_ending": ".nii.gz",
    }
    (release / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")
    with (release / CASES).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("case", "site", "split", "disease", "sex"))
        rows.writerows((one.case, one.place, SIDES[one.side][1], one.disease, one.sex) for one in patients)
