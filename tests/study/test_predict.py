"""Predicting one image: the same door as for a release, the mask on the image, and words where it is not to be trusted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from fedprivseg.core.errors import DataError, FolderError, RequestError
from fedprivseg.core.results import Result, read_result
from fedprivseg.study import predict
from fedprivseg.study.predict import Prediction, predict_image

SITE = "centre2"
Made = Callable[..., Path]


@pytest.fixture(scope="module")
def source(phantom: Path) -> nib.Nifti1Image:
    """A frame of a test subject of the site."""
    codes = {path.name: path for path in phantom.glob("Testing/*")}
    sites = (phantom / "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv").read_text().splitlines()[1:]
    code = next(row.split(",")[1] for row in sites if row.split(",")[4] == "2" and row.split(",")[1] in codes)
    image = nib.load(codes[code] / f"{code}_sa.nii.gz")
    return nib.Nifti1Image(np.asarray(image.dataobj[..., 0]), image.affine)


@pytest.fixture
def made(source: nib.Nifti1Image, tmp_path: Path) -> Made:
    """Writes that frame, or other voxels, after a change of its header."""

    def make(
        change: Callable[[nib.Nifti1Header], object] | None = None,
        voxels: np.ndarray | None = None,
        affine: np.ndarray | None = None,
        kind: type = nib.Nifti1Image,
    ) -> Path:
        image = kind(
            np.asarray(source.dataobj) if voxels is None else voxels, source.affine if affine is None else affine
        )
        header, body = image.header, image.to_bytes()
        if change:
            size = header.sizeof_hdr
            header = type(header)(body[:size], check=False)
            change(header)
            body = bytes(header.binaryblock) + body[size:]
        path = tmp_path / "image.nii"
        path.write_bytes(body)
        return path

    return make


def call(run: Path, image: Path) -> Prediction:
    return predict_image(run, image, SITE, image.with_name("mask.nii"))


def codes_of(done: Prediction) -> list[str]:
    return [warned.code for warned in done.warnings]


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, strict_run: Path) -> Path:
    """A run that passed its test: the one at hand was trained for three steps."""
    return with_dice(monkeypatch, strict_run, 0.9)


def with_dice(monkeypatch: pytest.MonkeyPatch, run: Path, dice: float | None) -> Path:
    def read(folder: Path) -> Result:
        result = read_result(folder)
        scores = result.sites[SITE].dice.model_copy(
            update={"structures": {"LV": dice, "MYO": dice, "RV": 0.9}, "mean": dice}
        )
        site = result.sites[SITE].model_copy(update={"dice": scores})
        return result.model_copy(update={"sites": {**result.sites, SITE: site}})

    monkeypatch.setattr(predict, "read_result", read)
    return run


# --- the mask ------------------------------------------------------------------------------------------------------------


def test_the_mask_of_an_image_without_a_place_has_none_either(strict_run: Path, made: Made) -> None:
    image = made(lambda header: header.__setitem__("sform_code", 0))
    done = call(strict_run, image)
    header = nib.load(done.mask).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 0)
    one, other = SimpleITK.ReadImage(image), SimpleITK.ReadImage(done.mask)
    assert (one.GetOrigin(), one.GetSpacing(), one.GetDirection()) == (
        *(other.GetOrigin(), other.GetSpacing(), other.GetDirection()),
    )


def test_the_same_mask_whatever_the_order_of_axes_unit_and_version(
    strict_run: Path, made: Made, source: nib.Nifti1Image
) -> None:
    usual = np.asarray(nib.load(call(strict_run, made()).mask).dataobj)
    assert usual.shape == source.shape
    first = made(voxels=np.asarray(source.dataobj).transpose(2, 0, 1), affine=source.affine[:, [2, 0, 1, 3]])
    done = call(strict_run, first)
    assert done.shape == (source.shape[2], *source.shape[:2])
    np.testing.assert_array_equal(np.asarray(nib.load(done.mask).dataobj), usual.transpose(2, 0, 1))

    def metres(header: nib.Nifti1Header) -> None:
        header.set_xyzt_units("meter")
        header["pixdim"][1:4] /= 1000
        for row in ("srow_x", "srow_y", "srow_z"):
            header[row] /= 1000

    done = call(strict_run, made(metres))
    assert (np.asarray(nib.load(done.mask).dataobj) == usual).mean() > 0.999  # a thousandth is no float32
    assert nib.load(done.mask).header.get_xyzt_units()[0] == "meter"
    done = call(strict_run, made(kind=nib.Nifti2Image))
    assert isinstance(nib.load(done.mask), nib.Nifti2Image)
    np.testing.assert_array_equal(np.asarray(nib.load(done.mask).dataobj), usual)


# --- refused -------------------------------------------------------------------------------------------------------------


def zero_sform(header: nib.Nifti1Header) -> None:
    header["srow_x"] = header["srow_y"] = header["srow_z"] = 0


def unit_sform(header: nib.Nifti1Header) -> None:
    header.set_sform(np.eye(4), 2)


def spoiled(voxels: np.ndarray, value: float) -> np.ndarray:
    changed = voxels.astype(np.float32)
    changed[3, 4, 5] = value
    return changed


def as_rgb(voxels: np.ndarray) -> np.ndarray:
    return np.stack([(voxels // 8).astype("u1")] * 3, -1).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]


FAULTY: dict[str, tuple[str, Callable[[Made, np.ndarray], Path]]] = {
    "zero sform": ("bad-geometry", lambda made, voxels: made(zero_sform)),
    "ACDC's sform": ("contradicting-header", lambda made, voxels: made(unit_sform)),
    "no sizes": (
        "invented-sizes",
        lambda made, voxels: made(lambda h: (h.__setitem__("sform_code", 0), h["pixdim"].__setitem__(slice(1, 4), 1))),
    ),
    "metres that say mm": (
        "implausible-geometry",
        lambda made, voxels: made(affine=np.diag([0.00125, 0.00125, 0.01, 1])),
    ),
    "RGB": ("data type is RGB", lambda made, voxels: made(voxels=as_rgb(voxels))),
    "complex": ("data type is complex64", lambda made, voxels: made(voxels=voxels.astype(np.complex64))),
    "NaN": ("not-finite", lambda made, voxels: made(voxels=spoiled(voxels, np.nan))),
    "infinity": ("not-finite", lambda made, voxels: made(voxels=spoiled(voxels, np.inf))),
    "five axes": ("wrong-dimensions", lambda made, voxels: made(voxels=voxels[..., None, None])),
    "two axes": ("wrong-dimensions", lambda made, voxels: made(voxels=voxels[..., 0])),
    "half of it": ("unreadable", lambda made, voxels: cut(made())),
    "a text": ("unreadable", lambda made, voxels: text(made())),
}


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def text(path: Path) -> Path:
    path.write_text("no image " * 100)
    return path


@pytest.mark.parametrize("name", FAULTY)
def test_an_image_with_a_fault_is_refused_and_nothing_is_written(
    name: str, strict_run: Path, made: Made, source: nib.Nifti1Image
) -> None:
    says, spoil = FAULTY[name]
    image = spoil(made, np.asarray(source.dataobj))
    with pytest.raises(DataError, match=says) as caught:
        call(strict_run, image)
    assert str(image) in str(caught.value)
    assert os.listdir(image.parent) == [image.name]


@pytest.mark.parametrize("way", ["itself", "symbolic link", "hard link", "through a linked folder"])
def test_the_image_is_never_replaced(way: str, strict_run: Path, made: Made) -> None:
    image = made()
    before = image.read_bytes()
    out = image.with_name("mask.nii")
    if way == "itself":
        out = image
    elif way == "symbolic link":
        out.symlink_to(image)
    elif way == "hard link":
        os.link(image, out)
    else:
        (image.parent / "folder").symlink_to(image.parent)
        out = image.parent / "folder" / image.name
    with pytest.raises(RequestError, match="the image itself"):
        predict_image(strict_run, image, SITE, out)
    assert image.read_bytes() == out.read_bytes() == before


def test_another_file_is_replaced(strict_run: Path, made: Made) -> None:
    image = made()
    image.with_name("mask.nii").write_text("an older mask")
    assert nib.load(call(strict_run, image).mask).shape == nib.load(image).shape


def test_what_is_no_run(tmp_path: Path, made: Made) -> None:
    with pytest.raises(FolderError, match="no finished run"):
        call(tmp_path, made())


# --- warnings ------------------------------------------------------------------------------------------------------------


def test_an_image_like_the_training_images_is_met_without_a_word(trusted: Path, made: Made) -> None:
    done = call(trusted, made())
    assert {*codes_of(done)} <= {"empty-mask"}  # of three steps of training nothing else can be asked


UNLIKE: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]]] = {
    "large pixels": ("pixels 2", lambda v, a: (v, a @ np.diag([1.7, 1.7, 1, 1]))),
    "near slices": ("slices apart by 4 mm; there 10 to 10 mm", lambda v, a: (v, a @ np.diag([1, 1, 0.4, 1]))),
    "a cut-out": ("a field of view of", lambda v, a: (v[60:180, 60:180], a)),
    "two slices": ("slices, in number 2", lambda v, a: (v[..., 5:7], a)),
    "inverted": ("a mean intensity", lambda v, a: (v.max() - v, a)),
    "a mask": ("a mean intensity", lambda v, a: (((v > np.percentile(v, 97)) * 3).astype(np.uint8), a)),
    "noise": ("a mean step", lambda v, a: (np.random.default_rng(0).integers(0, 900, v.shape, np.int16), a)),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_an_image_unlike_the_training_images_is_warned_of(
    name: str, trusted: Path, made: Made, source: nib.Nifti1Image
) -> None:
    says, change = UNLIKE[name]
    voxels, affine = change(np.asarray(source.dataobj), source.affine)
    done = call(trusted, made(voxels=voxels, affine=affine))
    (warned,) = [each for each in done.warnings if each.code == "unlike-training"]
    assert says in warned.text
    assert SITE in warned.text


def test_a_run_that_segments_nothing_is_warned_of(
    strict_run: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = call(with_dice(monkeypatch, strict_run, 0.02), made())
    (warned,) = [each for each in done.warnings if each.code == "near-zero-dice"]
    assert "LV 0.020, MYO 0.020" in warned.text  # and no word of the RV, which is found
    done = call(with_dice(monkeypatch, strict_run, None), made())
    assert "untested" in codes_of(done)


def test_an_empty_mask_is_warned_of(trusted: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        predict.SiteRuntime, "labels", lambda self, volume, scores: np.zeros(volume.image.shape, np.uint8)
    )
    assert codes_of(call(trusted, made())) == ["empty-mask"]


def test_a_site_that_keeps_no_profile_says_so(trusted: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "PROFILE", "another-name")
    assert "no-profile" in codes_of(call(trusted, made()))
