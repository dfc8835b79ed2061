"""Text in NIfTI headers goes; the picture and its geometry stay bit for bit."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from fedprivseg.core.errors import DataError, FolderError
from fedprivseg.imaging.scrub import findings, scrub, scrub_file

SECRET = b"Zhang^Wei"
AFFINE = np.array([[-1.2, 0.3, 0, 40], [0.2, 1.1, 0.1, -20], [0, 0.2, 8, 7], [0, 0, 0, 1]])

GEOMETRY = (
    "dim pixdim xyzt_units qform_code sform_code quatern_b quatern_c quatern_d qoffset_x qoffset_y qoffset_z srow_x srow_y "
    "srow_z datatype bitpix scl_slope scl_inter intent_code slice_code slice_start slice_end slice_duration toffset cal_max "
    "cal_min intent_p1 intent_p2 intent_p3"
)
"""Every field of both formats that is neither text, nor the format's own, nor unused."""


def image(kind: type = nib.Nifti1Image, dtype: str = "<i2") -> Any:
    voxels = np.random.default_rng(0).integers(-300, 300, (5, 4, 3, 2)).astype(dtype)
    made = kind(voxels, AFFINE)
    header = made.header
    made.set_sform(AFFINE, code="aligned")
    made.set_qform(np.diag([-1.5, 1.25, 8, 1]), code="scanner")
    header.set_xyzt_units("mm", "msec")
    header["pixdim"][4] = 33.3
    for name in ("descrip", "aux_file", "db_name", "intent_name", "data_type"):
        if name in header.keys():  # noqa: SIM118
            header[name] = SECRET
    header.extensions.append(Nifti1Extension("comment", SECRET))
    return made


def write(path: Path, kind: type = nib.Nifti1Image, *, slope: float | None = None, big: bool = False) -> Path:
    """A file with text wherever one can stand, gzipped with its name and time in the head if `path` ends in .gz."""
    made = image(kind, ">i2" if big else "<i2")
    if big:
        made = kind(np.asarray(made.dataobj), None, made.header.as_byteswapped(">"))
    body = bytearray(made.to_bytes())
    if slope is not None:
        header = made.header.copy()
        offset, where = header.template_dtype.fields["scl_slope"][1], "<f4" if kind is nib.Nifti1Image else "<f8"
        packed = np.array([slope, 5], where).tobytes()
        body[offset : offset + len(packed)] = packed
    body += b"\0" * 7 + SECRET  # behind the voxels
    if path.suffix == ".gz":
        with path.open("wb") as raw, gzip.GzipFile(SECRET.decode(), "wb", fileobj=raw, mtime=1615939200) as packed_file:
            packed_file.write(body)
    else:
        path.write_bytes(body)
    return path


def fields(path: Path) -> dict[str, Any]:
    """All of `GEOMETRY` as it stands in the file, unread by nibabel's checks."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    kind = nib.Nifti2Header if raw[:2] in (b"\x1c\x02", b"\0\0") and b"n+2" in raw[:8] else nib.Nifti1Header
    header = kind(raw[: kind.sizeof_hdr], check=False)
    return {name: header[name].tobytes() for name in GEOMETRY.split()}


CASES = [(kind, suffix) for kind in (nib.Nifti1Image, nib.Nifti2Image) for suffix in (".nii", ".nii.gz")]


@pytest.mark.parametrize(("kind", "suffix"), CASES)
@pytest.mark.parametrize("slope", [None, 0.37])
def test_no_text_survives_and_voxels_scaling_and_geometry_stay(
    tmp_path: Path, kind: type, suffix: str, slope: float | None
) -> None:
    source = write(tmp_path / f"in{suffix}", kind, slope=slope)
    for target in (tmp_path / "out.nii", tmp_path / "out.nii.gz"):
        scrub_file(source, target)
        raw = target.read_bytes()
        assert SECRET not in raw
        assert SECRET not in (gzip.decompress(raw) if target.suffix == ".gz" else raw)
        assert fields(target) == fields(source)
        before, after = nib.load(source), nib.load(target)
        assert type(after) is kind
        assert np.array_equal(before.dataobj.get_unscaled(), after.dataobj.get_unscaled())
        assert np.array_equal(before.get_fdata(), after.get_fdata())
        assert np.array_equal(before.affine, after.affine)
        assert findings(before)
        assert findings(after) == ()
        assert after.dataobj.offset == {nib.Nifti1Image: 352, nib.Nifti2Image: 544}[kind]


def test_big_endian_files_stay_big_endian(tmp_path: Path) -> None:
    source = write(tmp_path / "in.nii", big=True)
    scrub_file(source, tmp_path / "out.nii")
    raw = (tmp_path / "out.nii").read_bytes()
    assert raw[:4] == (348).to_bytes(4, "big")
    assert SECRET not in raw
    assert fields(tmp_path / "out.nii") == fields(source)
    assert np.array_equal(nib.load(source).get_fdata(), nib.load(tmp_path / "out.nii").get_fdata())


@pytest.mark.parametrize(("kind", "suffix"), CASES)
def test_findings_are_names_and_tell_no_content(tmp_path: Path, kind: type, suffix: str) -> None:
    expected = ("descrip", "aux_file", "db_name", "intent_name", "data_type", "extensions")
    if kind is nib.Nifti2Image:
        expected = ("descrip", "aux_file", "intent_name", "extensions")
    source = write(tmp_path / f"in{suffix}", kind)
    assert findings(nib.load(source)) == expected
    assert scrub_file(source, tmp_path / "out.nii") == expected
    assert scrub_file(tmp_path / "out.nii", tmp_path / "again.nii") == ()


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_an_image_in_memory_is_scrubbed_and_the_one_given_is_not(kind: type) -> None:
    given = image(kind)
    before = given.header.copy()
    done = scrub(given)
    assert findings(done) == ()
    assert given.header == before
    assert len(given.header.extensions) == 1
    assert done.dataobj is given.dataobj
    assert np.array_equal(done.affine, given.affine)
    for name in GEOMETRY.split():
        assert done.header[name].tobytes() == given.header[name].tobytes(), name


def test_text_behind_a_null_is_found(tmp_path: Path) -> None:
    given = image()
    given.header["descrip"] = b"\0" + SECRET
    assert "descrip" in findings(given)
    assert findings(scrub(given)) == ()


def test_bytes_between_header_and_voxels_are_dropped_though_no_extension_is_announced(tmp_path: Path) -> None:
    made = image()
    made.header.extensions.clear()
    for name in ("descrip", "aux_file", "db_name", "intent_name", "data_type"):
        made.header[name] = b""
    body = bytearray(made.to_bytes())
    body[352:352] = SECRET.ljust(16, b"\0")
    body[108:112] = np.float32(368).tobytes()  # vox_offset
    (tmp_path / "in.nii").write_bytes(body)
    assert scrub_file(tmp_path / "in.nii", tmp_path / "out.nii") == ("extensions",)
    assert SECRET not in (tmp_path / "out.nii").read_bytes()
    assert np.array_equal(nib.load(tmp_path / "out.nii").get_fdata(), made.get_fdata())


def test_fields_that_nibabel_would_mend_stay_as_they_are(tmp_path: Path) -> None:
    made = image()
    body = bytearray(made.to_bytes())
    body[76:80] = np.float32(0).tobytes()  # pixdim[0], the handedness of the qform: 0, which a check turns into 1
    (tmp_path / "in.nii").write_bytes(body)
    scrub_file(tmp_path / "in.nii", tmp_path / "out.nii")
    assert fields(tmp_path / "out.nii") == fields(tmp_path / "in.nii")


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "in.nii.gz")
    for name in ("one.nii.gz", "two.nii.gz"):
        scrub_file(source, tmp_path / name)
    head = (tmp_path / "one.nii.gz").read_bytes()[:8]
    assert (head[3], head[4:8]) == (0, bytes(4))  # RFC 1952: no name or comment, no time
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()


def test_a_file_may_be_scrubbed_in_place(tmp_path: Path) -> None:
    source = write(tmp_path / "in.nii.gz")
    expected = nib.load(source).get_fdata()
    assert scrub_file(source, source)
    assert np.array_equal(nib.load(source).get_fdata(), expected)
    assert findings(nib.load(source)) == ()
    assert os.listdir(tmp_path) == ["in.nii.gz"]


def whole() -> bytes:
    return bytes(image().to_bytes())


def changed(at: int, value: Any) -> bytes:
    body = bytearray(whole())
    packed = np.array(value).tobytes()
    body[at : at + len(packed)] = packed
    return bytes(body)


BROKEN = {
    "nothing": b"",
    "noise": bytes(range(256)) * 3,
    "header alone": whole()[:348],
    "cut voxels": whole()[:-1],
    "cut gzip": gzip.compress(whole())[:-20],
    "gzip with a wrong byte": gzip.compress(whole(), mtime=0)[:-6] + b"\0\0\0\0\0\0",
    "half of a pair": whole()[:344] + b"ni1\0" + whole()[348:],
    "no magic": whole()[:344] + b"\0\0\0\0" + whole()[348:],
    "voxels before the end of the header": changed(108, np.float32(100)),
    "voxels nowhere": changed(108, np.float32(np.nan)),
    "voxels at infinity": changed(108, np.float32(np.inf)),
    "voxels far away": changed(108, np.float32(1e30)),
    "no axes": changed(40, np.int16(0)),
    "nine axes": changed(40, np.int16(9)),
    "a negative length": changed(42, np.int16(-5)),
    "more voxels than there are": changed(42, np.int16(32767)),
    "an unknown type": changed(70, np.int16(77)),
    "single bits": changed(70, np.int16(1)),
    "a wrong size of voxel": changed(72, np.int16(8)),
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_what_is_no_whole_nifti_is_refused_and_nothing_is_written(tmp_path: Path, body: bytes) -> None:
    source = tmp_path / "Zhang^Wei.nii"
    source.write_bytes(body)
    target = tmp_path / "out.nii.gz"
    target.write_bytes(b"what was there")
    with pytest.raises(DataError) as caught:
        scrub_file(source, target)
    assert "Zhang" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert target.read_bytes() == b"what was there"
    assert sorted(os.listdir(tmp_path)) == ["Zhang^Wei.nii", "out.nii.gz"]


def test_the_unbroken_file_is_fine(tmp_path: Path) -> None:
    """What `BROKEN` holds is refused for the change, not for the way in which it is built."""
    (tmp_path / "in.nii").write_bytes(changed(40, np.int16(4)))
    scrub_file(tmp_path / "in.nii", tmp_path / "out.nii")


def test_a_file_that_is_not_there_and_a_folder_that_is_not_there_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        scrub_file(tmp_path / "none.nii", tmp_path / "out.nii")
    source = write(tmp_path / "in.nii")
    with pytest.raises(FolderError, match="cannot be written") as caught:
        scrub_file(source, tmp_path / "none" / "out.nii")
    assert str(tmp_path) not in str(caught.value)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    source, target = write(tmp_path / "in.nii"), tmp_path / "out.nii"
    target.write_bytes(b"what was there")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FolderError, match="No space left"):
        scrub_file(source, target)
    assert target.read_bytes() == b"what was there"
    assert sorted(os.listdir(tmp_path)) == ["in.nii", "out.nii"]
