"""The raw layout of nnU-Net: what is read, who is where, and what is refused with which words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedprivseg.core.errors import DataError
from fedprivseg.imaging.cohort import summarise
from fedprivseg.imaging.nnunet import FAULTS, NnUNet
from fedprivseg.imaging.phantom.brain import write_brains


@pytest.fixture(scope="session")
def heads(tmp_path_factory) -> Path:
    """Two centres with three heads each."""
    return write_brains(tmp_path_factory.mktemp("heads") / "Dataset001", 3, 0, centres=(1, 2))


@pytest.fixture
def root(heads: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(heads, tmp_path / "Dataset001"))


def say(root: Path, **changes: object) -> None:
    """Change keys of the ``dataset.json``; None takes one out."""
    said = json.loads((root / "dataset.json").read_text()) | changes
    (root / "dataset.json").write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


def table(root: Path, *rows: str, header: str = "case,site,split") -> None:
    (root / "cases.csv").write_text("\n".join([header, *rows]) + "\n")


def change(path: Path, made: Callable[[np.ndarray], np.ndarray], shift: float = 0.0) -> None:
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += shift
    nib.Nifti1Image(made(np.asarray(image.dataobj)), affine).to_filename(path)


def codes(root: Path) -> set[str]:
    return {fault.code for fault in NnUNet().check(root).faults}


def test_a_sound_release(root: Path) -> None:
    release = NnUNet().check(root)
    assert release.faults == release.warnings == ()
    assert {(one.centre, one.split) for one in release.subjects} == {(c, s) for c in "12" for s in ("train", "test")}
    assert all(one.frames == {"scan": 0} and one.order == ("lesion",) for one in release.subjects)
    assert all(set(one.attributes) == {"disease", "sex"} for one in release.subjects)
    task = NnUNet().task(root)
    assert (task.name, task.names, task.times) == ("brainlesionphantom", ("lesion",), ("scan",))
    volume = NnUNet().load(release.subjects[0], task)["scan"]
    assert set(np.unique(volume.mask)) == {0, 1}
    rows = summarise(release)
    assert [(row.centre, row.split, row.subjects, row.labels) for row in rows][:2] == [
        ("1", "train", 2, (0, 1)),
        ("1", "test", 1, (0, 1)),
    ]


def test_the_scenario_chooses_the_channel(root: Path) -> None:
    first, named, numbered = (NnUNet(channel).read(root).subjects[0].image.name for channel in ("", "T1", "1"))
    assert (first, named, numbered) == ("1_000_0000.nii.gz", "1_000_0001.nii.gz", "1_000_0001.nii.gz")
    with pytest.raises(DataError, match=r"data\.channel is 'T2'; the channels of this release are: 0 FLAIR, 1 T1"):
        NnUNet("T2").task(root)


def test_without_a_table_a_case_is_of_what_stands_before_its_number(root: Path) -> None:
    (root / "cases.csv").unlink()
    assert {(one.centre, one.split) for one in NnUNet().read(root).subjects} == {
        (c, s) for c in "12" for s in ("train", "test")
    }
    for path in [*root.glob("*/1_000*")]:
        path.rename(path.with_name(path.name.replace("1_000", "unnumbered")))
    assert codes(root) == {"no-site"}


def test_the_table_says_site_and_split_and_what_else_is_known(root: Path) -> None:
    rows = [f"{c}_{n:03d},north,{'test' if n else ''},{n}" for c in (1, 2) for n in range(3)]
    table(root, *rows, header="Case, Site ,split,Scanner")
    release = NnUNet().read(root)
    assert {one.centre for one in release.subjects} == {"north"}
    assert sum(one.split == "test" for one in release.subjects) == 4  # the others are as their folder says
    assert release.subjects[2].attributes == {"scanner": "2"}


def test_labels_keep_their_order_whatever_a_site_s_files_have(root: Path) -> None:
    say(root, labels={"background": 0, "core": 1, "left rim": 2})
    for path in root.glob("labels*/*.nii.gz"):
        change(path, lambda mask: np.where(mask > 0, 1 + np.indices(mask.shape)[2] % 2, 0).astype(np.uint8))
    dataset = NnUNet()
    task = dataset.task(root)
    assert [(each.name, each.label, each.meaning) for each in task.structures] == [
        ("core", 1, "core"),
        ("left-rim", 2, "left rim"),
    ]
    release = dataset.check(root, orders={"1": ("left-rim", "core")})
    assert release.faults == ()
    one = next(one for one in release.subjects if one.centre == "1")
    assert one.order == ("left-rim", "core")
    turned = dataset.load(one, task)["scan"].mask
    plain = dataset.load(dataset.read(root).subjects[0], task)["scan"].mask
    np.testing.assert_array_equal(turned, np.array([0, 2, 1], np.uint8)[plain])


def test_a_case_without_anything_labelled_is_a_case(root: Path) -> None:
    change(root / "labelsTr/1_000.nii.gz", np.zeros_like)
    assert codes(root) == set()
    assert {len(row.labels or ()) for row in summarise(NnUNet().check(root))} == {2}


def test_voxels_may_be_cubes(root: Path) -> None:
    """Isotropic images have their slices along the file's last axis."""
    for path in (*root.glob("*Tr/1_000*"),):
        image = nib.load(path)
        nib.Nifti1Image(np.asarray(image.dataobj), np.diag([2.0, 2.0, 2.0, 1.0])).to_filename(path)
    release = NnUNet().check(root)
    assert release.faults == ()
    assert release.scans["1_000"].shape[:3] == nib.load(root / "imagesTr/1_000_0000.nii.gz").shape


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}}, "'whole' is a region of several labels"),
        ({"labels": {"background": 0, "lesion": 1, "ignore": 2}}, "'ignore' label is not supported"),
        ({"labels": {"background": 0, "lesion": 2}}, "needed are 'background' with 0 and others with 1, 2, 3"),
        ({"labels": {"lesion": 1}}, "needed are 'background' with 0"),
        ({"labels": {"0": "background", "1": "lesion"}}, "must be a whole number"),
        ({"labels": {"background": 0, "---": 1}}, "no letter or digit"),
        ({"labels": {"background": 0, "a b": 1, "a-b": 2}}, "two labels"),
        ({"labels": None}, "labels must name every label's number"),
        ({"channel_names": None}, "channel_names must number the channels from 0"),
        ({"channel_names": {"1": "T1"}}, "channel_names must number the channels from 0"),
        ({"file_ending": ".png"}, "only NIfTI is read"),
    ],
)
def test_what_a_dataset_json_may_not_say(root: Path, changes: dict[str, object], words: str) -> None:
    say(root, **changes)
    with pytest.raises(DataError, match=words) as caught:
        NnUNet().task(root)
    assert caught.value.status == 2
    with pytest.raises(DataError, match=words):
        NnUNet().read(root)


def test_folders_that_are_no_release(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        NnUNet().read(tmp_path / "nowhere")
    (root / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        NnUNet().read(root)
    (root / "dataset.json").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        NnUNet().read(root)


def _link_out(root: Path) -> None:
    target = root.parent / "elsewhere.nii.gz"
    shutil.move(root / "labelsTr/1_000.nii.gz", target)
    (root / "labelsTr/1_000.nii.gz").symlink_to(target)


def _twice(root: Path) -> None:
    for name in ("1_000_0000.nii.gz", "1_000_0001.nii.gz"):
        shutil.copy(root / "imagesTr" / name, root / "imagesTs" / name)


def _copied(root: Path) -> None:
    """The scan of a training case under the code of a test case of another site."""
    for number in (0, 1):
        shutil.copy(root / f"imagesTr/1_000_000{number}.nii.gz", root / f"imagesTs/2_002_000{number}.nii.gz")
    shutil.copy(root / "labelsTr/1_000.nii.gz", root / "labelsTs/2_002.nii.gz")


SPOILT: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no labels": ("no-labels", lambda root: (root / "labelsTr/1_000.nii.gz").unlink()),
    "the chosen channel is missing": ("missing-file", lambda root: (root / "imagesTr/1_000_0000.nii.gz").unlink()),
    "another channel is missing": ("missing-file", lambda root: (root / "imagesTr/1_000_0001.nii.gz").unlink()),
    "another channel is cut": (
        "unreadable",
        lambda root: (root / "imagesTr/1_000_0001.nii.gz").write_bytes(b"\x1f\x8b"),
    ),
    "another channel lies elsewhere": (
        "affine-mismatch",
        lambda root: change(root / "imagesTr/1_000_0001.nii.gz", lambda image: image, 3.0),
    ),
    "a channel of another shape": (
        "shape-mismatch",
        lambda root: change(root / "imagesTr/1_000_0001.nii.gz", lambda image: image[:, :-1]),
    ),
    "a label that is none": ("bad-labels", lambda root: change(root / "labelsTr/1_000.nii.gz", lambda mask: 2 * mask)),
    "labels elsewhere": (
        "affine-mismatch",
        lambda root: change(root / "labelsTr/1_000.nii.gz", lambda mask: mask, 3.0),
    ),
    "labels of another shape": ("shape-mismatch", lambda root: change(root / "labelsTr/1_000.nii.gz", lambda m: m[1:])),
    "a link": ("outside-release", _link_out),
    "an image with frames": (
        "wrong-dimensions",
        lambda root: change(root / "imagesTr/1_000_0000.nii.gz", lambda image: image[..., None]),
    ),
    "no number of a channel": (
        "unsafe-code",
        lambda root: shutil.copy(root / "imagesTr/1_000_0000.nii.gz", root / "imagesTr/a.nii.gz"),
    ),
    "a case in two folders": ("duplicate-code", _twice),
    "one scan of two cases": ("same-scan", _copied),
    "a row twice": ("duplicate-code", lambda root: _add(root, "1_000,1,train,,")),
    "a row without a site": ("bad-row", lambda root: _add(root, "1_999,,train,,")),
    "a row with another split": ("bad-row", lambda root: _add(root, "1_999,1,later,,")),
}


def _add(root: Path, row: str) -> None:
    with (root / "cases.csv").open("a") as file:
        file.write(f"{row}\n")


@pytest.mark.parametrize("name", SPOILT)
def test_faults(root: Path, name: str) -> None:
    code, spoil = SPOILT[name]
    spoil(root)
    release = NnUNet().check(root)
    found = {fault.code for fault in release.faults}
    assert code in found
    assert found <= {code, "unlisted-case"}  # a row with a fault is none
    assert found <= set(FAULTS)
    assert all(str(root) not in fault.file + fault.what for fault in release.faults)
    assert {one.code for one in release.subjects} >= {"1_001", "1_002", "2_000", "2_001"}


def test_a_case_that_the_table_lacks_is_left_out(root: Path) -> None:
    table(root, "1_000,north,train")
    release = NnUNet().read(root)
    assert {fault.code for fault in release.faults} == {"unlisted-case"}
    assert [one.code for one in release.subjects] == ["1_000"]


@pytest.mark.parametrize("header", ["case,split", "site,split", "patient"])
def test_a_table_without_its_columns_is_refused(root: Path, header: str) -> None:
    table(root, "1_000,north", header=header)
    with pytest.raises(DataError, match=r"cases\.csv lacks the column (case|site)"):
        NnUNet().read(root)


def test_test_cases_without_labels_are_used_for_nothing(root: Path) -> None:
    shutil.rmtree(root / "labelsTs")
    release = NnUNet().check(root)
    assert release.faults == ()
    assert {one.split for one in release.subjects} == {"train"}
