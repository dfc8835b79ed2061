"""One technique of clause 5.2 applied to one file of a hospital's own: a NIfTI picture, or a table of metadata as CSV.

The operations are those of `policy.deidentify_images` and `policy.deidentify_records`; a technique and its parameters
choose one of them. What a key undoes is undone by the same technique, parameters and key file.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from fedprivseg.core.errors import DataError, FolderError, RequestError
from fedprivseg.core.files import write_durably
from fedprivseg.governance.deidentify import counts, images
from fedprivseg.governance.deidentify import images_keyed as keyed_images
from fedprivseg.governance.deidentify import tables as records
from fedprivseg.governance.deidentify import tables_keyed as keyed_records
from fedprivseg.governance.deidentify.encryption import KEY_BYTES, CipherKey, Encryption
from fedprivseg.governance.deidentify.metadata import Record
from fedprivseg.governance.deidentify.operation import Operation, Secret
from fedprivseg.governance.policy.technique_table import Technique, cipher
from fedprivseg.imaging.geometry import moved

PICTURES: tuple[type[Operation], ...] = (
    *(images.Occlusion, images.Masking, images.NullInsertion, images.Generalisation, images.Crop, images.Clipping),
    *(images.Bits, images.Perturbation, images.NumericTransform, images.Randomisation, images.Statistics),
    *(keyed_images.Rearrangement, keyed_images.Permutation, keyed_images.DataTransformation),
)
TABLES: tuple[type[Operation], ...] = (
    *(records.AgeBand, records.Year, records.Postcode, records.Truncation, records.Masking, records.NullInsertion),
    *(records.NumericTransform, keyed_records.Substitution, keyed_records.DateShift, keyed_records.Permutation),
    *(keyed_records.Rearrangement, counts.Statistics),
)
_NUMBERS = (records.AgeBand, records.NumericTransform)


def deidentify(
    source: Path,
    target: Path,
    technique: Technique,
    parameters: Mapping[str, Any],
    *,
    key: Path | None = None,
    cipher_name: str = "AES",
    undo: bool = False,
) -> str:
    """Write what `technique` makes of `source` to the new file `target`; returns the line of history.

    parameters: those of the operation, by name; they choose among the operations of a technique. key: the key file of keyed
    techniques; drawn if it is not there. cipher_name: of symmetric encryption. undo: take back what the same call did before.
    Raises RequestError if anything does not fit, DataError for a file that cannot be read, FolderError if `target` exists or
    cannot be written.
    """
    if target.exists() or target.is_symlink():
        raise FolderError(f"the file {target.name!r} exists already; nothing is changed in place. Name a new one.")
    drawn = key is not None and not undo and not key.exists()
    secret = Secret.create() if drawn else None if key is None else Secret.load(key)
    if technique == Technique.HOMOMORPHIC_ENCRYPTION:
        raise RequestError(
            "homomorphic encryption is for numbers that somebody computes on, by a program (policy.deidentify_homomorphic); "
            "nothing reads a file in it. For a file take symmetric encryption."
        )
    if technique == Technique.SYMMETRIC_ENCRYPTION:
        body, history = _encrypted(_read(source), cipher_name, secret, undo)
    elif source.name.endswith((".nii", ".nii.gz")):
        body, history = _picture(source, target, technique, parameters, secret, undo)
    elif source.suffix == ".csv":
        body, history = _table(source, target, technique, parameters, secret, undo)
    else:
        raise RequestError(f"{source.name!r} is neither a picture (.nii, .nii.gz) nor a table (.csv).")
    if drawn and key is not None and secret is not None:
        secret.keep(key)  # before the file that only it opens
    try:
        write_durably(target, [body])
    except OSError as fault:
        raise FolderError(
            f"{target.name!r} cannot be written ({fault.strerror or type(fault).__name__}); its folder must exist."
        ) from None
    return history


def choose(
    operations: Sequence[type[Operation]], technique: Technique, parameters: Mapping[str, Any], secret: Secret | None
) -> Operation:
    """The one of `operations` that is `technique` and takes `parameters`. Raises RequestError that tells what each takes."""
    candidates = [kind for kind in operations if kind.technique == technique]
    if not candidates:
        known = ", ".join(sorted({kind.technique.value for kind in operations}))
        raise RequestError(f"{technique} is not for such a file; what is: {known}.")
    fitting = []
    for kind in candidates:
        needed, allowed = _parameters(kind)
        if needed <= set(parameters) <= allowed:
            fitting.append(kind)
    if len(fitting) != 1:
        takes = "; ".join(
            f"{kind.__name__}: {', '.join(sorted(_parameters(kind)[1])) or 'none'}" for kind in candidates
        )
        given = ", ".join(sorted(parameters)) or "none"
        raise RequestError(
            f"the parameters of {technique} are given by --set; given: {given}; operations take {takes}."
        )
    (kind,) = fitting
    values = {name: _tupled(value) for name, value in parameters.items()}
    if "secret" in {field.name for field in dataclasses.fields(kind)}:  # type: ignore[arg-type]
        values["secret"] = _needed(secret, technique)
    try:
        return kind(**values)
    except TypeError:
        raise RequestError(
            f"a parameter of {technique} is of the wrong type; see the text of {kind.__name__}."
        ) from None


def _parameters(kind: type[Operation]) -> tuple[set[str], set[str]]:
    """(needed, allowed) names; the secret comes from the key file."""
    fields = [field for field in dataclasses.fields(kind) if field.name != "secret"]  # type: ignore[arg-type]
    return {field.name for field in fields if field.default is dataclasses.MISSING}, {field.name for field in fields}


def _tupled(value: Any) -> Any:
    return tuple(_tupled(each) for each in value) if isinstance(value, list) else value


def _needed(secret: Secret | None, technique: Technique) -> Secret:
    if secret is None:
        raise RequestError(f"{technique} works with a secret here; name its key file (32 bytes, mode 0600) by --key.")
    return secret


def _generator(operation: Operation, secret: Secret | None) -> np.random.Generator:
    """Keyed operations draw from the key, so that it undoes them; noise comes from the operating system."""
    if isinstance(operation, keyed_images.KeyedImageOperation | keyed_records.KeyedRecordOperation):
        return _needed(secret, operation.technique).generator("deidentify", operation.technique.value)
    return np.random.default_rng()


def _irreversible(operation: Operation) -> RequestError:
    return RequestError(f"{operation.technique} cannot be undone here: {operation.reversal}.")


def _read(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as fault:
        raise DataError(f"{source.name!r} cannot be read ({fault.strerror or type(fault).__name__}).") from None


def _ends(target: Path, *endings: str) -> None:
    if not target.name.endswith(endings):
        raise RequestError(f"the new file {target.name!r} must end in {' or '.join(endings)}.")


def _encrypted(body: bytes, name: str, secret: Secret | None, undo: bool) -> tuple[bytes, str]:
    chosen = cipher(name)
    material = _needed(secret, Technique.SYMMETRIC_ENCRYPTION).digest("cipher", chosen.value)[: KEY_BYTES[chosen]]
    encryption = Encryption(CipherKey(chosen, material))
    if undo:
        return encryption.undo(body, b""), f"{chosen} undone"
    done = encryption.apply(body, b"")
    return done.value, done.history


def _picture(
    source: Path, target: Path, technique: Technique, parameters: Mapping[str, Any], secret: Secret | None, undo: bool
) -> tuple[bytes, str]:
    operation = choose(PICTURES, technique, parameters, secret)
    try:
        image = nib.nifti1.Nifti1Image.from_filename(source)
        if image.get_data_dtype().kind not in "iuf":
            raise ValueError
        voxels = np.asarray(image.dataobj, np.float32)
        # A header of its own: the source's geometry comes along, and no text.
        header = moved(image.header, _placed(operation))
    except (ImageFileError, OSError, EOFError, ValueError) as fault:
        raise DataError(
            f"{source.name!r} is no readable NIfTI-1 image of integers or floats ({type(fault).__name__})."
        ) from None
    if voxels.ndim not in (3, 4):
        raise DataError(f"{source.name!r} has {voxels.ndim} axes; (X, Y, Z) and (X, Y, Z, T) are allowed.")
    slices = np.ascontiguousarray(
        voxels.transpose(*range(2, voxels.ndim), 0, 1)
    )  # operations take rows and columns last
    if isinstance(operation, images.Statistics):
        _ends(target, ".json")
        told = operation.apply(slices)
        summary = {name: np.asarray(value).tolist() for name, value in vars(told.value).items()}
        return json.dumps(summary, indent=1).encode(), told.history
    _ends(target, ".nii", ".nii.gz")
    assert isinstance(operation, images.ImageOperation)
    if not undo:
        done = operation.apply(slices, _generator(operation, secret))
        value, history = done.value, done.history
    elif isinstance(operation, keyed_images.KeyedImageOperation):
        value, history = operation.undo(slices, _generator(operation, secret)), f"{technique} undone"
    else:
        raise _irreversible(operation)
    back = value.transpose(value.ndim - 2, value.ndim - 1, *range(value.ndim - 2))
    header.set_data_dtype(back.dtype)
    body = nib.nifti1.Nifti1Image(back, None, header).to_bytes()
    return (gzip.compress(body, 6, mtime=0) if target.suffix == ".gz" else body), history


def _placed(operation: Operation) -> np.ndarray:
    """Where in the source the first pixel lies now, and how far the pixels are apart, (4, 4)."""
    change = np.eye(4)
    if isinstance(operation, images.Crop):
        change[:2, 3] = operation.rows[0], operation.columns[0]
    if isinstance(operation, images.Generalisation):
        change[:2, 3] = (operation.block - 1) / 2
        change[0, 0] = change[1, 1] = operation.block
    return change


def _table(
    source: Path, target: Path, technique: Technique, parameters: Mapping[str, Any], secret: Secret | None, undo: bool
) -> tuple[bytes, str]:
    operation = choose(TABLES, technique, parameters, secret)
    try:
        rows = list(csv.DictReader(io.StringIO(_read(source).decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{source.name!r} is no table (CSV in UTF-8).") from None
    if not rows or any(None in row or None in row.values() for row in rows):
        raise DataError(f"{source.name!r} has no rows, or a row that is longer or shorter than the first line.")
    number = operation.field if isinstance(operation, _NUMBERS) else None
    table = [{name: _entry(text, name, name == number) for name, text in row.items()} for row in rows]
    if isinstance(operation, counts.Statistics):
        _ends(target, ".json")
        told = operation.apply(table)
        return json.dumps(vars(told.value), indent=1, ensure_ascii=False).encode(), told.history
    _ends(target, ".csv")
    assert isinstance(operation, records.RecordOperation)
    changed: Sequence[Record]
    if not undo:
        done = operation.apply(table, _generator(operation, secret))
        changed, history = done.value, done.history
    elif isinstance(operation, keyed_records.KeyedRecordOperation):
        changed, history = operation.undo(table, _generator(operation, secret)), f"{technique} undone"
    elif isinstance(operation, keyed_records.DateShift):
        changed, history = operation.undo(table), f"{technique} undone"
    else:
        raise _irreversible(operation)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows({name: "" if entry is None else entry for name, entry in row.items()} for row in changed)
    return text.getvalue().encode(), history


def _entry(text: str, name: str, number: bool) -> str | float | None:
    if not text:
        return None
    if not number:
        return text
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        raise DataError(f"the column {name!r} holds something that is no number; mend it, or leave it empty.") from None
