"""DICOM at the command line: pydicom's own files in, a record of what was enrolled, and what a site's gate makes of it."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import BRIEF, ROOT, tiny_settings
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.core.errors import DataError, RequestError
from fedprivseg.governance.ledger import ledger
from fedprivseg.imaging.dicom.imported import IMPORTED, read_imported
from fedprivseg.study.run import load_scenario, simulate

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dicomanonymizer")
pytest.importorskip("dcm2niix")

from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402

TOLD = ("CompressedSamples", "JFK IMAGING", "20040826", "4MR1", "HN-4711", "Weiming")
"""What MR_small.dcm says of people and places, and what `changed` plants besides."""


def bundled(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    if found is None:
        pytest.skip(f"this pydicom comes without {name}")
    return Path(found)


def changed(path: Path, **values: Any) -> Path:
    """pydicom's MR_small.dcm at `path` with other values."""
    image = pydicom.dcmread(bundled("MR_small.dcm"))
    for keyword, value in values.items():
        setattr(image, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path)
    return path


def item(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def enhanced(path: Path, frames: int = 3) -> Path:
    """MR_small.dcm as Enhanced MR (PS3.3 A.36.2): all frames in one file, geometry in functional groups."""
    image = pydicom.dcmread(bundled("MR_small.dcm"))
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    measures = item(PixelSpacing=image.PixelSpacing, SliceThickness="5", SpacingBetweenSlices="5")
    turned = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    image.SharedFunctionalGroupsSequence = [item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[turned])]
    image.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 5 * number])],
            FrameContentSequence=[item(DimensionIndexValues=[1, number + 1], FrameComments="Weiming")],
        )
        for number in range(frames)
    ]
    image.PixelData, image.NumberOfFrames = image.PixelData[: 64 * 64 * 2] * frames, frames
    for keyword in ("PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient"):
        delattr(image, keyword)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path)
    return path


def take(base: Path, *words: str) -> dict[str, Any]:
    """What ``import-dicom --json`` says of ``base/in``."""
    command = ["data", "import-dicom", str(base / "in"), "-o", str(base / "out"), "--secret", str(base / "site.key")]
    done = CliRunner().invoke(app, [*command, *words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def only(told: dict[str, Any]) -> dict[str, Any]:
    """The one series that was taken."""
    (subject,) = told["subjects"].values()
    (series,) = subject["series"]
    return series


def test_a_slice_is_classed_and_levelled_and_what_went_is_named(tmp_path):
    changed(tmp_path / "in/a.dcm", PatientName="Weiming^Zhang", PatientID="HN-4711", BodyPartExamined="HEART")
    told = take(tmp_path)
    series = only(told)
    assert (series["modality"], series["data_class"], series["level"]) == ("MR", "clinical image, structural", 3)
    assert series["concerns"] == []
    assert {"StudyDate", "InstitutionName", "PatientName"} <= set(series["removed"])
    assert not {"PixelData", "Rows", "PixelSpacing", "BodyPartExamined"} & set(series["removed"])
    for path in sorted((tmp_path / "out").rglob("*")):
        body = path.read_bytes() if path.is_file() else b""
        assert not [word for word in TOLD if word.encode() in body or word in str(path)], path.name
    (code,) = told["subjects"]
    assert nib.load(tmp_path / "out" / series["files"][0]).shape[:2] == (64, 64)
    assert (tmp_path / "out" / code / "dicom/series1/1.dcm").is_file()


def test_every_attribute_that_is_called_removed_is_gone_or_empty_and_no_other_is(tmp_path):
    source = changed(tmp_path / "in/a.dcm", BodyPartExamined="HEART")
    told = take(tmp_path)
    (code,) = told["subjects"]
    before, after = pydicom.dcmread(source), pydicom.dcmread(tmp_path / "out" / code / "dicom/series1/1.dcm")
    placeholders = ("", "ANONYMIZED", "00010101", "000000.00")
    known = {element.keyword for element in before if element.keyword and element.value not in (None, "")}
    held = {element.keyword for element in after if element.keyword and str(element.value) not in placeholders}
    # Name and ID come back as the pseudonym, after the originals were taken out.
    gone = (known - held) | {"PatientName", "PatientID"}
    told_gone = {name for name in only(told)["removed"] if name != "private attributes"}
    assert told_gone == gone
    assert len(gone) > 10


@pytest.mark.parametrize(
    ("changes", "words", "level", "reason"),
    [
        ({"BodyPartExamined": "HEART", "BurnedInAnnotation": "YES"}, [], 4, "text is burned into the picture"),
        ({"BodyPartExamined": "HEAD"}, [], 4, "shows a face or a head"),
        ({}, [], 4, "the body part is not stated"),
        ({}, ["--body-part", "HEART"], 3, ""),
        ({"BodyPartExamined": "HEAD"}, ["--body-part", "HEART"], 4, "shows a face or a head"),
    ],
)
def test_burned_in_text_or_a_face_raises_the_level(changes, words, level, reason, tmp_path):
    changed(tmp_path / "in/a.dcm", **changes)
    series = only(take(tmp_path, *words))
    assert series["level"] == level
    assert any(reason in concern for concern in series["concerns"]) is bool(reason)


@pytest.mark.parametrize(
    ("name", "modality", "data_class"),
    [
        ("CT_small.dcm", "CT", "clinical image, structural"),
        ("JPEG2000.dcm", "NM", "clinical image, functional"),
        ("SC_rgb_rle_2frame.dcm", "OT", "unknown"),
    ],
)
def test_the_class_of_table_1_follows_from_the_modality(name, modality, data_class, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(bundled(name), tmp_path / "in")
    series = only(take(tmp_path))
    assert (series["modality"], series["data_class"]) == (modality, data_class)
    assert series["images"] == int(pydicom.dcmread(bundled(name)).get("NumberOfFrames") or 1)


def test_an_enhanced_multi_frame_image_becomes_one_volume_of_its_frames(tmp_path):
    enhanced(tmp_path / "in/a.dcm")
    series = only(take(tmp_path, "--body-part", "HEART"))
    assert series["images"] == 3
    volume = nib.load(tmp_path / "out" / series["files"][0])
    assert volume.shape == (64, 64, 3)
    assert np.allclose(volume.header.get_zooms()[2], 5)
    assert "PerFrameFunctionalGroupsSequence.FrameContentSequence.FrameComments" in series["removed"] or (
        "PerFrameFunctionalGroupsSequence.FrameContentSequence" in series["removed"]
    )
    bodies = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [body for body in bodies if b"Weiming" in body]


def test_patients_stay_apart_and_the_same_key_names_them_alike(tmp_path):
    for number in (1, 2):
        changed(tmp_path / f"in/{number}.dcm", PatientID=f"P{number}", SOPInstanceUID=f"1.2.3.{number}")
    first = take(tmp_path)
    assert len(first["subjects"]) == 2
    assert stat.S_IMODE((tmp_path / "site.key").stat().st_mode) == 0o600
    shutil.move(tmp_path / "out", tmp_path / "earlier")
    assert list(take(tmp_path)["subjects"]) == list(first["subjects"])
    (tmp_path / "site.key").unlink()
    shutil.rmtree(tmp_path / "out")
    assert not set(take(tmp_path)["subjects"]) & set(first["subjects"])


def refused(base: Path, *words: str) -> str:
    """What the command says when it refuses, having left nothing behind but what was there."""
    before = sorted(base.rglob("*"))
    command = ["data", "import-dicom", str(base / "in"), "-o", str(base / "out"), "--secret", str(base / "site.key")]
    done = CliRunner().invoke(app, [*command, *words])
    assert isinstance(done.exception, RequestError)
    assert not [word for word in TOLD if word in str(done.exception)]
    assert sorted(base.rglob("*")) == before
    return str(done.exception)


def test_the_console_script_says_in_one_line_why_it_ends_with_status_2(tmp_path):
    changed(tmp_path / "in/a.dcm", PatientID="HN-4711")
    shutil.copy(bundled("no_meta.dcm"), tmp_path / "in" / "HN-4711-Weiming.dcm")
    command = [sys.executable, "-m", "fedprivseg.cli", "data", "import-dicom", tmp_path / "in", "-o", tmp_path / "out"]
    done = subprocess.run(
        [*map(str, command), "--secret", str(tmp_path / "site.key")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not [word for word in TOLD if word in done.stderr]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_meta.dcm", "of 2 files, 1 are no DICOM files"),
        ("rtplan.dcm", "of 2 files, 1 are DICOM files without a picture"),
        ("MR_truncated.dcm", "images of a series cannot be de-identified"),
    ],
)
def test_one_file_that_cannot_be_vouched_for_refuses_the_folder_and_leaves_nothing(name, said, tmp_path):
    changed(tmp_path / "in/a.dcm", PatientID="HN-4711", SOPInstanceUID="1.2.3.4", SeriesInstanceUID="1.2.3.5")
    shutil.copy(bundled(name), tmp_path / "in" / "HN-4711-Weiming.dcm")
    assert said in refused(tmp_path)


def test_a_wrong_request_is_refused_before_anything_is_written(tmp_path):
    assert "the folder is absent" in refused(tmp_path)
    changed(tmp_path / "in/a.dcm")
    assert "is no body part that is known here" in refused(tmp_path, "--body-part", "SOUL")
    (tmp_path / "site.key").write_bytes(bytes(32))
    assert "can be read or written by others than its owner" in refused(tmp_path)
    (tmp_path / "site.key").write_bytes(bytes(31))
    (tmp_path / "site.key").chmod(0o600)
    assert "it is not 32 bytes long" in refused(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "site.key").unlink()
    assert "exists already" in refused(tmp_path)


def test_images_that_name_no_patient_are_refused(tmp_path):
    changed(tmp_path / "in/a.dcm", PatientID="", PatientName="")
    assert "name no patient" in refused(tmp_path)


# ---------------------------------------------------------------------------------------------- at the site


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The record of a series that shows a head, and one of a heart, by their level."""
    base = tmp_path_factory.mktemp("records")
    records = {}
    for part in ("HEAD", "HEART"):
        changed(base / part / "in/a.dcm", BodyPartExamined=part)
        records[part] = only(take(base / part))
    return records


def run_with(phantom, tmp_path, text, *settings):
    """Statuses by site of a run on the phantom, with `text` as the record of an import beside the release."""
    shutil.copytree(phantom, tmp_path / "release")
    (tmp_path / "release" / IMPORTED).write_text(text, encoding="utf-8")
    scenario = load_scenario(
        ROOT / "simulations/policy-open.toml", [*tiny_settings(tmp_path / "release"), *BRIEF, *settings]
    )
    result = simulate(scenario, tmp_path / "run")
    intake = {}
    for site in result.sites:
        lines = ledger.read(tmp_path / "run/sites" / site / "ledger.jsonl")
        (intake[site],) = [line.facts for line in lines if line.event == "enrolment"]
    return {site: account.status for site, account in result.sites.items()}, intake


def written(phantom, record):
    """The file of an import of one of the first site's subjects, which came as `record`."""
    from fedprivseg.imaging.mnms.release import MnMs

    code = next(one.code for one in MnMs().read(phantom).subjects if one.centre == 1 and one.labelled)
    return json.dumps({"history": [], "subjects": {code: {"series": [record]}}}), code


def test_images_of_a_head_keep_the_codes_of_a_site_at_home(phantom, head, tmp_path):
    text, code = written(phantom, head["HEAD"])
    statuses, intake = run_with(phantom, tmp_path, text)
    assert "(level.too-high)" in statuses["centre1"]
    assert (statuses["centre2"], statuses["centre3"]) == ("ok", "ok")
    assert (intake["centre1"]["level"], intake["centre1"]["imported"], intake["centre1"]["channel"]) == (
        4,
        1,
        ["dicom"],
    )
    assert (intake["centre2"]["level"], intake["centre2"]["imported"]) == (3, 0)
    lines = ledger.read(tmp_path / "run/sites/centre1/ledger.jsonl")
    assert {line.facts["clause"] for line in lines if line.event == "refusal"} == {"5.5"}
    assert not any(line.facts.get("kind") == "image-code" for line in lines if line.event == "release")
    assert code not in (tmp_path / "run/sites/centre1/ledger.jsonl").read_text()


def test_images_of_a_heart_change_nothing_and_the_ledger_says_how_they_came(phantom, head, tmp_path):
    statuses, intake = run_with(phantom, tmp_path, written(phantom, head["HEART"])[0])
    assert set(statuses.values()) == {"ok"}
    assert (intake["centre1"]["level"], intake["centre1"]["imported"]) == (3, 1)
    assert intake["centre1"]["class"] == "clinical image, structural"


def test_raw_images_of_a_head_do_not_leave_even_where_raw_data_may(phantom, head, tmp_path):
    pooled = ["method.name=pooled", 'method.variant=""', "method.parameters={steps=1}", "policy.raw_sharing=allowed"]
    shutil.copytree(phantom, tmp_path / "release")
    (tmp_path / "release" / IMPORTED).write_text(written(phantom, head["HEAD"])[0], encoding="utf-8")
    scenario = load_scenario(ROOT / "simulations/policy-open.toml", [*tiny_settings(tmp_path / "release"), *pooled])
    result = simulate(scenario, tmp_path / "run")
    assert "(level.too-high)" in result.sites["centre1"].status
    assert result.sites["centre2"].status == "ok"


def test_a_record_may_begin_with_a_byte_order_mark(phantom, head, tmp_path):
    text = written(phantom, head["HEART"])[0]
    (tmp_path / IMPORTED).write_text(text, encoding="utf-8")
    plain = read_imported(tmp_path)
    (tmp_path / IMPORTED).write_text(text, encoding="utf-8-sig")
    assert read_imported(tmp_path) == plain


@pytest.mark.parametrize("text", ["[" * 3000, '{"format": ' + "1" * 5000 + "}"])
def test_a_record_of_wild_text_is_refused(tmp_path, text):
    (tmp_path / IMPORTED).write_text(text)
    with pytest.raises(DataError, match="not what an import writes"):
        read_imported(tmp_path)


def test_a_record_that_cannot_be_read_counts_as_the_worst(phantom, tmp_path):
    with pytest.raises(Exception, match="level.too-high"):
        run_with(phantom, tmp_path, '{"subjects": {"Weiming": 3}}')
    with pytest.raises(DataError, match="not what an import writes") as caught:
        read_imported(tmp_path / "release")
    assert "Weiming" not in str(caught.value)
