"""``fedprivseg deidentify``: every technique of Table 2 on a file, the advice beside it, and nothing done by halves."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from click.testing import Result
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.core.errors import RequestError
from fedprivseg.core.techniques import Technique
from fedprivseg.governance.deidentify.apply import IMAGES, TABLES
from fedprivseg.imaging.scrub import findings

AFFINE = np.array([[2.0, 0, 0, -10], [0, 3, 0, 5], [0, 0, 8, 1], [0, 0, 0, 1]])
VOXELS = np.random.default_rng(0).integers(1, 1000, (8, 12, 3, 2)).astype(np.float32)  # X, Y, Z, T


@pytest.fixture
def place(tmp_path) -> Path:
    """An image with text in its header, a table and a key file."""
    image = nib.Nifti1Image(VOXELS, AFFINE)
    image.header["descrip"] = b"Weiming"
    image.to_filename(tmp_path / "in.nii.gz")
    (tmp_path / "in.csv").write_text(
        "code,name,age,seen\n" + "".join(f"P{n},Weiming{n},{30 + n},2021-03-1{n}\n" for n in range(6)), encoding="utf-8"
    )
    (tmp_path / "key").write_bytes(bytes(range(32)))
    (tmp_path / "key").chmod(0o600)
    return tmp_path


def call(place: Path, source: str, out: str, technique: str, *words: str, grades=("high", "low")) -> Result:
    return CliRunner().invoke(
        app,
        ["deidentify", str(place / source), "-o", str(place / out), "--technique", technique,
         "--utility", grades[0], "--confidentiality", grades[1], *words],
    )  # fmt: skip


def done(place: Path, *words: str, **grades) -> str:
    result = call(place, *words, **grades)
    assert result.exception is None, result.exception
    return result.stdout


def refused(place: Path, *words: str) -> str:
    before = sorted(place.iterdir())
    fault = call(place, *words).exception
    assert isinstance(fault, RequestError), fault
    assert sorted(place.iterdir()) == before
    return str(fault)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_technique_of_the_table_has_an_operation_for_some_file():
    here = {name for kind in (*IMAGES, *TABLES) for name in kind.techniques} | {Technique.SYMMETRIC_ENCRYPTION}
    assert set(Technique) - here == {Technique.HOMOMORPHIC_ENCRYPTION}


def test_the_help_lists_the_techniques_and_says_what_sm1_is():
    text = CliRunner().invoke(app, ["deidentify", "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).stdout
    words = set(re.findall(r"\w+", text))  # names break at the end of a line
    assert [technique for technique in Technique if not set(technique.split()) <= words] == []
    assert {"SM1", "unpublished"} <= words


@pytest.mark.parametrize(
    ("grades", "verdict"),
    [(("high", "high"), "not recommended"), (("high", "low"), "open"), (("low", "low"), "recommended")],
)
def test_the_advice_for_the_declared_grades_stands_beside_what_was_done(place, grades, verdict):
    words = ("in.nii.gz", "out.nii", "occlusion", "--set", "rows=[0,4]", "--set", "columns=[0,6]")
    told = json.loads(done(place, *words, "--json", grades=grades))
    assert told["verdict"] == verdict
    assert told["history"] == "occlusion of rows 0 to 4, columns 0 to 6 with 0"
    plain = done(place, words[0], "again.nii", *words[2:], grades=grades).splitlines()
    assert plain[0] == f"{verdict}: {told['sentence']}"


def test_a_box_is_covered_in_every_slice_and_the_header_comes_without_text(place):
    done(place, "in.nii.gz", "out.nii.gz", "occlusion", "--set", "rows=[0,4]", "--set", "columns=[0,6]")
    image = nib.load(place / "out.nii.gz")
    expected = VOXELS.copy()
    expected[:4, :6] = 0  # X counts rows and Y columns, in every slice and frame
    assert np.array_equal(image.get_fdata(), expected)
    assert np.array_equal(image.affine, AFFINE)
    assert findings(image) == ()
    assert b"Weiming" not in gzip.decompress((place / "out.nii.gz").read_bytes())


def test_a_crop_and_coarser_pixels_stay_where_they_were(place):
    done(place, "in.nii.gz", "crop.nii", "truncation", "--set", "rows=[2,6]", "--set", "columns=[3,12]")
    cropped = nib.load(place / "crop.nii")
    assert np.array_equal(cropped.get_fdata(), VOXELS[2:6, 3:12])
    assert np.allclose(cropped.affine[:3, 3], [-10 + 2 * 2, 5 + 3 * 3, 1])
    done(place, "in.nii.gz", "coarse.nii", "generalisation", "--set", "block=2")
    coarse = nib.load(place / "coarse.nii")
    assert coarse.shape == (4, 6, 3, 2)
    assert np.allclose(coarse.header.get_zooms()[:3], (4, 6, 8))
    assert np.allclose(coarse.get_fdata()[0, 0], VOXELS[:2, :2].mean(axis=(0, 1)))
    # The centre of the first block of 2 x 2 lies half a pixel from that of the first pixel: 1 mm and 1.5 mm.
    assert np.allclose(coarse.affine[:3, 3], [-10 + 1, 5 + 1.5, 1])


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_a_picture_lies_where_an_independent_reader_puts_its_source(place, codes):
    image = nib.Nifti1Image(VOXELS[..., 0], None)
    scaled = np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE
    image.header.set_qform(scaled, 1)
    image.header.set_sform(scaled, 1)
    image.header["qform_code"], image.header["sform_code"] = codes
    image.header.set_xyzt_units("meter")
    nib.Nifti1Image(VOXELS[..., 0], None, image.header).to_filename(place / "metres.nii")
    done(place, "metres.nii", "same.nii", "occlusion", "--set", "rows=[0,4]", "--set", "columns=[0,6]")
    done(place, "metres.nii", "crop.nii", "truncation", "--set", "rows=[2,6]", "--set", "columns=[3,12]")
    done(place, "metres.nii", "coarse.nii", "generalisation", "--set", "block=2")
    source, same, crop, coarse = (
        SimpleITK.ReadImage(place / f"{name}.nii") for name in ("metres", "same", "crop", "coarse")
    )
    assert (same.GetOrigin(), same.GetSpacing()) == (source.GetOrigin(), source.GetSpacing())
    assert source.GetSpacing() == pytest.approx((2, 3, 8))
    assert coarse.GetSpacing() == pytest.approx((4, 6, 8))
    for image in (same, crop, coarse):
        assert image.GetDirection() == source.GetDirection()
    if any(codes):  # without a place there is nothing to move
        assert crop.GetOrigin() == pytest.approx(source.TransformIndexToPhysicalPoint((2, 3, 0)), abs=1e-4)
        there = source.TransformContinuousIndexToPhysicalPoint((0.5, 0.5, 0.0))
        assert coarse.GetOrigin() == pytest.approx(there, abs=1e-4)


@pytest.mark.parametrize("kind", ["complex", "RGB"])
def test_what_has_no_intensities_is_refused(place, kind):
    voxels = VOXELS[..., 0].astype(np.complex64)
    if kind == "RGB":
        voxels = np.zeros(voxels.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.Nifti1Image(voxels, AFFINE).to_filename(place / "other.nii")
    words = ("occlusion", "--set", "rows=[0,4]", "--set", "columns=[0,6]")
    assert "of integers or floats" in refused(place, "other.nii", "out.nii", *words)


@pytest.mark.parametrize("technique", ["rearrangement", "permutation", "data transformation"])
def test_what_a_key_did_the_key_undoes_and_no_other(place, technique):
    words = (technique, "--set", "block=4")
    done(place, "in.nii.gz", "out.nii", *words, "--key", str(place / "key"))
    assert not np.allclose(nib.load(place / "out.nii").get_fdata(), VOXELS)
    done(place, "out.nii", "back.nii", *words, "--undo", "--key", str(place / "key"))
    assert np.allclose(nib.load(place / "back.nii").get_fdata(), VOXELS, atol=1e-2)
    (place / "other").write_bytes(bytes(32))
    (place / "other").chmod(0o600)
    done(place, "out.nii", "wrong.nii", *words, "--undo", "--key", str(place / "other"))
    assert not np.allclose(nib.load(place / "wrong.nii").get_fdata(), VOXELS, atol=1e-2)


def test_metadata_is_generalised_substituted_and_shifted(place):
    done(place, "in.csv", "age.csv", "generalisation", "--set", "field=age", "--set", "years=5", "--set", "cap=90")
    assert [row["age"] for row in rows(place / "age.csv")] == ["30-34"] * 5 + ["35-39"]
    done(place, "in.csv", "codes.csv", "substitution", "--set", "field=code", "--key", str(place / "key"))
    codes = {row["code"] for row in rows(place / "codes.csv")}
    assert len(codes) == 6
    assert all(len(code) == 16 for code in codes)
    shift = ("random perturbation", "--set", 'fields=["seen"]', "--set", "subject=code", "--key", str(place / "key"))
    done(place, "in.csv", "days.csv", *shift)
    assert rows(place / "days.csv") != rows(place / "in.csv")
    done(place, "days.csv", "back.csv", *shift, "--undo")
    assert rows(place / "back.csv") == rows(place / "in.csv")
    done(place, "in.csv", "null.csv", "null insertion", "--set", 'fields=["name"]')
    assert {row["name"] for row in rows(place / "null.csv")} == {""}
    assert b"Weiming" not in (place / "null.csv").read_bytes()


def test_statistics_take_the_place_of_what_they_are_of(place):
    done(place, "in.nii.gz", "out.json", "statistics", "--set", "bins=4")
    told = json.loads((place / "out.json").read_text())
    assert (sum(told["counts"]), len(told["edges"])) == (VOXELS.size, 5)
    assert "is given" not in refused(place, "in.csv", "counts.nii", "statistics", "--set", 'fields=["age"]')
    done(place, "in.csv", "counts.json", "statistics", "--set", 'fields=["age"]')
    assert json.loads((place / "counts.json").read_text())["groups"] == []  # every age is one person's


def test_a_key_that_is_not_there_is_drawn_and_serves_to_undo(place):
    words = ("permutation", "--set", "block=4", "--key", str(place / "new"))
    assert "could not be read" in refused(place, "in.nii.gz", "no.nii", *words, "--undo")
    done(place, "in.nii.gz", "out.nii", *words)
    assert stat.S_IMODE((place / "new").stat().st_mode) == 0o600
    done(place, "out.nii", "back.nii", *words, "--undo")
    assert np.array_equal(nib.load(place / "back.nii").get_fdata(), VOXELS)


@pytest.mark.parametrize("cipher", ["AES", "SM4"])
def test_a_file_is_encrypted_and_opened_again(place, cipher):
    words = ("symmetric encryption", "--cipher", cipher, "--key", str(place / "key"))
    done(place, "in.csv", "out.bin", *words)
    assert b"Weiming" not in (place / "out.bin").read_bytes()
    done(place, "out.bin", "back.csv", *words, "--undo")
    assert (place / "back.csv").read_bytes() == (place / "in.csv").read_bytes()
    body = bytearray((place / "out.bin").read_bytes())
    body[-1] ^= 1
    (place / "bent.bin").write_bytes(body)
    assert "cannot be decrypted" in refused(place, "bent.bin", "no.csv", *words, "--undo")


ROUNDED = ("--set", "bits=3", "--set", "least=0", "--set", "most=1000")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("in.csv", "out", "symmetric encryption", "--cipher", "SM1"), "not published"),
        (("in.csv", "out", "symmetric encryption"), "name its key file"),
        (("in.csv", "out", "homomorphic encryption"), "nothing reads a file in it"),
        (("in.csv", "out.csv", "occlusion"), "is not for such a file; what is: generalisation"),
        (("in.nii.gz", "out.nii", "truncation"), "Crop: columns, rows; Clipping: high, low; Precision: bits, least, most"),
        (("in.nii.gz", "out.nii", "truncation", "--set", "bitz=3"), "given: bitz"),
        (("in.nii.gz", "out.nii", "truncation", "--set", "rows=3", "--set", "columns=4"), "rows: Input should be a valid"),
        (("in.nii.gz", "out.csv", "truncation", *ROUNDED), "must end in .nii or .nii.gz"),
        (("in.nii.gz", "out.nii", "truncation", *ROUNDED, "--undo"), "cannot be undone here"),
        (("in.nii.gz", "out.nii", "permutation", "--set", "block=4"), "name its key file"),
        (("in.nii.gz", "in.csv", "truncation", *ROUNDED), "exists already"),
        (("in.csv", "out.csv", "numeric transform", "--set", "field=name", "--set", "gain=2", "--set", "offset=1"),
         "the column 'name' holds something that is no number"),
        (("gone.nii", "out.nii", "truncation", *ROUNDED), "no readable NIfTI"),
        (("key", "out.nii", "truncation", *ROUNDED), "neither an image"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_would_and_leaves_nothing(place, words, said):
    message = refused(place, *words)
    assert said in message
    assert "Weiming" not in message


def test_a_table_that_is_none_is_refused(place):
    (place / "ragged.csv").write_text("a,b\n1\n")
    assert "longer or shorter" in refused(place, "ragged.csv", "out.csv", "null insertion", "--set", 'fields=["a"]')
    (place / "bytes.csv").write_bytes(os.urandom(8) + b"\xff\xfe\xff")
    assert "no table" in refused(place, "bytes.csv", "out.csv", "null insertion", "--set", 'fields=["a"]')
