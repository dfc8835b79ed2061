"""The embedded data: a made-up consortium of five centres, written as a release of the M&Ms challenge.

Nobody's heart: the patients are drawn from a seed (`heart`, `anatomy`), the pictures follow from the bSSFP signal
equation (`bssfp`). Folders, file names, table, labels and the habits of centres and vendors are those of the release
(Campello et al., IEEE Trans Med Imaging 40:3543-3554, 2021), so what runs on this runs on the real thing. One
departure: every centre has labelled training subjects, while in the release centres 4 and 5 have none; so any centres
can be federated.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.core.records import Subject, Volume
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.imaging.mnms.plausibility import PHASES, STRUCTURES
from fedprivseg.imaging.mnms.release import SPLITS
from fedprivseg.imaging.mnms.table import TABLE
from fedprivseg.imaging.nifti import write_nifti
from fedprivseg.imaging.phantom import anatomy, bssfp
from fedprivseg.imaging.phantom.heart import PATHOLOGIES, draw_heart

COLUMNS = (
    "",
    "External code",
    "VendorName",
    "Vendor",
    "Centre",
    "ED",
    "ES",
    "Age",
    "Pathology",
    "Sex",
    "Height",
    "Weight",
)


@dataclass(frozen=True)
class Centre:
    """Who scans how: vendor, protocol, grid (matrix; pixel and slice spacing, mm), turn of the picture in degrees."""

    vendor: str
    name: str
    sequence: bssfp.Sequence
    matrix: tuple[int, int]
    pixel: float
    spacing: float
    turn: float


# Vendors by centre are those of the release. The release states no sequence settings; these lie in the usual clinical
# range (TR 3-4 ms, TE = TR/2, flip 45-70 degrees). Centre 3 is at 3 T here, so that the two Philips centres differ.
CENTRES = {
    1: Centre("A", "Siemens", bssfp.Sequence(1.5, 3.0, 1.5, 65, 50, 0.0, 0.75, 340), (240, 208), 1.25, 10.0, 0),
    2: Centre("B", "Philips", bssfp.Sequence(1.5, 3.2, 1.6, 60, 40, 0.3, 0.85, 160), (240, 240), 1.25, 10.0, -8),
    3: Centre("B", "Philips", bssfp.Sequence(3.0, 3.1, 1.55, 45, 55, 0.25, 0.8, 210), (224, 224), 1.35, 8.0, 6),
    4: Centre("C", "GE", bssfp.Sequence(1.5, 3.7, 1.85, 50, 42, 0.2, 0.75, 850), (256, 256), 1.45, 10.0, 42),
    5: Centre("D", "Canon", bssfp.Sequence(1.5, 3.4, 1.7, 70, 36, 0.5, 0.80, 1500), (192, 192), 1.5, 9.0, 14),
}

# Image axes of a short-axis stack in NIfTI's right-anterior-superior frame: to the patient's left, to the back, to the
# base.
_SHORT_AXIS = np.array([[-0.90, 0.0, 0.44], [-0.28, -0.77, -0.57], [0.34, -0.64, 0.69]]).T

FEWEST_SUBJECTS = 2
FEWEST_FRAMES = 2


@dataclass(frozen=True)
class Person:
    """One row of the table, and where the files go.

    ed, es: 0-based frame indices, equal if nobody drew contours. height: cm. weight: kg. age: years.
    """

    centre: int
    index: int
    code: str
    folder: str
    labelled: bool
    ed: int
    es: int
    age: int
    pathology: str
    female: bool
    height: float
    weight: float


def announced(subjects: int, seed: int, centres: Sequence[int]) -> tuple[Subject, ...]:
    """Whom `write_phantom` would write with these arguments, without drawing anybody; their files do not exist."""
    frames = FEWEST_FRAMES
    return tuple(
        Subject(
            person.code,
            person.centre,
            SPLITS[person.folder][0],
            person.labelled,
            dict(zip(PHASES, (person.ed, person.es), strict=True)),
            Path(person.folder),
            Path(person.folder) if person.labelled else None,
            STRUCTURES,
        )
        for centre in sorted(set(centres))
        for person in _people(seed, centre, subjects, frames)
    )


def write_phantom(
    folder: Path,
    subjects: int,
    seed: int,
    *,
    centres: Sequence[int] = (1, 2, 3, 4, 5),
    frames: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the consortium as an M&Ms release and return `folder`.

    folder: absent or empty; it appears at once and whole, or not at all. subjects: labelled subjects per centre, 2 or
    more; a third of them is for testing, from 10 on a tenth for validation, the rest for training. Centre 4 has half as
    many more without labels. centres: which of 1 to 5. frames: phases of the cycle per subject, 2 or more; masks are
    filled at ED and ES. progress: called with (subjects written, subjects in all).

    Images are (X, Y, Z, T) int16, masks uint8 with 0 background, 1 LV, 2 MYO, 3 RV. Slices run from the apex to the
    base. The same arguments give the same bytes; a centre's files do not depend on which other centres are asked for.

    Raises RequestError for numbers out of range, FolderError if the folder holds anything or cannot be written.
    """
    folder = Path(folder)
    if subjects < FEWEST_SUBJECTS:
        raise RequestError(
            f"{subjects} subjects per centre: ask for {FEWEST_SUBJECTS} or more, one to train and one to test"
        )
    if frames < FEWEST_FRAMES:
        raise RequestError(f"{frames} frames per subject: ask for {FEWEST_FRAMES} or more, ED and ES must differ")
    unknown = sorted(set(centres) - set(CENTRES))
    if unknown or not centres:
        raise RequestError(
            f"centres {unknown or 'none'}: the phantom has centres {', '.join(map(str, CENTRES))}; name some"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderError("the folder for the phantom already holds something: name an empty or a new folder")

    people = [person for centre in sorted(set(centres)) for person in _people(seed, centre, subjects, frames)]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            release = Path(scratch) / "release"
            for done, person in enumerate(people, start=1):
                place = release / person.folder / person.code
                place.mkdir(parents=True)
                image, mask, affine = draw_subject(seed, person, frames)
                write_nifti(place / f"{person.code}_sa.nii.gz", image, affine)
                write_nifti(place / f"{person.code}_sa_gt.nii.gz", mask, affine)
                if progress is not None:
                    progress(done, len(people))
            _write_table(release / TABLE, people)
            release.rename(folder)  # an empty folder gives way to a full one in one step
    except OSError as fault:
        raise FolderError(
            f"the folder for the phantom cannot be written ({fault.strerror or type(fault).__name__}); check rights and room"
        ) from fault
    return folder


def draw_subject(
    seed: int, person: Person, frames: int, centre: Centre | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (X, Y, Z, T) int16, mask (X, Y, Z, T) uint8 and affine (4, 4) voxel to mm of one person, scanned as the person's
    centre does, or as `centre`."""
    centre = centre or CENTRES[person.centre]

    def generator(purpose: str) -> np.random.Generator:
        return numpy_generator(seed, "phantom", person.centre, person.index, purpose)

    size = (person.height / 170) ** 0.7
    fatness = float(np.clip(person.weight / (person.height / 100) ** 2 / 25, 0.7, 1.4))
    heart = draw_heart(generator("heart"), person.pathology, size)
    body = anatomy.draw_body(generator("body"), size, fatness, person.female)
    draw = generator("stack")

    # The stack: from a slice or so below the apex to one or two above the base.
    pixel = centre.pixel * draw.uniform(0.95, 1.05)
    first = -centre.spacing * draw.uniform(0.7, 1.6)
    slices = int(np.ceil((heart.length - first) / centre.spacing + draw.uniform(0.6, 1.6)))
    heights = first + centre.spacing * np.arange(slices)
    within = (np.arange(anatomy.PLANES) - (anatomy.PLANES - 1) / 2) / anatomy.PLANES * min(centre.spacing, 8.0)
    planes = heights[:, None] + within

    # In the plane: the heart lies a few cm from the middle of the picture, the patient is turned as the centre's habit
    # is, and every slice is a breath-hold of its own, so it is shifted a little.
    turn = np.deg2rad(centre.turn + draw.normal(0, 5))
    offset = draw.normal((6, -10), (8, 8)).clip(-28, 28)
    breath = draw.normal(0, 1.1, (slices, 2)).clip(-3, 3)
    axes = [(np.arange(count) - (count - 1) / 2) * pixel for count in centre.matrix]
    u = axes[0][None, :, None] - offset[0] - breath[:, 0, None, None]
    v = axes[1][None, None, :] - offset[1] - breath[:, 1, None, None]
    p = (np.cos(turn) * u + np.sin(turn) * v).astype(np.float32)
    q = (np.cos(turn) * v - np.sin(turn) * u).astype(np.float32)

    signals = bssfp.tissue_signals(centre.sequence)
    texture = generator("texture")
    chest = np.stack(
        [
            anatomy.paint_chest(p[z], q[z], height / heart.length, pixel, body, signals, texture)
            for z, height in enumerate(heights)
        ]
    )
    painter = anatomy.HeartPainter(heart, chest, p, q, planes, pixel, signals, generator("grain"))
    signal = np.empty((frames, *chest.shape), np.float32)
    mask = np.zeros(signal.shape, np.uint8)
    for frame, phase in enumerate(_phases(frames)):
        at = (frame + person.ed) % frames
        signal[at], labels = painter.paint(float(phase))
        if person.labelled and at in (person.ed, person.es):
            mask[at] = labels

    # An anterior array and a weaker, because more distant, one in the table.
    angles = np.deg2rad([-140, -112, -84, -56, -28, 60, 90, 120]) + draw.normal(0, 0.1)
    away = np.array([15, 12, 12, 12, 15, 45, 45, 45])
    x, y = body.centre
    coils = np.stack([x + (body.axes[0] + away) * np.cos(angles), y + (body.axes[1] + away) * np.sin(angles)], axis=1)
    signal *= bssfp.coil_field(p[0], q[0], coils, 90.0, centre.sequence.flatness)
    image = bssfp.acquire(signal, centre.sequence, generator("noise"))
    return (
        np.ascontiguousarray(image.transpose(2, 3, 1, 0)),
        np.ascontiguousarray(mask.transpose(2, 3, 1, 0)),
        _affine(draw, turn, pixel, centre, slices),
    )


def passer_by(seed: int, index: int) -> dict[str, Volume]:
    """A patient of no centre, at ED and ES, on a scanner that is drawn too: field, sequence, coil correction, noise, matrix,
    voxels and the turn of the picture lie anywhere in the clinical range, and not where one of `CENTRES` has them.

    Args:
        seed: of the whole crowd.
        index: which of them.
    """
    draw = numpy_generator(seed, "phantom", "passer-by", index)
    tr = float(draw.uniform(2.7, 4.2))
    sequence = bssfp.Sequence(
        field=float(draw.choice((1.5, 3.0))),
        tr=tr,
        te=tr / 2,
        flip=float(draw.uniform(30, 80)),
        snr=float(np.exp(draw.uniform(np.log(10), np.log(60)))),
        flatness=float(draw.uniform(0, 1)),
        detail=float(draw.uniform(0.55, 1)),
        gain=400,
    )
    side = int(draw.integers(12, 17)) * 16
    centre = Centre(
        "", "", sequence, (side, side), float(draw.uniform(1.1, 1.8)), float(draw.uniform(7, 12)), draw.uniform(-60, 60)
    )
    female = bool(draw.random() < 0.5)
    height = float(np.clip(draw.normal(170, 12), 145, 200))
    person = Person(
        centre=0,
        index=index,
        code="",
        folder="",
        labelled=True,
        ed=0,
        es=1,
        age=0,
        pathology=str(draw.choice(PATHOLOGIES)),
        female=female,
        height=height,
        weight=float(np.clip(draw.normal(26, 5), 17, 40) * (height / 100) ** 2),
    )
    image, mask, affine = draw_subject(seed, person, FEWEST_FRAMES, centre)
    return {
        name: Volume(np.ascontiguousarray(image[..., at], np.float32), np.ascontiguousarray(mask[..., at]), affine)
        for at, name in enumerate(PHASES)
    }


def _phases(frames: int) -> np.ndarray:
    """How far the heart has contracted in every frame from ED on: 0 at first, 1 at ES, then back towards 0."""
    systole = _systole(frames)
    time = np.arange(frames)
    fall = (time - systole) / (frames - systole)
    return np.where(time <= systole, 0.5 - 0.5 * np.cos(np.pi * time / systole), 0.5 + 0.5 * np.cos(np.pi * fall))


def _systole(frames: int) -> int:
    """Frames from ED to ES: systole takes about 0.35 of the cycle."""
    return max(1, round(0.35 * frames))


def _people(seed: int, centre: int, subjects: int, frames: int) -> Iterator[Person]:
    """The people of one centre, in order: labelled training, validation, testing, then centre 4's unlabelled ones."""
    test = max(1, round(subjects / 3))
    validation = subjects // 10
    train = subjects - test - validation
    unlabelled = max(1, subjects // 2) if centre == 4 else 0
    folders = ["Training/Labeled"] * train + ["Validation"] * validation + ["Testing"] * test
    folders += ["Training/Unlabeled"] * unlabelled
    for index, folder in enumerate(folders):
        draw = numpy_generator(seed, "phantom", centre, index, "person")
        labelled = folder != "Training/Unlabeled"
        female = bool(draw.random() < 0.38)
        height = float(np.clip(draw.normal(164 if female else 176, 7), 148, 198))
        ed = 0 if draw.random() < 0.8 else frames - 1  # the trigger sometimes comes late
        yield Person(
            centre=centre,
            index=index,
            code=_code(seed, centre, index),
            folder=folder,
            labelled=labelled,
            ed=ed if labelled else 0,
            es=(ed + _systole(frames)) % frames if labelled else 0,
            age=int(np.clip(draw.normal(52, 16), 18, 85)),
            pathology=str(draw.choice(PATHOLOGIES, p=(0.34, 0.16, 0.2, 0.1, 0.1, 0.1))),
            female=female,
            height=height,
            weight=float(np.clip(draw.normal(26, 3.5), 18, 38) * (height / 100) ** 2),
        )


def _code(seed: int, centre: int, index: int) -> str:
    """A code such as A4P3H2, by an affine map of all codes onto themselves: unique whichever centres are written."""
    codes = 26**3 * 10**3
    draw = numpy_generator(seed, "phantom", "codes")
    step, start = int(draw.integers(codes // 3, codes)), int(draw.integers(codes))
    while gcd(step, codes) != 1:
        step += 1
    number = ((centre * 1_000_000 + index) * step + start) % codes
    code = ""
    for _ in range(3):
        number, digit = divmod(number, 10)
        number, letter = divmod(number, 26)
        code += chr(ord("A") + letter) + str(digit)
    return code


def _affine(draw: np.random.Generator, turn: float, pixel: float, centre: Centre, slices: int) -> np.ndarray:
    """An oblique voxel-to-mm affine: the short axis of a heart that lies as hearts do, some degrees more or less."""
    axes = Rotation.from_matrix(_SHORT_AXIS) * Rotation.from_euler("z", -turn)
    axes = Rotation.from_rotvec(draw.normal(0, 0.08, 3)) * axes
    affine = np.eye(4)
    affine[:3, :3] = axes.as_matrix() * (pixel, pixel, centre.spacing)
    middle = np.array([(centre.matrix[0] - 1) / 2, (centre.matrix[1] - 1) / 2, (slices - 1) / 2])
    affine[:3, 3] = draw.normal((-25, 15, 0), 12) - affine[:3, :3] @ middle
    return affine


def _write_table(path: Path, people: Sequence[Person]) -> None:
    """The release's table, by code. As in the release, height is often and weight sometimes missing."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for number, person in enumerate(sorted(people, key=lambda person: person.code)):
            centre = CENTRES[person.centre]
            rows.writerow(
                [
                    number,
                    person.code,
                    centre.name,
                    centre.vendor,
                    person.centre,
                    person.ed,
                    person.es,
                    person.age,
                    person.pathology,
                    "F" if person.female else "M",
                    "" if person.index % 5 < 3 else round(person.height),
                    "" if person.index % 5 == 1 else round(person.weight),
                ]
            )
