"""One technique of clause 5.2 applied to one file of a hospital's own: a NIfTI image, or a table of metadata as CSV.

A technique and its parameters choose one of the operations. What a key undoes is undone by the same technique, parameters and
key file.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from fedprivseg.core.errors import DataError, FolderError, RequestError
from fedprivseg.core.files import write_durably
from fedprivseg.core.techniques import Technique
from fedprivseg.core.validation import validated
from fedprivseg.governance.deidentify import counts, images, tables, tables_keyed
from fedprivseg.governance.deidentify.encryption import Encryption
from fedprivseg.governance.deidentify.metadata import Table
from fedprivseg.governance.deidentify.secret import Secret, Unkeyed
from fedprivseg.governance.policy.technique_table import cipher
from fedprivseg.imaging.geometry import moved
from fedprivseg.protections import blocks, boxes, precision
from fedprivseg.protections import grey_values as intensities
from fedprivseg.protections.operation import ArrayOperation, Key, Operation

IMAGES: tuple[type[ArrayOperation] | type[images.Statistics], ...] = (
    *(boxes.Occlusion, boxes.Masking, boxes.NullInsertion, images.Generalisation, images.Crop, images.Statistics),
    *(intensities.Clipping, precision.Precision, intensities.Perturbation, intensities.NumericTransform),
    *(intensities.Randomisation, blocks.Rearrangement, blocks.Permutation, blocks.DataTransformation),
)
TABLES: tuple[type[tables.TableOperation] | type[counts.Statistics], ...] = (
    *(tables.AgeBand, tables.Year, tables.Postcode, tables.Truncation, tables.Masking, tables.NullInsertion),
    *(tables.NumericTransform, tables_keyed.Substitution, tables_keyed.DateShift, tables_keyed.Permutation),
    *(tables_keyed.Rearrangement, counts.Statistics),
)
_NUMBERS = (tables.AgeBand, tables.NumericTransform)
_Kind = TypeVar("_Kind", bound=Operation[Any, Any])


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
    """Write what a technique makes of a file to a new one.

    Args:
        source: the file that is read.
        target: the file that is made.
        technique: of Table 2.
        parameters: those of the operation, by name; they choose among the operations of a technique.
        key: the key file of keyed techniques; drawn if it is not there.
        cipher_name: of symmetric encryption.
        undo: take back what the same call did before.

    Returns:
        The line of history.

    Raises:
        RequestError: anything does not fit.
        DataError: the file cannot be read.
        FolderError: `target` exists or cannot be written.
    """
    if target.exists() or target.is_symlink():
        raise FolderError(f"the file {target.name!r} exists already; nothing is changed in place. Name a new one.")
    drawn = key is not None and not undo and not key.exists()
    secret = Secret.create() if drawn else None if key is None else Secret.load(key)
    # Keyed operations draw from the secret, so that it undoes them; noise comes from the operating system.
    at_hand: Key = (
        Unkeyed(technique) if secret is None else dataclasses.replace(secret, names=("deidentify", technique.value))
    )
    if technique == Technique.HOMOMORPHIC_ENCRYPTION:
        raise RequestError(
            "homomorphic encryption is for numbers that somebody computes on; nothing reads a file in it. For a file take "
            "symmetric encryption."
        )
    if technique == Technique.SYMMETRIC_ENCRYPTION:
        body, history = _done(Encryption(cipher=cipher(cipher_name)), _read(source), at_hand, undo)
    elif source.name.endswith((".nii", ".nii.gz")):
        body, history = _image(source, target, choose(IMAGES, technique, parameters), at_hand, undo)
    elif source.suffix == ".csv":
        body, history = _table(source, target, choose(TABLES, technique, parameters), at_hand, undo)
    else:
        raise RequestError(f"{source.name!r} is neither an image (.nii, .nii.gz) nor a table (.csv).")
    if drawn and key is not None and secret is not None:
        secret.keep(key)  # before the file that only it opens
    try:
        write_durably(target, [body])
    except OSError as fault:
        raise FolderError(
            f"{target.name!r} cannot be written ({fault.strerror or type(fault).__name__}); its folder must exist."
        ) from None
    return history


def choose(operations: Sequence[type[_Kind]], technique: Technique, parameters: Mapping[str, Any]) -> _Kind:
    """The one of `operations` that is `technique` and takes `parameters`. Raises RequestError that tells what each takes."""
    candidates = [kind for kind in operations if technique in _techniques(kind)]
    if not candidates:
        known = ", ".join(sorted({name for kind in operations for name in _techniques(kind)}))
        raise RequestError(f"{technique} is not for such a file; what is: {known}.")
    fitting = [kind for kind in candidates if _fits(kind, parameters)]
    # Without a parameter only one that has no rival is meant.
    if len(fitting) != 1 or (len(candidates) > 1 and not parameters):
        takes = "; ".join(f"{kind.__name__}: {', '.join(sorted(kind.model_fields)) or 'none'}" for kind in candidates)
        given = ", ".join(sorted(parameters)) or "none"
        raise RequestError(
            f"the parameters of {technique} are given by --set; given: {given}; operations take {takes}."
        )
    return validated(fitting[0], parameters, f"parameters of {technique}")


def _techniques(kind: type[Operation[Any, Any]]) -> tuple[Technique, ...]:
    return kind.techniques  # type: ignore[return-value]  # what works on files is one technique, whatever its parameters


def _fits(kind: type[Operation[Any, Any]], parameters: Mapping[str, Any]) -> bool:
    needed = {name for name, field in kind.model_fields.items() if field.is_required()}
    return needed <= set(parameters) <= set(kind.model_fields)


def _done(
    operation: Operation[Any, Any], value: Any, key: Key, undo: bool, shape: tuple[int, ...] = ()
) -> tuple[Any, str]:
    """What comes of `value`, and the line of history."""
    if undo:
        return operation.undo(value, key), f"{' and '.join(operation.techniques)} undone"
    return operation.apply(value, key), operation.history(shape)


def _read(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as fault:
        raise DataError(f"{source.name!r} cannot be read ({fault.strerror or type(fault).__name__}).") from None


def _ends(target: Path, *endings: str) -> None:
    if not target.name.endswith(endings):
        raise RequestError(f"the new file {target.name!r} must end in {' or '.join(endings)}.")


def _image(
    source: Path, target: Path, operation: ArrayOperation | images.Statistics, key: Key, undo: bool
) -> tuple[bytes, str]:
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
    if voxels.ndim not in (3, 4) or not voxels.size or not np.isfinite(voxels).all():
        raise DataError(
            f"{source.name!r} is of shape {voxels.shape}, or holds values that are no finite numbers; (X, Y, Z) and "
            "(X, Y, Z, T) of at least one finite voxel are allowed."
        )
    # Operations take rows and columns last, and one channel a slice.
    slices = voxels.transpose(*range(2, voxels.ndim), 0, 1)
    value, history = _done(operation, slices.reshape(-1, 1, *slices.shape[-2:]), key, undo, (1, *slices.shape[-2:]))
    if isinstance(value, images.Summary):
        _ends(target, ".json")
        told = {name: np.asarray(number).tolist() for name, number in vars(value).items()}
        return json.dumps(told, indent=1).encode(), history
    _ends(target, ".nii", ".nii.gz")
    value = value.reshape(*slices.shape[:-2], *value.shape[-2:])
    back = value.transpose(value.ndim - 2, value.ndim - 1, *range(value.ndim - 2))
    header.set_data_dtype(back.dtype)
    body = nib.nifti1.Nifti1Image(back, None, header).to_bytes()
    return (gzip.compress(body, 6, mtime=0) if target.suffix == ".gz" else body), history


def _placed(operation: ArrayOperation | images.Statistics) -> np.ndarray:
    """Where in the source the first pixel lies now, and how far the pixels are apart, (4, 4)."""
    change = np.eye(4)
    if isinstance(operation, images.Crop):
        change[:2, 3] = operation.rows[0], operation.columns[0]
    if isinstance(operation, images.Generalisation):
        change[:2, 3] = (operation.block - 1) / 2
        change[0, 0] = change[1, 1] = operation.block
    return change


def _table(
    source: Path, target: Path, operation: tables.TableOperation | counts.Statistics, key: Key, undo: bool
) -> tuple[bytes, str]:
    try:
        rows = list(csv.DictReader(io.StringIO(_read(source).decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{source.name!r} is no table (CSV in UTF-8).") from None
    if not rows or any(None in row or None in row.values() for row in rows):
        raise DataError(f"{source.name!r} has no rows, or a row that is longer or shorter than the first line.")
    number = operation.field if isinstance(operation, _NUMBERS) else None
    given: Table = tuple({name: _entry(text, name, name == number) for name, text in row.items()} for row in rows)
    value, history = _done(operation, given, key, undo)
    if isinstance(value, counts.Counts):
        _ends(target, ".json")
        return json.dumps(vars(value), indent=1, ensure_ascii=False).encode(), history
    _ends(target, ".csv")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows({name: "" if entry is None else entry for name, entry in row.items()} for row in value)
    return text.getvalue().encode(), history


def _entry(text: str, name: str, number: bool) -> str | float | None:
    if not text:
        return None
    if not number:
        return text
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        raise DataError(
            f"the column {name!r} holds something that is no number; correct it, or leave it empty."
        ) from None
