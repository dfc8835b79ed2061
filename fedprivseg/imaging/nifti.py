"""One NIfTI image file, opened and checked: the one door through which images and masks come in.

`data check`, runs and `predict` all open files here, so that none believes what another refuses. A file is a single-file
NIfTI-1 or NIfTI-2, gzipped or not whatever its name says. `geometry` says what is believed of its header.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import cast, final

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from fedprivseg.core.errors import DataError
from fedprivseg.imaging.geometry import FileFault, Geometry, Header, Limits, read_header
from fedprivseg.imaging.intensities import without_signal

FRAME_VOXELS = 2**26
"""256 MiB as float32, 100 times the largest frame of M&Ms: a header cannot ask for more memory."""

_GZIP = b"\x1f\x8b"
UNREADABLE = (OSError, EOFError, zlib.error, ImageFileError, HeaderDataError, WrapStructError, ValueError)
"""What a broken file makes gzip and nibabel raise."""


@final
class NiftiFile:
    """An opened image. Frames are to be read in the order of the file: a gzip stream only goes forward.

    geometry: where its voxels lie.
    frames: how many frames there are.
    is_3d: whether the file has three axes and so one frame, or four.
    """

    def __init__(self, stream: BufferedIOBase, limits: Limits) -> None:
        """stream: the unpacked bytes, at the first. limits: what sizes it can have. Raises FileFault, or one of `opened`'s
        errors of reading."""
        header = _unchecked_header(stream)
        shape = tuple(int(size) for size in header.get_data_shape())
        if len(shape) not in (3, 4) or min(shape) < 1:
            raise FileFault("wrong-dimensions", f"the shape is {shape}; (X, Y, Z) and (X, Y, Z, T) are known")
        if header.get_data_dtype().kind not in "iuf":
            what = f"the data type is {header.get_value_label('datatype')}; integers or floats are needed"
            raise FileFault("unreadable", what)
        if int(np.prod(shape[:3])) > FRAME_VOXELS:
            what = f"a frame has {int(np.prod(shape[:3]))} voxels; at most {FRAME_VOXELS} are allowed"
            raise FileFault("bad-geometry", what)
        self.geometry: Geometry = read_header(header, limits)
        self.is_3d = len(shape) == 3
        self.frames = 1 if self.is_3d else shape[3]
        stream.seek(0)
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        self._data = cast(ArrayProxy, kind.from_stream(stream).dataobj)
        self._stream = stream
        self._end = self._data.offset + int(np.prod(shape, dtype=np.int64)) * header.get_data_dtype().itemsize

    def frame(self, number: int) -> np.ndarray:
        """The frame `number` (from 0) as (X, Y, Z) with scaling applied, slices last."""
        return self.geometry.slices_last(np.asarray(self._data if self.is_3d else self._data[..., number]))

    def first_slice(self, number: int) -> np.ndarray:
        """The first slice of the frame `number` (from 0) as (X, Y, 1), scaled. Where slices are the file's last axis, no more
        is read."""
        first = [slice(None)] * 3
        first[self.geometry.order[2]] = slice(1)
        return self.geometry.slices_last(np.asarray(self._data[(*first, *([] if self.is_3d else [number]))]))

    def read_to_the_end(self) -> None:
        """Read what is left, so that gzip's checksum is compared. Raises EOFError if voxels are missing."""
        while self._stream.read(2**20):
            pass
        if self._stream.tell() < self._end:
            raise EOFError


@contextmanager
def opened(path: Path, limits: Limits) -> Iterator[NiftiFile]:
    """The image at `path`, for reading inside the block. limits: what sizes an image of its modality can have.

    Raises FileFault: ``unreadable`` for whatever goes wrong in reading it, ``wrong-dimensions``, or one of `geometry.FAULTS`.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            yield NiftiFile(gzip.GzipFile(fileobj=file, mode="rb") if packed else file, limits)
    except UNREADABLE as fault:
        raise FileFault(
            "unreadable", f"reading it ends with {type(fault).__name__}: broken, cut short or no single-file NIfTI"
        ) from None


def read_geometry(path: Path, limits: Limits) -> Geometry:
    """The geometry of the image at `path`. Raises DataError, which names no path, if it has a fault."""
    try:
        with opened(path, limits) as file:
            return file.geometry
    except FileFault as fault:
        raise DataError(
            f"a subject's image has the fault {fault.code!r}. Run `fedprivseg data check` on the release: it names the file."
        ) from None


def intensities(frame: np.ndarray) -> np.ndarray:
    """`frame` as float32. Raises FileFault: ``not-finite`` if a voxel is, or becomes, NaN or infinite, ``no-signal`` if a
    network would see a constant."""
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is a fault like any infinite value
        image = frame.astype(np.float32)
    if not np.isfinite(image).all():
        raise FileFault("not-finite", f"{int((~np.isfinite(image)).sum())} voxels are NaN or infinite")
    if what := without_signal(image):
        raise FileFault("no-signal", what)
    return image


def _unchecked_header(stream: BufferedIOBase) -> Header:
    """The header as it stands: nibabel's own check mends what it finds (a size of 0 becomes 1)."""
    raw = stream.read(4)
    sizes = [int.from_bytes(raw, order) for order in ("little", "big")]
    kind = nib.Nifti2Header if nib.Nifti2Header.sizeof_hdr in sizes else nib.Nifti1Header
    raw += stream.read(kind.sizeof_hdr - len(raw))
    header = kind(raw, check=False)
    if header["magic"].item() != kind.single_magic:
        raise ValueError
    return header


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write an image as gzipped NIfTI-1. The time in the gzip header is 0, so that equal content is equal bytes.

    Args:
        path: where to.
        array: voxels, three or four axes, of a type that NIfTI knows.
        affine: (4, 4) float64, from voxels to mm.
    """
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
