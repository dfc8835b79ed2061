"""From a folder of DICOM images to de-identified DICOM and NIfTI.

Collection under minimal necessity (T/SCGS 313008-2024 clauses 5.1.1, 5.1.2-c and 5.1.2-d): of a header only what
`dicom_record` lists is read out, and everything else of it goes through `dicom_headers`. Conversion is by dcm2niix, which sees
the de-identified images alone; what it writes goes through `scrub`.

A folder is taken as a whole or not at all (`dicom_folder`).
"""

from __future__ import annotations

import math
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import nibabel as nib

from fedprivseg.core.errors import DataError, RequestError
from fedprivseg.imaging.dicom.concerns import BODY_PARTS, FACE_PARTS, Concern, level, term
from fedprivseg.imaging.dicom.header_record import Record
from fedprivseg.imaging.dicom.headers import Deidentifier
from fedprivseg.imaging.dicom.library import library, quiet
from fedprivseg.imaging.dicom.series import Image, read_folder
from fedprivseg.imaging.new_folder import new_folder
from fedprivseg.imaging.scrub import scrub_file

TIMEOUT_S = 600.0
"""How long dcm2niix may take for one series."""


@dataclass(frozen=True)
class Series:
    """One series of images, de-identified.

    record: the fields of `dicom_record`, a value or None where unknown. concerns: what raises its level. dicom, nifti: the
    files, by number; there is more than one NIfTI where dcm2niix found phases, echoes or orientations apart. sidecars:
    dcm2niix's JSON, one for each NIfTI. removed: the attributes that were taken out or emptied, as `Deidentifier.apply` says.
    """

    record: Record
    concerns: tuple[Concern, ...]
    dicom: tuple[Path, ...]
    nifti: tuple[Path, ...]
    sidecars: tuple[Path, ...]
    removed: tuple[str, ...]

    @property
    def level(self) -> int:
        """The level of clause 5.5 that these images have at least."""
        return level(self.concerns)


@dataclass(frozen=True)
class Import:
    """What came of a folder: its `series`, and a `history` of what was done, oldest first."""

    series: tuple[Series, ...]
    history: tuple[str, ...]


def import_dicom(
    source: Path,
    target: Path,
    pseudonym: str,
    secret: bytes,
    *,
    body_part: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Import:
    """De-identify and convert the DICOM images in `source` and its subfolders into the new folder `target`.

    `target` gets ``dicom/series1/1.dcm`` and so on, and ``nifti/series1.nii.gz`` with ``series1.json``; it is there as a whole
    or not at all. pseudonym, secret: see `Deidentifier`. body_part: what the site itself states, a term of ``BODY_PARTS`` or
    ``FACE_PARTS``, for series whose header names no known one. timeout_s: for the conversion of one series.

    Raises DataError for a folder that is absent or empty, holds anything but DICOM images of one patient, or cannot be
    converted; FolderError if `target` exists or cannot be written; RequestError for other arguments or if a package is missing.
    """
    converter = str(library("dcm2niix").bin)
    stated = None if body_part is None else _stated(body_part)
    deidentifier = Deidentifier(pseudonym, secret)
    _seconds(timeout_s)
    with quiet():
        found = read_folder(source, stated)
        if len(found) != 1:
            raise DataError(
                f"the folder holds images of {len(found)} patients, and one pseudonym was given. "
                "Give one folder for each patient."
            )
        (images,) = found.values()
        with new_folder(target) as part:
            series = [
                _series(number, each, part, deidentifier, converter, timeout_s)
                for number, each in enumerate(images, start=1)
            ]
    return Import(tuple(_moved(one, part, target) for one in series), _history(deidentifier))


@dataclass(frozen=True)
class Patient:
    """One patient of a folder. code: the pseudonym."""

    code: str
    imported: Import

    @property
    def level(self) -> int:
        """The level of clause 5.5 that the patient's images have at least."""
        return max(series.level for series in self.imported.series)


def import_patients(
    source: Path,
    target: Path,
    pseudonym: Callable[[str], str],
    secret: bytes,
    describe: Callable[[tuple[Patient, ...]], tuple[str, str]],
    *,
    body_part: str | None = None,
    timeout_s: float = TIMEOUT_S,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Patient, ...]:
    """Like `import_dicom` for the images of any number of patients: each gets a folder of `target` under the pseudonym that
    ``pseudonym`` makes of the code, or the name, in the header.

    describe: the name and the text of a file that tells of the patients; it stands in `target` when `target` is there.
    progress: ``progress(done, total)`` after each series. Raises what `import_dicom` raises, and DataError for images that
    name no patient.
    """
    converter = str(library("dcm2niix").bin)
    stated = None if body_part is None else _stated(body_part)
    _seconds(timeout_s)
    with quiet():
        found = read_folder(source, stated)
        if ("", "") in found:
            nameless = sum(len(images) for images in found["", ""])
            raise DataError(
                f"{nameless} images name no patient, neither by code nor by name, so nobody can say whose they are. "
                "Nothing was imported. Take them out, or export them again."
            )
        done, total = 0, sum(len(each) for each in found.values())
        with new_folder(target) as part:
            patients = []
            for (code, name), images in found.items():
                stands_for = pseudonym(code or name)
                deidentifier = Deidentifier(stands_for, secret)
                home = part / stands_for
                home.mkdir()
                series = []
                for number, each in enumerate(images, start=1):
                    series.append(_series(number, each, home, deidentifier, converter, timeout_s))
                    done += 1
                    if progress is not None:
                        progress(done, total)
                patients.append(Patient(stands_for, Import(tuple(series), _history(deidentifier))))
            patients.sort(key=lambda patient: patient.code)
            moved = tuple(
                replace(
                    one,
                    imported=replace(
                        one.imported, series=tuple(_moved(each, part, target) for each in one.imported.series)
                    ),
                )
                for one in patients
            )
            file, text = describe(moved)
            (part / file).write_text(text, encoding="utf-8")
    return moved


def _history(deidentifier: Deidentifier) -> tuple[str, ...]:
    return (
        deidentifier.history,
        f"converted to NIfTI by dcm2niix {library('dcm2niix').__version__}",
        "text in NIfTI headers cleared",
    )


def _seconds(timeout_s: float) -> None:
    if not timeout_s > 0:
        raise RequestError(f"timeout_s is {timeout_s!r}; a number of seconds above zero is needed.")


# --- one series ------------------------------------------------------------------------------------------------------


def _series(
    number: int,
    images: Sequence[Image],
    part: Path,
    deidentifier: Deidentifier,
    converter: str,
    timeout_s: float,
) -> Series:
    raised = tuple(sorted({concern for image in images for concern in image.concerns}))
    record = replace(images[0].record, images=sum(image.record.images for image in images))
    dicom, removed = _deidentified(images, part / "dicom" / f"series{number}", deidentifier)
    nifti, sidecars = _converted(dicom, part / "nifti", f"series{number}", converter, timeout_s)
    _complete(images, nifti)
    return Series(record, raised, dicom, nifti, sidecars, removed)


def _deidentified(
    images: Sequence[Image], folder: Path, deidentifier: Deidentifier
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The images of one series, de-identified, as ``1.dcm`` and so on in the new `folder`; and what was taken out of any."""
    folder.mkdir(parents=True)
    written: list[Path] = []
    removed: set[str] = set()
    for number, image in enumerate(images, start=1):
        done = _rewritten(image.path, deidentifier)
        if done is not None:
            body, gone = done
            removed |= gone
            written.append(folder / f"{number}.dcm")
            written[-1].write_bytes(body)
    unfit = len(images) - len(written)
    if unfit:
        raise DataError(
            f"{unfit} of {len(images)} images of a series cannot be de-identified: they are damaged, their pixel data is cut "
            "short, or their kind or transfer syntax is a private one. Nothing was imported. Export them again."
        )
    return tuple(written), tuple(sorted(removed))


def _rewritten(path: Path, deidentifier: Deidentifier) -> tuple[bytes, frozenset[str]] | None:
    """The de-identified file and what was taken out, or None if the image is unfit."""
    stream = BytesIO()
    try:
        dataset = library("pydicom").dcmread(path)
        removed = deidentifier.apply(dataset)
        dataset.save_as(stream, enforce_file_format=True)
    except Exception:
        # Whatever reader and writer stumble over, their message may quote the file.
        return None
    return stream.getvalue(), removed


def _converted(
    dicom: Sequence[Path], folder: Path, name: str, converter: str, timeout_s: float
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """NIfTI files and sidecars of the de-identified images of one series, ``<name>.nii.gz`` or ``<name>-1.nii.gz`` and on."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=folder) as work:
        output = Path(work, "out")
        output.mkdir()
        status = _run(converter, dicom[0].parent, output, timeout_s)
        made = sorted(output.glob("*.nii"))
        nifti, sidecars = [], []
        try:
            if status or not made:
                raise DataError("nothing, or not everything, was converted")
            for number, path in enumerate(made, start=1):
                stem = name if len(made) == 1 else f"{name}-{number}"
                nifti.append(folder / f"{stem}.nii.gz")
                scrub_file(path, nifti[-1])
                if path.with_suffix(".json").is_file():
                    sidecars.append(folder / f"{stem}.json")
                    path.with_suffix(".json").replace(sidecars[-1])
        except DataError:
            raise DataError(
                f"dcm2niix could not convert a series of {len(dicom)} images (exit status {status}, {len(made)} files). "
                "Nothing was imported. Leave the series out, or export it again."
            ) from None
    return tuple(nifti), tuple(sidecars)


def _run(converter: str, images: Path, output: Path, timeout_s: float) -> int:
    """The exit status of dcm2niix on the folder `images`; what it prints is thrown away."""
    # A fixed name, so that no attribute gets into one. -ba y: no dates and names in the sidecar. -g i: no defaults file.
    words = [converter, "-g", "i", "-b", "y", "-ba", "y", "-f", "image", "-z", "n", "-w", "2", "-d", "0"]
    try:
        return subprocess.run(
            [*words, "-o", str(output.resolve()), str(images.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=output,
            env={"HOME": str(output.resolve()), "LC_ALL": "C"},
            timeout=timeout_s,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        raise DataError(
            f"dcm2niix did not finish a series in {timeout_s:g} s. Nothing was imported. Allow more time, or leave it out."
        ) from None
    except OSError as fault:
        raise RequestError(
            f"dcm2niix cannot be started ({fault.strerror or type(fault).__name__}). Install the extra fedprivseg[dicom] again."
        ) from None


def _complete(images: Sequence[Image], nifti: Sequence[Path]) -> None:
    """Raises DataError if the NIfTI files hold fewer pixels than the images."""
    wanted = sum(image.pixels for image in images)
    held = sum(math.prod(nib.Nifti1Image.from_filename(path).shape) for path in nifti)
    if held < wanted:
        raise DataError(
            f"dcm2niix left out some of a series of {len(images)} images ({held} of {wanted} pixels came through). Nothing was "
            "imported. Leave the series out, or export it again."
        )


def _moved(series: Series, part: Path, target: Path) -> Series:
    """`series` with its files where the rename put them."""

    def there(paths: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(target / path.relative_to(part) for path in paths)

    return replace(series, dicom=there(series.dicom), nifti=there(series.nifti), sidecars=there(series.sidecars))


def _stated(part: str) -> str:
    known = BODY_PARTS | FACE_PARTS
    if term(part) not in known:
        raise RequestError(f"{part[:40]!r} is no body part that is known here; known are: {', '.join(sorted(known))}.")
    return term(part)
