"""From a volume's own geometry to the network grid, and back.

In-plane resampling is separable, so it is two small sparse matrices: ``A @ slice @ B.T`` for all slices at once.

Where the centre is. The centre of pixel ``H // 2`` of the grid lies on the centre of voxel ``X // 2`` of the volume,
and ``W // 2`` on ``Y // 2``. So a grid of the volume's own spacing samples voxel centres for odd and even sizes alike,
and the round trip is the identity inside the crop. `from_grid` inverts the same map: a mask returns without a shift.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as read_safetensors
from safetensors.numpy import save as write_safetensors
from scipy.sparse import csr_array

from fedprivseg.core.errors import DataError, FolderError, RunError
from fedprivseg.core.files import write_durably
from fedprivseg.core.records import Grid, Slices, Subject, Volume
from fedprivseg.imaging.intensities import require_signal, stretched

CACHE_FORMAT = 2
"""Raise it whenever `to_grid` or the file layout changes: entries of another format are never read."""

_NO_EXTENSIONS = bytes(4)

_log = logging.getLogger(__name__)

Gridded = tuple[np.ndarray, np.ndarray | None]

Load = Callable[[Subject], Mapping[str, Volume]]
"""The labelled frames of a subject by time point: `Dataset.load` for the task."""


def to_grid(volume: Volume, grid: Grid) -> Gridded:
    """`volume` on `grid`: image (Z, H, W) float32 in 0..1, mask (Z, H, W) uint8 or None. H along X, W along Y.

    Intensities: the 1st to 99th percentile of the whole volume is stretched to 0..1 and clipped.
    Image: linear interpolation, with a wider (anti-aliasing) triangle where the grid is coarser than the voxels.
    Mask: the same on the one-hot classes, then the likeliest. Outside the volume: intensity 0, background.

    Raises NoSignalError for an image of which a network would see a constant, as a whole or in one slice.
    """
    x_spacing, y_spacing, _ = volume.spacing
    rows = _weights(volume.image.shape[0], x_spacing, grid.height, grid.spacing)
    columns = _weights(volume.image.shape[1], y_spacing, grid.width, grid.spacing)
    # Weights sum to 1 only up to rounding, hence the clip.
    image = np.clip(_resample(stretched(volume.image), rows, columns), 0, 1)
    image = np.ascontiguousarray(image.transpose(2, 0, 1))
    require_signal(image)
    if volume.mask is None:
        return image, None
    mask = _likeliest(_resample(_one_hot(volume.mask), rows, columns), rows, columns)
    return image, np.ascontiguousarray(mask.transpose(2, 0, 1))


def from_grid(
    answer: np.ndarray, shape: tuple[int, int, int], spacing: tuple[float, float, float], grid: Grid
) -> np.ndarray:
    """An answer on `grid` put back on the volume of `shape` (X, Y, Z) and `spacing` mm: labels (X, Y, Z) uint8.

    answer: labels (Z, H, W) of an integer type, or class scores (Z, C, H, W) of a floating type, background first. Scores are
    resampled before the likeliest class is taken, which gives smoother borders than resampling labels. Outside the crop is
    background. Raises ValueError for another shape or type, RunError for scores that are not finite.
    """
    x, y, z = shape
    soft = answer.dtype.kind == "f"
    needed = (z, *answer.shape[1:2], grid.height, grid.width) if soft else (z, grid.height, grid.width)
    if answer.dtype.kind not in "iuf" or answer.ndim != 3 + soft or answer.shape != needed:
        raise ValueError(f"an answer of shape {answer.shape} and type {answer.dtype} was given; {needed} is needed")
    if soft and not np.isfinite(answer).all():
        raise RunError("a segmentation came back with scores that are not finite; train longer or with a smaller step")
    rows = _weights(grid.height, grid.spacing, x, spacing[0])
    columns = _weights(grid.width, grid.spacing, y, spacing[1])
    scores = (
        answer.astype(np.float32, copy=False).transpose(2, 3, 0, 1) if soft else _one_hot(answer.transpose(1, 2, 0))
    )
    return _likeliest(_resample(scores, rows, columns), rows, columns)


def write_mask(path: Path, mask: np.ndarray, geometry: bytes) -> None:
    """Write `mask` as NIfTI, where the image lies that it belongs to; gzipped if `path` ends in .gz.

    Both transforms with their codes, voxel sizes and units are the image's own, as it stores them: whatever a program makes of
    the image's header, it makes of the mask's. Atomic: `path` is either the whole new file or what it was. The same input gives
    the same bytes.

    mask: uint8 of three axes, or with frames of four, in the order of the image's file (`Geometry.stored`).
    geometry: the header of a NIfTI-1 or NIfTI-2 with that geometry (`Geometry.header`); the mask is of the same version.

    Raises ValueError for another shape or type, FolderError if the folder cannot be written.
    """
    if mask.ndim not in (3, 4) or mask.dtype != np.uint8:
        raise ValueError(
            f"labels of shape {mask.shape} and type {mask.dtype} were given; (X, Y, Z[, T]) uint8 is needed"
        )
    kind = nib.Nifti2Header if len(geometry) == nib.Nifti2Header.sizeof_hdr else nib.Nifti1Header
    header = kind(geometry, check=False)  # checked where the image was read; a check would mend it
    header.set_data_dtype(np.uint8)
    header.set_data_shape(mask.shape)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = header.single_vox_offset
    body = bytes(header.binaryblock) + _NO_EXTENSIONS + mask.tobytes(order="F")
    _write(path, gzip.compress(body, compresslevel=6, mtime=0) if path.suffix == ".gz" else body)


def gridded(load: Load, subject: Subject, grid: Grid, cache: Path | None) -> dict[str, Gridded]:
    """The labelled frames of `subject` on `grid`: time point -> (image, mask) as `to_grid` returns them.

    With a `cache` folder the arrays are kept there, under a name made from the content of the subject's files, its
    frames and labels, the grid and `CACHE_FORMAT`. An entry that does not match its own checksum is logged and made again.
    Raises DataError if the files have a fault, FolderError if the cache cannot be written.
    """
    if cache is None:
        return {time: to_grid(volume, grid) for time, volume in load(subject).items()}
    entry = gridded_file(subject, grid, cache)
    key = entry.stem
    kept = _recall(entry, key, subject.frames) if entry.is_file() else None
    if kept is None:
        kept = {time: to_grid(volume, grid) for time, volume in load(subject).items()}
        _keep(entry, key, kept)
    return kept


def gridded_file(subject: Subject, grid: Grid, cache: Path) -> Path:
    """Where `gridded` keeps `subject` in the `cache` folder, whether or not it has done so."""
    return cache / f"{_key(subject, grid)}.safetensors"


def gridded_slices(load: Load, subjects: Sequence[Subject], grid: Grid, cache: Path | None) -> Slices:
    """All slices of labelled `subjects` at all time points, stacked; ``Slices.subjects`` holds positions in `subjects`.

    Slices without any structure stay: there a network must answer 'nothing'. Raises
    DataError if there are no subjects, or subjects without labels.
    """
    unlabelled = sum(not subject.labelled for subject in subjects)
    if not subjects or unlabelled:
        raise DataError(
            f"{len(subjects)} subjects were given, {unlabelled} of them without labels; "
            "slices with masks need at least one subject, all labelled. Choose the labelled subjects of the split."
        )
    images, masks, owners = [], [], []
    for position, subject in enumerate(subjects):
        for image, mask in gridded(load, subject, grid, cache).values():
            if mask is None:
                raise DataError("a subject is marked as labelled but has no mask file; read the release again")
            images.append(image)
            masks.append(mask)
            owners.append(np.full(len(image), position, dtype=np.int32))
    return Slices(np.concatenate(images), np.concatenate(masks), np.concatenate(owners))


# --- resampling ------------------------------------------------------------------------------------------------------


def _weights(size: int, spacing: float, target: int, target_spacing: float) -> csr_array:
    """(target, size) float32: row t holds the weights of the source pixels at target pixel t; empty outside them."""
    step = target_spacing / spacing
    at = size // 2 + (np.arange(target) - target // 2) * step
    taps = np.clip(1 - np.abs(at[:, None] - np.arange(size)) / max(1.0, step), 0, None)
    inside = (at >= -0.5) & (at <= size - 0.5)  # the source pixels cover this: half a pixel beyond the outer centres
    taps[~inside] = 0
    return csr_array((taps / np.where(inside, taps.sum(axis=1), 1)[:, None]).astype(np.float32))


def _resample(stack: np.ndarray, rows: csr_array, columns: csr_array) -> np.ndarray:
    """(X, Y, ...) float32 -> (H, W, ...) float32."""
    x, y, *rest = stack.shape
    half = (rows @ stack.reshape(x, -1)).reshape(-1, y, *rest)
    full = columns @ half.swapaxes(0, 1).reshape(y, -1)
    return np.asarray(full.reshape(columns.shape[0], rows.shape[0], *rest).swapaxes(0, 1))


def _one_hot(labels: np.ndarray) -> np.ndarray:
    """(X, Y, Z) integers -> (X, Y, Z, C) float32; C - 1 is the highest label there."""
    return (labels[..., None] == np.arange(int(labels.max(initial=0)) + 1)).astype(np.float32)


def _likeliest(scores: np.ndarray, rows: csr_array, columns: csr_array) -> np.ndarray:
    """(H, W, Z, C) scores -> (H, W, Z) uint8; background where the source does not reach (empty rows, columns)."""
    covered = np.logical_and.outer(np.diff(rows.indptr) > 0, np.diff(columns.indptr) > 0)
    return np.where(covered[..., None], scores.argmax(axis=-1), 0).astype(np.uint8)


# --- the cache -------------------------------------------------------------------------------------------------------


def _key(subject: Subject, grid: Grid) -> str:
    """SHA-256 over all that decides the gridded arrays: file contents, frames, labels, grid, format. No name or path."""
    parts: list[int | float | str] = [
        CACHE_FORMAT,
        *subject.frames.values(),
        *subject.order,
        grid.height,
        grid.width,
        float(grid.spacing),
    ]
    try:
        for path in (subject.image, subject.mask):
            if path is not None:
                with path.open("rb") as stream:
                    parts.append(hashlib.file_digest(stream, "sha256").hexdigest())
    except OSError as fault:
        raise DataError(f"a subject's file cannot be read ({type(fault).__name__}); read the release again") from None
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _checksum(key: str, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the key and the arrays with their names, types and shapes: safetensors itself carries none."""
    total = hashlib.sha256(key.encode())
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        total.update(np.ascontiguousarray(arrays[name]).data)
    return total.hexdigest()


def _keep(entry: Path, key: str, times: Mapping[str, Gridded]) -> None:
    arrays = {f"{time}.image": np.ascontiguousarray(image) for time, (image, _) in times.items()}
    arrays |= {f"{time}.mask": np.ascontiguousarray(mask) for time, (_, mask) in times.items() if mask is not None}
    _write(entry, write_safetensors(arrays, metadata={"checksum": _checksum(key, arrays)}))


def _recall(entry: Path, key: str, times: Iterable[str]) -> dict[str, Gridded] | None:
    """The kept arrays, or None (logged) if the entry is not what was written."""
    try:
        body = entry.read_bytes()
        arrays = read_safetensors(body)
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
        if header["__metadata__"]["checksum"] != _checksum(key, arrays):
            raise ValueError("checksum")
    except (OSError, SafetensorError, KeyError, ValueError) as fault:
        _log.warning("cache entry %s is damaged (%s); it is made again", entry.name[:12], type(fault).__name__)
        return None
    return {time: (arrays[f"{time}.image"], arrays.get(f"{time}.mask")) for time in times if f"{time}.image" in arrays}


def _write(path: Path, body: bytes) -> None:
    """`body` at `path`, whole or not at all: written beside it, flushed to disk, then renamed over it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, [body])
    except OSError as fault:
        raise FolderError(
            f"a file cannot be written ({fault.strerror or type(fault).__name__}); "
            "the folder must be writable and the disk must have room. Choose another folder, or make room."
        ) from None
