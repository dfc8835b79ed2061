"""A hospital's DICOM, imported: de-identified, converted to NIfTI, classed and levelled, and a record of it all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedprivseg.governance.deidentify.secret import Secret
from fedprivseg.governance.deidentify.tables_keyed import pseudonym
from fedprivseg.governance.policy.levels import class_of
from fedprivseg.imaging.dicom.conversion import Patient, import_patients
from fedprivseg.imaging.dicom.imported import IMPORTED, Imported, ImportedSeries, ImportedSubject


def take_in(
    source: Path,
    target: Path,
    key: Path,
    *,
    body_part: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Import the DICOM images in `source` into the new folder `target` and write `IMPORTED` there; all of it or nothing.

    Each patient gets a folder under a pseudonym that follows from the secret in the file `key` and the code in the header: the
    same secret gives the same pseudonym. If there is no such file, a secret is drawn and kept there. body_part, progress, and
    what is raised: see `data.dicom.import_patients`; RequestError for a key file that cannot be used.
    """
    drawn = not key.exists()
    secret = Secret.create() if drawn else Secret.load(key)
    record: list[Imported] = []

    def describe(patients: tuple[Patient, ...]) -> tuple[str, str]:
        if drawn:
            secret.keep(key)  # not before everything else worked: a refused import leaves no key behind
        record.append(_record(patients, target))
        return IMPORTED, record[0].model_dump_json(indent=1)

    import_patients(
        source,
        target,
        lambda code: pseudonym(secret, code),
        secret.digest("dicom", "uids"),
        describe,
        body_part=body_part,
        progress=progress,
    )
    return record[0]


def _record(patients: tuple[Patient, ...], target: Path) -> Imported:
    subjects = {
        patient.code: ImportedSubject(
            series=tuple(
                ImportedSeries(
                    modality=series.record.modality,
                    data_class=class_of(series.record.modality),
                    body_part=series.record.body_part,
                    images=series.record.images,
                    level=series.level,
                    concerns=tuple(concern.reason for concern in series.concerns),
                    removed=series.removed,
                    files=tuple(path.relative_to(target).as_posix() for path in series.nifti),
                )
                for series in patient.imported.series
            )
        )
        for patient in patients
    }
    return Imported(history=patients[0].imported.history, subjects=subjects)
