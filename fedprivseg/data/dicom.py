"""From a folder of DICOM images of one patient to de-identified DICOM and NIfTI.

Collection under minimal necessity (T/SCGS 313008-2024 clauses 5.1.1, 5.1.2-c and 5.1.2-d): of a header only what
`dicom_record` lists is read out, and everything else of it goes through `dicom_headers`. Conversion is by dcm2niix, which sees
the de-identified images alone; what it writes goes through `scrub`.

Nothing in the folder is trusted. File names are neither used nor told, links are not followed, and one file that is no DICOM
image refuses the whole folder: what cannot be read cannot be vouched for.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import nibabel as nib

from fedprivseg.data.dicom_concerns import BODY_PARTS, FACE_PARTS, Concern, concerns, level, term
from fedprivseg.data.dicom_headers import Deidentifier
from fedprivseg.data.dicom_library import library, quiet
from fedprivseg.data.dicom_record import Record, header_record
from fedprivseg.data.scrub import scrub_file
from fedprivseg.errors import DataError, FolderError, RequestError

TIMEOUT_S = 600.0
"""How long dcm2niix may take for one series."""


@dataclass(frozen=True)
class Series:
    """One series of images, de-identified.

    record: the fields of `dicom_record`, a value or None where unknown. concerns: what raises its level. dicom, nifti: the
    files, by number; there is more than one NIfTI where dcm2niix found phases, echoes or orientations apart. sidecars:
    dcm2niix's JSON, one for each NIfTI.
    """

    record: Record
    concerns: tuple[Concern, ...]
    dicom: tuple[Path, ...]
    nifti: tuple[Path, ...]
    sidecars: tuple[Path, ...]

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
    deidentifier = Deidentifier(pseudonym, secret)
    converter = str(library("dcm2niix").bin)
    stated = None if body_part is None else _stated(body_part)
    if not timeout_s > 0:
        raise RequestError(f"timeout_s is {timeout_s!r}; a number of seconds above zero is needed.")
    with quiet():
        found = _read(source, stated)
        with _whole_folder(target) as part:
            series = tuple(
                _series(number, images, part, deidentifier, converter, timeout_s)
                for number, images in enumerate(found, start=1)
            )
    history = (
        deidentifier.history,
        f"converted to NIfTI by dcm2niix {library('dcm2niix').__version__}",
        "text in NIfTI headers cleared",
    )
    return Import(tuple(_moved(one, part, target) for one in series), history)


# --- the folder ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Image:
    """A file and what is needed of its header. It names patient and file, and never leaves this module.

    order: where it stands in its series.
    """

    path: Path
    patient: tuple[str, str]
    series: str
    instance: str
    order: int
    pixels: int
    record: Record
    concerns: tuple[Concern, ...]


def _read(source: Path, stated: str | None) -> list[list[_Image]]:
    """The images in `source`, by series, in order."""
    faults: Counter[str] = Counter()
    images: list[_Image] = []
    for path in _files(source):
        image = _image(path, stated)
        if isinstance(image, str):
            faults[image] += 1
        else:
            images.append(image)
    total = len(images) + faults.total()
    if not total:
        raise DataError("the folder is absent, or holds no files; give the folder that holds the DICOM images.")
    faults["are copies of others"] = len(images) - len({image.instance for image in images})
    found = [f"{count} {words}" for words, count in sorted(faults.items()) if count]
    if found:
        raise DataError(
            f"of {total} files, {', '.join(found)}. Nothing was imported: take out what is no DICOM image (also DICOMDIR, "
            "reports and hidden files) and give a folder of images alone."
        )
    patients = len({image.patient for image in images})
    if patients != 1:
        raise DataError(
            f"the folder holds images of {patients} patients, and one pseudonym was given. Give one folder for each patient."
        )
    by_series: dict[str, list[_Image]] = {}
    for image in images:
        by_series.setdefault(image.series, []).append(image)
    return [sorted(by_series[uid], key=lambda image: (image.order, image.instance)) for uid in sorted(by_series)]


def _files(source: Path) -> Iterator[Path]:
    def unreadable(fault: OSError) -> None:
        raise DataError(
            f"a folder within the folder cannot be read ({fault.strerror or type(fault).__name__})."
        ) from None

    if not source.is_dir():
        return
    for folder, folders, names in os.walk(source, onerror=unreadable, followlinks=False):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in [*names, *links]:
            yield Path(folder, name)


def _image(path: Path, stated: str | None) -> _Image | str:
    """The DICOM image at `path`, or what is wrong with it in words that go with a number."""
    pydicom = library("pydicom")
    if path.is_symlink() or not path.is_file():
        return "are links or no plain files"
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        needed = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns")
        if not all(header.get(keyword) for keyword in needed):
            return "are DICOM files without a picture"
        code = str(header.get("PatientID") or "").strip()
        record = header_record(header, stated)
        return _Image(
            path=path,
            patient=(code, "") if code else ("", str(header.get("PatientName") or "").strip()),
            series=str(header.SeriesInstanceUID),
            instance=str(header.SOPInstanceUID),
            order=int(header.get("InstanceNumber") or 0),
            pixels=record.rows * record.columns * record.images,
            record=record,
            concerns=concerns(header, stated),
        )
    except library("pydicom.errors").InvalidDicomError:
        return "are no DICOM files"
    except Exception:
        # A damaged file can make the reader raise anything, and its message may quote the file.
        return "are damaged DICOM files"


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that only its owner reads, renamed to `target` at the end; gone if anything fails."""
    if target.exists() or target.is_symlink():
        raise FolderError(f"the folder {target.name!r} exists already; name a new one, or move the old one away first.")
    try:
        part = Path(tempfile.mkdtemp(prefix=".import-", dir=target.parent))
    except OSError as fault:
        raise FolderError(_unwritable(fault)) from None
    try:
        yield part
        part.rename(target)
    except OSError as fault:
        raise FolderError(_unwritable(fault)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unwritable(fault: OSError) -> str:
    return (
        f"the folder for the import cannot be written ({fault.strerror or type(fault).__name__}); the folder above it must "
        "exist and be writable and the disk must have room."
    )


# --- one series ------------------------------------------------------------------------------------------------------


def _series(
    number: int,
    images: Sequence[_Image],
    part: Path,
    deidentifier: Deidentifier,
    converter: str,
    timeout_s: float,
) -> Series:
    raised = tuple(sorted({concern for image in images for concern in image.concerns}))
    record = replace(images[0].record, images=sum(image.record.images for image in images))
    dicom = _deidentified(images, part / "dicom" / f"series{number}", deidentifier)
    nifti, sidecars = _converted(dicom, part / "nifti", f"series{number}", converter, timeout_s)
    _complete(images, nifti)
    return Series(record, raised, dicom, nifti, sidecars)


def _deidentified(images: Sequence[_Image], folder: Path, deidentifier: Deidentifier) -> tuple[Path, ...]:
    """The images of one series, de-identified, as ``1.dcm`` and so on in the new `folder`."""
    folder.mkdir(parents=True)
    written = []
    for number, image in enumerate(images, start=1):
        body = _rewritten(image.path, deidentifier)
        if body is not None:
            written.append(folder / f"{number}.dcm")
            written[-1].write_bytes(body)
    unfit = len(images) - len(written)
    if unfit:
        raise DataError(
            f"{unfit} of {len(images)} images of a series cannot be de-identified: they are damaged, their pixel data is cut "
            "short, or their kind or transfer syntax is a private one. Nothing was imported. Export them anew."
        )
    return tuple(written)


def _rewritten(path: Path, deidentifier: Deidentifier) -> bytes | None:
    """The de-identified file, or None if the image is unfit."""
    stream = BytesIO()
    try:
        dataset = library("pydicom").dcmread(path)
        deidentifier.apply(dataset)
        dataset.save_as(stream, enforce_file_format=True)
    except Exception:
        # Whatever reader and writer stumble over, their message may quote the file.
        return None
    return stream.getvalue()


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
            f"dcm2niix cannot be started ({fault.strerror or type(fault).__name__}). Install the extra fedprivseg[dicom] anew."
        ) from None


def _complete(images: Sequence[_Image], nifti: Sequence[Path]) -> None:
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

    return Series(series.record, series.concerns, there(series.dicom), there(series.nifti), there(series.sidecars))


def _stated(part: str) -> str:
    known = BODY_PARTS | FACE_PARTS
    if term(part) not in known:
        raise RequestError(f"{part[:40]!r} is no body part that is known here; known are: {', '.join(sorted(known))}.")
    return term(part)
