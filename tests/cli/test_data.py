"""``fedprivseg data scrub``: copies without text, the originals untouched, a whole folder or nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import Result
from nibabel.nifti1 import Nifti1Extension
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.core.errors import RequestError
from fedprivseg.imaging.scrub import findings


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two images with text in their headers, one without, and a table."""
    source = tmp_path / "in"
    (source / "a").mkdir(parents=True)
    for place, text in (("a/one.nii.gz", b"Weiming"), ("two.nii", b"Weiming"), ("three.nii.gz", b"")):
        image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([2, 2, 8, 1]))
        image.header["descrip"] = text
        if text:
            image.header.extensions.append(Nifti1Extension("comment", text))
        image.to_filename(source / place)
    (source / "table.csv").write_text("name\nWeiming\n")
    (source / "link.nii").symlink_to(source / "two.nii")
    return source


def scrub(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", "scrub", *map(str, words)])


def refused(*words: object) -> str:
    """What is said when the request is refused; the console script ends with the error's status."""
    fault = scrub(*words).exception
    assert isinstance(fault, RequestError)
    assert fault.status == 2
    return str(fault)


def test_copies_lose_their_text_and_originals_stay(folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = scrub(folder, "-o", tmp_path / "out", "--json")
    assert json.loads(done.stdout) == {
        "files": 3,
        "cleared": {"descrip": 2, "extensions": 2},
        "left_out": 2,
        "companions": 0,
    }
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    places = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.nii*"))
    assert places == ["a/one.nii.gz", "three.nii.gz", "two.nii"]
    for place in places:
        image = nib.load(tmp_path / "out" / place)
        assert findings(image) == ()
        assert np.array_equal(image.get_fdata(), nib.load(folder / place).get_fdata())
        assert np.array_equal(image.affine, nib.load(folder / place).affine)


def test_companion_files_of_macos_are_ignored_with_a_word(folder, tmp_path):
    """They end in .nii too, and hold no image: the whole folder was refused for one of them."""
    for place in ("a/._one.nii.gz", "._table.csv"):
        (folder / place).write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    done = scrub(folder, "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert "3 files without text in their headers; 2 other files left out" in done.stdout
    assert "2 files that macOS wrote beside others (._*) ignored" in done.stdout
    assert not list((tmp_path / "out").rglob("._*"))
    assert json.loads(scrub(folder, "-o", tmp_path / "again", "--json").stdout)["companions"] == 2


def test_a_file_that_is_only_called_like_a_companion_is_read(folder, tmp_path):
    shutil.copy(folder / "two.nii", folder / "._two.nii")
    assert json.loads(scrub(folder, "-o", tmp_path / "out", "--json").stdout)["files"] == 4


def test_in_a_pipe_it_prints_a_plain_table(folder, tmp_path):
    done = scrub(folder, "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[:3] == ["header field\tcleared in files", "descrip\t2", "extensions\t2"]


def test_one_damaged_file_refuses_the_folder_by_its_name(folder, tmp_path):
    (folder / "a" / "broken.nii").write_bytes(b"Weiming")
    command = [sys.executable, "-m", "fedprivseg.cli", "data", "scrub", str(folder), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'a/broken.nii': the file is no whole NIfTI" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(
    ("place", "said"),
    [("in", "lies in the one that is read"), ("in/out", "lies in the one that is read"), ("there", "exists already")],
)
def test_nothing_is_scrubbed_in_place_or_over_something(folder, tmp_path, place, said):
    (tmp_path / "there").mkdir()
    assert said in refused(folder, "-o", tmp_path / place)
    assert not list((tmp_path / "there").iterdir())


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    assert "holds no .nii" in refused(tmp_path / "in", "-o", tmp_path / "out")
    shutil.rmtree(tmp_path / "in")
    assert "the folder is absent" in refused(tmp_path / "in", "-o", tmp_path / "out")


def check(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, words)])


def test_both_layouts_are_checked_and_faults_are_named(tmp_path, phantom):
    heads = tmp_path / "heads"
    done = CliRunner().invoke(app, ["data", "phantom", str(heads), "--kind", "phantom-brain", "--subjects", "2"])
    assert done.exit_code == 0
    for folder, form, labels in ((phantom, "mnms", {"LV": 1, "MYO": 2, "RV": 3}), (heads, "nnunet", {"lesion": 1})):
        done = check(folder, "--json")
        assert done.exit_code == 0
        told = json.loads(done.stdout)
        assert (told["format"], told["labels"], told["faults"]) == (form, labels, [])
        assert {row["split"] for row in told["splits"]} >= {"train", "test"}
    assert "nnU-Net raw, labels 1 lesion: 6 subjects usable, 0 faults, 0 warnings" in check(heads).stdout
    (heads / "labelsTr/1_000.nii.gz").unlink()
    done = check(heads)
    assert done.exit_code == 1
    assert "fault: no-labels: labelsTr holds no labels of 1_000 (labelsTr/1_000.nii.gz)" in done.stdout
    (fault,) = json.loads(check(heads, "--json").stdout)["faults"]
    assert fault["code"] == "no-labels"


def test_a_data_set_that_cannot_be_read_is_refused_with_what_is_expected(tmp_path):
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "whole": [1, 2]}}')
    for words, said in (
        ((tmp_path,), "channel_names must number the channels"),
        ((tmp_path, "--format", "mnms"), "Expected is an M&Ms release"),
        ((tmp_path, "--format", "nifti"), "the datasets are: mnms, nnunet"),
    ):
        with pytest.raises(RequestError) as caught:
            CliRunner().invoke(app, ["data", "check", *map(str, words)], catch_exceptions=False)
        assert caught.value.status == 2
        assert said in str(caught.value)
    with pytest.raises(RequestError, match="the phantoms are: phantom, phantom-brain"):
        CliRunner().invoke(app, ["data", "phantom", str(tmp_path / "x"), "--kind", "liver"], catch_exceptions=False)
