"""The DICOM images of a folder, by patient and series.

Nothing in the folder is trusted. File names are neither used nor told, links are not followed, and one file that is no DICOM
image refuses the whole folder: what cannot be read cannot be vouched for. Only companion files of macOS (``._*``) are passed
over: nothing of them is read or written.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedprivseg.core.errors import DataError
from fedprivseg.core.files import is_companion
from fedprivseg.imaging.dicom.concerns import Concern, concerns
from fedprivseg.imaging.dicom.header_record import Record, header_record
from fedprivseg.imaging.dicom.library import library


@dataclass(frozen=True)
class Image:
    """A file and what is needed of its header. It names patient and file, and never leaves the modules that read DICOM.

    patient: code and name, of which one is empty unless both are. order: where it stands in its series.
    """

    path: Path
    patient: tuple[str, str]
    series: str
    instance: str
    order: int
    pixels: int
    record: Record
    concerns: tuple[Concern, ...]


def read_folder(source: Path, stated: str | None) -> dict[tuple[str, str], list[list[Image]]]:
    """The images in `source` and its subfolders: patient -> series, each in its order.

    stated: the body part for headers that name no known one. Raises DataError for a folder that is absent or empty, or holds
    anything but DICOM images."""
    faults: Counter[str] = Counter()
    images: list[Image] = []
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
    by_patient: dict[tuple[str, str], dict[str, list[Image]]] = {}
    for image in images:
        by_patient.setdefault(image.patient, {}).setdefault(image.series, []).append(image)
    return {
        patient: [sorted(by_series[uid], key=lambda image: (image.order, image.instance)) for uid in sorted(by_series)]
        for patient, by_series in sorted(by_patient.items())
    }


def _files(source: Path) -> Iterator[Path]:
    def unreadable(fault: OSError) -> None:
        raise DataError(
            f"a folder within the folder cannot be read ({fault.strerror or type(fault).__name__})."
        ) from None

    if not source.is_dir():
        return
    for folder, folders, names in os.walk(source, onerror=unreadable, followlinks=False):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for path in (Path(folder, name) for name in [*names, *links]):
            if not is_companion(path):
                yield path


def _image(path: Path, stated: str | None) -> Image | str:
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
        return Image(
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
