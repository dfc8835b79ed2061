"""NIfTI files without text: what a converter or a scanner wrote into the header is cleared, the picture is untouched.

A NIfTI header has a few fields of free text, and any number of extensions may follow it (DICOM headers, comments). Some of it
names patients, dates and folders, and no program needs it to place or show the picture. The voxel data as they are stored,
their scaling and the geometry (affine, sform and qform with their codes, voxel sizes, units) stay bit for bit.

This serves clause 5.1.2-e of T/SCGS 313008-2024: no leak of personal information while data is collected.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, cast

import nibabel as nib
from nibabel.wrapstruct import WrapStructError

from fedprivseg.core.errors import DataError, FolderError
from fedprivseg.core.files import is_companion
from fedprivseg.imaging.new_folder import new_folder

TEXT_FIELDS = ("descrip", "aux_file", "db_name", "intent_name", "data_type", "unused_str")
"""Fields of free text; NIfTI-1 has no ``unused_str``, NIfTI-2 neither ``db_name`` nor ``data_type``."""

EXTENSIONS = "extensions"

_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_NO_EXTENSIONS = bytes(4)

Image = nib.Nifti1Image | nib.Nifti2Image
Header = nib.Nifti1Header | nib.Nifti2Header


def findings(image: Image) -> tuple[str, ...]:
    """The names of the header fields of `image` that hold text, and ``extensions`` if it has any; empty after `scrub`."""
    header = image.header
    return (*_text(header), EXTENSIONS) if len(header.extensions) else _text(header)


def scrub(image: Image) -> Image:
    """`image` without the text in its header, over the same voxel data; `image` itself stays as it is.

    Saving a scaled image through nibabel scales it again; `scrub_file` copies what is stored.
    """
    # The affine is the image's own, so nibabel leaves the header's sform, qform and codes alone.
    return type(image)(image.dataobj, image.affine, _cleared(image.header))


def scrub_file(source: Path, target: Path) -> tuple[str, ...]:
    """Write the single-file NIfTI `source` to `target` without text; gzipped if `target` ends in ``.gz``.

    Atomic: `target` is either the whole new file or what it was; it may be `source`. What stands behind the voxel data, and
    the name and the time in the head of a gzip file, are left out as well. The same input gives the same bytes. Returns the
    names of what was cleared, as `findings` does. Raises DataError if `source` is no whole single-file NIfTI, FolderError if
    `target` cannot be written.
    """
    with _opened(source) as stream:
        try:
            header, extended = _read_header(stream)
            _write(target, stream, header)
        except (WrapStructError, LookupError, ValueError, OverflowError, EOFError, zlib.error, gzip.BadGzipFile):
            raise DataError(
                "the file is no whole NIfTI-1 or NIfTI-2 image in a single file (.nii or .nii.gz). Convert a pair of .hdr and "
                ".img to one file, or take a copy that is whole."
            ) from None
    return (*_text(header), EXTENSIONS) if extended else _text(header)


@dataclass(frozen=True)
class Scrubbed:
    """What came of a folder. files: NIfTI files that were written. cleared: header field -> in how many of them it held text.
    left_out: files that are no NIfTI by their names, and links; they were not taken along. companions: files that macOS wrote
    beside others (``._*``), whatever their names end in; they are no images and were not taken along either."""

    files: int
    cleared: Mapping[str, int]
    left_out: int
    companions: int


def scrub_folder(source: Path, target: Path, progress: Callable[[int, int], None] | None = None) -> Scrubbed:
    """Write every NIfTI file (.nii, .nii.gz) in `source` and its subfolders without text into the new folder `target`, in the
    same places under the same names; `source` stays as it is.

    `target` is there as a whole or not at all. progress: ``progress(done, total)`` after each file. Raises DataError for a
    folder without NIfTI files and for a file that is none, with its name: it is told to whoever owns the files. Raises
    FolderError if `target` exists, lies in `source` or cannot be written.
    """
    if target.resolve().is_relative_to(source.resolve()):
        raise FolderError("the new folder lies in the one that is read; choose a place beside it.")
    listed = [path for path in sorted(source.rglob("*")) if path.is_symlink() or not path.is_dir()]
    found = [path for path in listed if not is_companion(path)]
    images = [path for path in found if path.name.endswith((".nii", ".nii.gz")) and not path.is_symlink()]
    if not images:
        raise DataError("the folder is absent, or holds no .nii and no .nii.gz files; give the folder of the images.")
    cleared: Counter[str] = Counter()
    with new_folder(target) as part:
        for done, path in enumerate(images, start=1):
            place = path.relative_to(source)
            (part / place).parent.mkdir(parents=True, exist_ok=True)
            try:
                cleared.update(scrub_file(path, part / place))
            except DataError as fault:
                raise DataError(f"{place.as_posix()!r}: {fault} Nothing was written.") from None
            if progress is not None:
                progress(done, len(images))
    counts = MappingProxyType(dict(sorted(cleared.items())))
    return Scrubbed(len(images), counts, len(found) - len(images), len(listed) - len(found))


def _text(header: Header) -> tuple[str, ...]:
    return tuple(name for name in TEXT_FIELDS if name in header.keys() and header[name].item())  # noqa: SIM118  (no mapping)


def _cleared(header: Header) -> Header:
    bare = header.copy()
    for name in _text(header):
        bare[name] = b""
    bare.extensions.clear()
    return bare


def _read_header(stream: BinaryIO) -> tuple[Header, bool]:
    """The header at the start of `stream`, which then stands at the first voxel, and whether anything lies between them.

    Raises ValueError and the like if there is none, EOFError if it is cut short.
    """
    raw = stream.read(4)
    sizes = [int.from_bytes(raw, order) for order in ("little", "big")]
    kind = nib.Nifti2Header if nib.Nifti2Header.sizeof_hdr in sizes else nib.Nifti1Header
    raw += stream.read(kind.sizeof_hdr - len(raw))
    # Unchecked, because nibabel's check mends what it finds, and the geometry is to stay as it is.
    header = kind(raw, check=False)
    gap = header.get_data_offset() - kind.sizeof_hdr
    axes, *lengths = header["dim"].tolist()
    shaped = 1 <= axes <= len(lengths) and min(lengths[:axes]) >= 1
    # Voxels of single bits have no size in bytes, and pairs of files have their voxels elsewhere.
    sized = header.get_data_dtype().itemsize * 8 == header["bitpix"].item() > 0
    if header["magic"].item() != kind.single_magic or gap < len(_NO_EXTENSIONS) or not (shaped and sized):
        raise ValueError
    extended = False
    while gap:
        piece = _some(stream, gap)
        extended |= any(piece)
        gap -= len(piece)
    return header, extended


def _write(target: Path, stream: BinaryIO, header: Header) -> None:
    """The cleared header and the voxel data that come next in `stream` at `target`, whole or not at all."""
    bare = _cleared(header)
    bare["vox_offset"] = bare.single_vox_offset
    left = math.prod(int(length) for length in bare.get_data_shape()) * bare.get_data_dtype().itemsize
    part = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    try:
        with _created(part, compress=target.suffix == ".gz") as output:
            output.write(bare.binaryblock + _NO_EXTENSIONS)
            while left:
                piece = _some(stream, left)
                output.write(piece)
                left -= len(piece)
            while stream.read(_CHUNK):
                pass  # only at the end of a gzip file is its checksum compared
        part.replace(target)
    except gzip.BadGzipFile:
        raise  # an OSError too, but the source's fault
    except OSError as fault:
        raise FolderError(
            f"a file cannot be written ({fault.strerror or type(fault).__name__}); the folder must exist and be writable and "
            "the disk must have room. Choose another folder, or make room."
        ) from None
    finally:
        part.unlink(missing_ok=True)


def _some(stream: BinaryIO, wanted: int) -> bytes:
    """At least one of the next `wanted` bytes: a header cannot ask for more memory than `_CHUNK`."""
    piece = stream.read(min(wanted, _CHUNK))
    if not piece:
        raise EOFError
    return piece


@contextmanager
def _created(part: Path, *, compress: bool) -> Iterator[BinaryIO]:
    """A new file, flushed to disk at the end; what is written to it is gzipped without a name or a time if `compress`."""
    with part.open("xb") as file:
        if compress:
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as packed:
                yield cast(BinaryIO, packed)
        else:
            yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _opened(source: Path) -> Iterator[BinaryIO]:
    """The bytes of `source`, unpacked if it is a gzip file whatever its name says."""
    try:
        file = source.open("rb")
    except OSError as fault:
        raise DataError(
            f"a file cannot be read ({fault.strerror or type(fault).__name__}); check that it is there."
        ) from None
    with file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield file
