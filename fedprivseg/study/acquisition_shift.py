"""A simulated difference between the sites' scanners: contrast, coil, sharpness, noise and matrix of each site, drawn once.

A release that was dealt at random to simulated sites has one distribution at all of them, and methods that answer to
differences between sites then answer to nothing. With ``[shift]`` in a scenario the simulation writes a copy of the release
into the cache. In it each site's images, for training and for testing, are as another scanner might have made them; the masks
stay as they are. The sites read that copy. A site's own program knows nothing of it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from fedprivseg.core.cache import cache_folder
from fedprivseg.core.comparison_config import ShiftConfig
from fedprivseg.core.config import Scenario, SiteConfig
from fedprivseg.core.errors import FolderError
from fedprivseg.core.records import Subject
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.imaging.geometry import Limits
from fedprivseg.imaging.nifti import read_geometry

FORMAT = 1
"""Raise it whenever `shifted` changes: copies of another format are never read."""

RECORD = "shift.json"
"""A file of the copy: what was drawn for each centre."""


@dataclass(frozen=True)
class Shift:
    """How one site's scanner differs, drawn from the ranges of `ShiftConfig`.

    Attributes:
        gamma: exponent of the intensities between the frame's 1st and 99th percentile.
        bias: the coil's field is exp(bias * f), f in -1..1 over the slice.
        field: the five coefficients of f, of x, y, x^2, y^2 and x y, x and y in -1..1.
        blur_mm: standard deviation of a Gaussian blur in the plane of a slice.
        noise: standard deviation of the complex noise, as a share of the same range of intensities.
        resolution: by how much the acquired matrix is smaller along either side: k-space beyond it is empty.
    """

    gamma: float
    bias: float
    field: tuple[float, ...]
    blur_mm: float
    noise: float
    resolution: float

    @property
    def words(self) -> str:
        """Its numbers in a phrase."""
        return (
            f"gamma {self.gamma:.2f}, bias {self.bias:.2f}, blur {self.blur_mm:.2f} mm, noise {self.noise:.3f}, "
            f"resolution 1/{self.resolution:.2f}"
        )


def draw_shifts(config: ShiftConfig, seed: int, sites: Sequence[SiteConfig]) -> dict[str, Shift]:
    """What the scanner of each site does to its images.

    Of n sites each takes another n-th of every range (a Latin hypercube: McKay, Beckman and Conover, Technometrics 21(2):239,
    1979), so that few sites differ as the ranges say, whatever the seed. Of gamma the logarithm is uniform: twice and half are
    as likely.

    Args:
        config: the ranges; its strength is not "none".
        seed: ``data.seed``, not the run's: runs of different seeds share their images.
        sites: of the scenario; those of one centre have one scanner.

    Returns:
        Centre, as text -> its shift.
    """
    places = sorted({str(site.place) for site in sites})
    shares = {}
    for name in ShiftConfig.MEASURES:
        generator = numpy_generator(seed, "acquisition shift", name)
        shares[name] = (generator.permutation(len(places)) + generator.random(len(places))) / len(places)
    found = {}
    for number, place in enumerate(places):
        values = {}
        for name in ShiftConfig.MEASURES:
            low, high = config.drawn_from(name)
            share = float(shares[name][number])
            values[name] = low * (high / low) ** share if name == "gamma" else low + (high - low) * share
        field = numpy_generator(seed, "acquisition field", place).normal(size=5)
        found[place] = Shift(field=tuple(float(value) for value in field), **values)
    return found


def shifted(
    image: np.ndarray, spacing: tuple[float, float, float], shift: Shift, generator: np.random.Generator
) -> np.ndarray:
    """One frame as the site's scanner would have made it.

    In this order: contrast, coil, blur, matrix, noise. Noise is Rician, that of the magnitude of a complex image (Gudbjartsson
    and Patz, Magnetic Resonance in Medicine 34(6):910, 1995).

    Args:
        image: (X, Y, Z) of real numbers, scanner units.
        spacing: mm along X, Y, Z.
        shift: of the site.
        generator: of the noise of this frame.

    Returns:
        (X, Y, Z) float32 in scanner units; a frame without a picture comes back as it is.
    """
    from scipy.ndimage import gaussian_filter

    low, high = (float(value) for value in np.percentile(image, (1, 99)))
    if not high > low:
        return np.asarray(image, np.float32)
    picture = np.clip((np.asarray(image, np.float64) - low) / (high - low), 0, None) ** shift.gamma
    picture = picture * np.exp(shift.bias * _field(image.shape[:2], shift.field))[..., None]
    picture = gaussian_filter(picture, [shift.blur_mm / spacing[0], shift.blur_mm / spacing[1], 0])
    picture = _acquired(picture, shift.resolution)
    real, imaginary = shift.noise * generator.normal(size=(2, *picture.shape))
    return np.asarray(low + (high - low) * np.hypot(picture + real, imaginary), np.float32)


def _field(shape: tuple[int, ...], coefficients: Sequence[float]) -> np.ndarray:
    """A smooth field (X, Y) float64 of which the largest deviation from its mean is 1."""
    x, y = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    found = sum(value * each for value, each in zip(coefficients, (x, y, x * x, y * y, x * y), strict=True))
    centred = np.asarray(found - np.mean(found))
    return centred / (np.abs(centred).max() or 1.0)


def _acquired(picture: np.ndarray, resolution: float) -> np.ndarray:
    """The slices (X, Y, Z) without the spatial frequencies that a matrix smaller by `resolution` does not hold."""
    spectrum = np.fft.fft2(picture, axes=(0, 1))
    for axis in (0, 1):
        beyond = np.abs(np.fft.fftfreq(picture.shape[axis])) > 0.5 / resolution
        spectrum[(slice(None),) * axis + (beyond,)] = 0
    return np.asarray(np.abs(np.fft.ifft2(spectrum, axes=(0, 1))))


# --- the copy of a release ---------------------------------------------------------------------------------------------


def shift_notes(scenario: Scenario) -> tuple[str, ...]:
    """What was drawn, as a sentence for the result; nothing without a shift."""
    if scenario.shift.strength == "none":
        return ()
    shifts = draw_shifts(scenario.shift, scenario.data.seed, scenario.sites)
    each = (f"{site.name}: {shifts[str(site.place)].words}" for site in scenario.sites)
    return (f"simulated acquisition shift ({scenario.shift.strength}): {'; '.join(each)}",)


def shifted_release(release: Path, scenario: Scenario, subjects: Sequence[Subject], limits: Limits) -> Path:
    """The copy of `release` in the cache with the shift of `scenario`; made if it is not there.

    Its name is the SHA-256 of what was drawn and of every file of the release. Files that are no image of the scenario's sites
    are the release's own (hard links where the disk allows it).

    Args:
        release: a folder.
        scenario: with a shift; its sites.
        subjects: those of the release.
        limits: what sizes its images can have.

    Returns:
        A folder of the same layout.

    Raises:
        FolderError: the cache cannot be written.
        DataError: an image has a fault.
    """
    shifts = draw_shifts(scenario.shift, scenario.data.seed, scenario.sites)
    drawn = {place: asdict(shift) for place, shift in shifts.items()}
    files = sorted(path for path in release.rglob("*") if path.is_file())
    total = hashlib.sha256(json.dumps([FORMAT, drawn]).encode())
    for path in files:
        total.update(f"{path.relative_to(release)}\n".encode())
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    place = (cache_folder() / f"shifted-{total.hexdigest()[:24]}").resolve()
    if place.exists():
        return place
    own = {one.image.resolve(): one for one in subjects if str(one.centre) in shifts}
    draft = place.with_name(f"{place.name}.draft-{os.getpid()}")
    try:
        for path in files:
            target = draft / path.relative_to(release)
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            one = own.get(path.resolve())
            if one is None:
                _same(path, target)
                continue
            target.write_bytes(_image(one, shifts[str(one.centre)], scenario.data.seed, limits))
        (draft / RECORD).write_text(json.dumps(drawn, indent=1))
        try:
            draft.rename(place)
        except OSError:
            if not place.exists():  # otherwise another process has made the same meanwhile
                raise
    except OSError as fault:
        raise FolderError(f"the shifted copy {draft} cannot be written ({fault.strerror}); make room there") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def _same(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(path, target)


def _image(subject: Subject, shift: Shift, seed: int, limits: Limits) -> bytes:
    """The file of a subject's image, all frames shifted: 16 bits a voxel, the header's geometry kept."""
    geometry = read_geometry(subject.image, limits)
    packed = subject.image.read_bytes()
    body = gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed
    kind = nib.Nifti2Image if int.from_bytes(body[:4], "little") == nib.Nifti2Header.sizeof_hdr else nib.Nifti1Image
    image = kind.from_bytes(body)
    voxels = image.get_fdata(dtype=np.float32)
    stack = voxels.reshape(*voxels.shape[:3], -1)
    found = np.empty_like(stack)
    for frame in range(stack.shape[3]):
        noise = numpy_generator(seed, "acquisition noise", str(subject.centre), subject.code, frame)
        made = shifted(geometry.slices_last(stack[..., frame]), geometry.spacing, shift, noise)
        found[..., frame] = geometry.stored(made)
    header = image.header.copy()
    header.set_data_dtype(np.int16)
    written = kind(found.reshape(voxels.shape), None, header).to_bytes()
    return gzip.compress(written, compresslevel=1, mtime=0) if packed is not body else written
