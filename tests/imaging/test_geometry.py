"""Headers: which transform counts, what is a contradiction, and that masks lie where an independent reader puts the image."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from fedprivseg.imaging.geometry import FAULTS, FileFault, Geometry, Header, apart_mm, read_header
from fedprivseg.imaging.mnms.release import SHORT_AXIS_CINE
from fedprivseg.imaging.nifti import opened
from fedprivseg.imaging.volumes import write_mask

SHAPE = (60, 56, 5)
SIZES = (1.5, 1.25, 8.0)
VERSIONS = {"1": nib.Nifti1Image, "2": nib.Nifti2Image}


def turned(*degrees: float) -> np.ndarray:
    """Voxel to mm, with slices along the third axis and the rotation about x, y, z."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * SIZES
    affine[:3, 3] = (-71.5, 40.25, -12.0)
    return affine


STRAIGHT, OBLIQUE = turned(0, 0, 0), turned(33, -21, 47)
FLIPPED = STRAIGHT @ np.diag([-1, 1, 1, 1])  # a left-handed grid: the qform needs qfac -1
HALF_TURN = turned(0, 0, 180)  # the worst case of a quaternion in single precision
SLICES_FIRST, SLICES_SECOND = OBLIQUE[:, [2, 0, 1, 3]], OBLIQUE[:, [0, 2, 1, 3]]

# name -> (affine, qform_code, sform_code, unit of length)
KINDS: dict[str, tuple[np.ndarray, int, int, str]] = {
    "sform only": (OBLIQUE, 0, 2, "mm"),
    "qform only": (OBLIQUE, 1, 0, "mm"),
    "both": (OBLIQUE, 1, 1, "mm"),
    "both, other codes": (OBLIQUE, 1, 4, "mm"),
    "no code": (STRAIGHT, 0, 0, "mm"),
    "no code, oblique": (OBLIQUE, 0, 0, "mm"),
    "no code, slices first": (SLICES_FIRST, 0, 0, "mm"),
    "no unit": (OBLIQUE, 0, 2, "unknown"),
    "metres": (OBLIQUE, 1, 1, "meter"),
    "metres, no code": (OBLIQUE, 0, 0, "meter"),
    "microns, qform": (FLIPPED, 1, 0, "micron"),
    "flipped, sform": (FLIPPED, 0, 1, "mm"),
    "flipped, qform": (FLIPPED, 2, 0, "mm"),
    "flipped, both": (FLIPPED, 1, 1, "mm"),
    "half a turn": (HALF_TURN, 1, 1, "mm"),
    "slices first, sform": (SLICES_FIRST, 0, 2, "mm"),
    "slices first, qform": (SLICES_FIRST, 1, 0, "mm"),
    "slices second, both": (SLICES_SECOND, 1, 1, "mm"),
}
TO_MM = {"mm": 1, "unknown": 1, "meter": 1000, "micron": 0.001}


def stored_shape(affine: np.ndarray) -> tuple[int, ...]:
    """`SHAPE` in the order in which `affine` has the axes."""
    ranks = np.linalg.norm(affine[:3, :3], axis=0).argsort().argsort()
    return tuple((56, 60, 5)[rank] for rank in ranks)  # the shortest edge is Y's, the longest Z's


def header_of(
    affine: np.ndarray = STRAIGHT, qform: int = 1, sform: int = 1, unit: str = "mm", kind: type = nib.Nifti1Image
) -> Header:
    """A header as a writer would make it; both transforms are filled in whatever the codes say."""
    header = kind.header_class()
    header.set_data_shape(stored_shape(affine))
    header.set_data_dtype(np.int16)
    scaled = affine.copy()
    scaled[:3] /= TO_MM[unit]
    header.set_qform(scaled, 1)
    header.set_sform(scaled, 1)
    header["qform_code"], header["sform_code"] = qform, sform
    header.set_xyzt_units(unit, "sec")
    return header


def written(path: Path, header: Header) -> np.ndarray:
    """An image of noise with that header at `path`; returns its voxels as stored."""
    voxels = np.random.default_rng(5).integers(0, 900, header.get_data_shape(), dtype=np.int16)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    kind(voxels, None, header).to_filename(path)
    return voxels


def by_itk(path: Path) -> SimpleITK.Image:
    """The image at `path` as ITK reads it. ITK reads no NIfTI-2, whose fields have the same names and meanings: such a file is
    put into NIfTI-1 as it stands, field by field."""
    body = gzip.decompress(path.read_bytes())
    if len(body) > 540 and body[4:7] == b"n+2":
        header, plain = nib.Nifti2Header(body[:540], check=False), nib.Nifti1Header()
        for name in set(header.keys()) & set(plain.keys()) - {"sizeof_hdr", "magic", "vox_offset"}:
            plain[name] = header[name]
        plain["vox_offset"] = 352
        path = path.with_name(f"as-nifti1-{path.name}")
        path.write_bytes(gzip.compress(plain.binaryblock + body[540:], 1))
    return SimpleITK.ReadImage(path)


def far_corner(image: SimpleITK.Image) -> tuple[float, ...]:
    return image.TransformIndexToPhysicalPoint([size - 1 for size in image.GetSize()])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", KINDS)
def test_itk_puts_the_mask_on_the_image(name: str, version: str, tmp_path: Path) -> None:
    affine, *codes, unit = KINDS[name]
    voxels = written(tmp_path / "image.nii.gz", header_of(affine, *codes, unit, kind=VERSIONS[version]))
    with opened(tmp_path / "image.nii.gz", SHORT_AXIS_CINE) as file:
        geometry, frame = file.geometry, file.frame(0)
    assert geometry.shape == frame.shape == SHAPE
    assert geometry.spacing == pytest.approx(SIZES)
    write_mask(tmp_path / "mask.nii.gz", geometry.stored((frame > 500).astype(np.uint8)), geometry.header)
    image, mask = (by_itk(tmp_path / f"{each}.nii.gz") for each in ("image", "mask"))
    # The fields are the same bits, so whatever ITK makes of them is the same number.
    assert mask.GetOrigin() == image.GetOrigin()
    assert mask.GetSpacing() == image.GetSpacing()
    assert mask.GetDirection() == image.GetDirection()
    assert far_corner(mask) == far_corner(image)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask), SimpleITK.GetArrayFromImage(image) > 500)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj), voxels > 500)
    assert type(nib.load(tmp_path / "mask.nii.gz")) is VERSIONS[version]
    # And what this package reads is what ITK reads; ITK's x and y run the other way (LPS, not RAS).
    assert image.GetSpacing() == pytest.approx([SIZES[geometry.order.index(axis)] for axis in range(3)])
    if geometry.placed:
        for corner, there in (((0, 0, 0), image.GetOrigin()), (np.array(SHAPE) - 1, far_corner(image))):
            assert (geometry.affine @ [*corner, 1])[:3] == pytest.approx(np.multiply(there, (-1, -1, 1)), abs=0.05)


def test_a_header_without_codes_keeps_none(tmp_path: Path) -> None:
    written(tmp_path / "image.nii", header_of(OBLIQUE, 0, 0))
    with opened(tmp_path / "image.nii", SHORT_AXIS_CINE) as file:
        geometry = file.geometry
    assert not geometry.placed
    write_mask(tmp_path / "mask.nii", np.zeros(SHAPE, np.uint8), geometry.header)
    header = nib.load(tmp_path / "mask.nii").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 0)
    assert header["pixdim"][1:4].tolist() == list(SIZES)


def poked(change: Callable[[Header], object], *args: object) -> Header:
    header = header_of(*args)
    change(header)
    return header


def set_sizes(*sizes: float) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        header["pixdim"][1:4] = sizes

    return change


def scaled(factor: float) -> np.ndarray:
    return np.diag([factor, factor, factor, 1]) @ STRAIGHT


def sform(affine: np.ndarray) -> Callable[[Header], None]:
    return lambda header: header.set_sform(affine, 2)


def moved(by: float) -> np.ndarray:
    affine = STRAIGHT.copy()
    affine[0, 3] += by
    return affine


def sheared() -> np.ndarray:
    affine = STRAIGHT.copy()
    affine[:3, 1] += 0.1 * affine[:3, 0]
    return affine


def field(name: str, value: object) -> Callable[[Header], None]:
    return lambda header: header.__setitem__(name, value)


UNIT = np.diag([-1.0, -1, 1, 1])
WRONG: dict[str, tuple[str, str, Header]] = {
    "ACDC's unit sform": (
        "contradicting-header",
        "the sform says that voxels are 1 x 1 x 1 mm, qform and pixdim say 1.5 x 1.25 x 8 mm",
        poked(sform(UNIT)),
    ),
    "unit sform alone": ("contradicting-header", "pixdim says 1.5 x 1.25 x 8 mm", poked(sform(UNIT), STRAIGHT, 0, 2)),
    "pixdim of 1 beside an sform": ("contradicting-header", "1 x 1 x 1", poked(set_sizes(1, 1, 1), STRAIGHT, 0, 1)),
    "two places": ("contradicting-header", "a corner 12.0 mm apart", poked(sform(moved(12)))),
    "two orientations": ("contradicting-header", "apart", poked(sform(FLIPPED))),
    "nothing known": ("invented-sizes", "pixdim says 1 x 1 x 1 mm", poked(set_sizes(1, 1, 1), STRAIGHT, 0, 0)),
    "a slice's size alone": ("invented-sizes", "1 x 1 x 8 mm", poked(set_sizes(1, 1, 8), STRAIGHT, 0, 0)),
    "sizes of 0": ("invented-sizes", "0 x 0 x 0", poked(set_sizes(0, 0, 0), STRAIGHT, 0, 0)),
    "1 in metres": ("invented-sizes", "", poked(set_sizes(1, 1, 1), STRAIGHT, 0, 0, "meter")),
    "negative sizes": ("bad-geometry", "sizes above 0", poked(set_sizes(-1.5, 1.25, 8))),
    "NaN sizes": ("bad-geometry", "sizes above 0", poked(set_sizes(np.nan, 1.25, 8), STRAIGHT, 1, 0)),
    "an empty sform": ("bad-geometry", "voxels are 0 x 0 x 0", poked(sform(np.zeros((4, 4))), STRAIGHT, 0, 1)),
    "NaN in the sform": ("bad-geometry", "NaN", poked(field("srow_x", np.nan))),
    "no rotation": ("bad-geometry", "quaternion", poked(field("quatern_b", 1.5), STRAIGHT, 1, 0)),
    "sheared": ("bad-geometry", "not perpendicular", poked(sform(sheared()), STRAIGHT, 0, 1)),
    "an unknown code": ("bad-geometry", "sform_code is 9", poked(field("sform_code", 9))),
    "an unknown unit": ("bad-units", "names length 5", poked(field("xyzt_units", 5))),
    "centimetres": ("implausible-geometry", "0.15 x 0.125 x 0.8 mm.*centimetres", header_of(scaled(0.1))),
    "metres that say mm": ("implausible-geometry", "are these metres", header_of(scaled(0.001))),
    "thin slices": ("implausible-geometry", "slices 2.5 to 20 mm", header_of(STRAIGHT @ np.diag([1, 1, 0.2, 1]))),
    "huge pixels": ("implausible-geometry", "pixels of 0.5 to 3.5 mm", header_of(STRAIGHT @ np.diag([4, 4, 1, 1]))),
    "cubes": ("slice-axis", "3 x 3 x 3 mm", header_of(np.diag([3.0, 3, 3, 1]))),
    "a keyhole": ("implausible-geometry", "field of view is 18 x 70 mm", poked(lambda h: h.set_data_shape((12, 56, 5)))),
    "wider than a bore": ("implausible-geometry", "900 x 70 mm", poked(lambda h: h.set_data_shape((600, 56, 5)))),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_header_that_is_not_believed(name: str) -> None:
    code, says, header = WRONG[name]
    with pytest.raises(FileFault) as caught:
        read_header(header, SHORT_AXIS_CINE)
    assert caught.value.code == code
    assert re.search(says, caught.value.what), caught.value.what


def test_every_fault_is_tested() -> None:
    assert {code for code, _, _ in WRONG.values()} == set(FAULTS)


def read(header: Header) -> Geometry:
    return read_header(header, SHORT_AXIS_CINE)


def test_what_is_switched_off_contradicts_nothing() -> None:
    assert read(poked(field("quatern_b", 0.7), STRAIGHT, 0, 2)).spacing == pytest.approx(SIZES)
    assert read(poked(field("srow_x", 5), STRAIGHT, 1, 0)).spacing == pytest.approx(SIZES)


def test_rounding_is_no_contradiction() -> None:
    """pixdim with two decimals beside an exact sform, and a quaternion's rounding of half a turn over 450 mm."""
    exact = np.diag([1.5625, 1.5625, 8, 1])
    assert read(poked(lambda h: (h.set_sform(exact, 1), set_sizes(1.56, 1.56, 8)(h)), STRAIGHT, 0, 1)).placed
    wide = turned(0, 0, 180)
    header = header_of(wide)
    header.set_data_shape((300, 300, 12))
    assert read(header).placed


def test_qfac_of_zero_counts_as_one() -> None:
    header = header_of(OBLIQUE, 1, 0)
    header["pixdim"][0] = 0
    np.testing.assert_allclose(read(header).affine, OBLIQUE, atol=1e-4)


def test_the_masks_header_holds_geometry_alone() -> None:
    header = header_of(OBLIQUE)
    header["descrip"], header["intent_name"], header["pixdim"][5:] = b"Zhang Wei", b"4711", 4711
    bare = nib.Nifti1Header(read(header).header, check=False)
    assert bare["descrip"].item() == bare["intent_name"].item() == b""
    assert 4711 not in bare["pixdim"]
    assert bare["sform_code"] == header["sform_code"]


def test_how_far_apart() -> None:
    assert apart_mm(read(header_of()), read(header_of(moved(3)))) == pytest.approx(3)
    # Without a place only sizes can differ: 0.75 mm (6 %, no rounding) over 4 slices.
    alone = read(header_of(STRAIGHT @ np.diag([1, 1, 8.75 / 8, 1]), 0, 0))
    assert apart_mm(alone, read(header_of(moved(3)))) == pytest.approx(4 * 0.75)
