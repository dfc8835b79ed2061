"""What run folders of format 1 say is read as today's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedprivseg.core.errors import FolderError
from fedprivseg.core.results import read_result, read_scenario
from fedprivseg.imaging.splits import COHORT

SCORES = {"LV": 0.8, "MYO": 0.6, "RV": None, "mean": 0.7, "missing": 2}
SITE = {
    "status": "ok", "subjects_train": 2, "subjects_test": 1, "slices_train": 8, "slices_test": 4,
    "dice": SCORES, "hd95_mm": SCORES, "assd_mm": SCORES,
    "bytes_up": 1, "bytes_down": 1, "seconds": 1.0, "peak_rss_mb": 1.0, "notes": [],
}  # fmt: skip
SCENARIO = {
    "name": "x",
    "sites": [{"name": "a", "centre": 1}],
    "method": {"name": "fedavg"},
    "study": {"data": "cine-mri"},
}
RESULT = {
    "schema_version": 1, "scenario": SCENARIO, "scenario_sha256": "0", "seed": 0, "method": "fedavg", "variant": "",
    "engine": "inline", "exports": ["metric"], "sites": {"a": SITE, "b": {**SITE, "dice": {**SCORES, "LV": 0.4}}},
    "mean_dice": 0.65, "stages": {}, "wall_s": 1.0, "resumed": False, "peak_rss_mb": 1.0, "environment": {},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    (tmp_path / "scenario.json").write_text(json.dumps(SCENARIO))
    (tmp_path / "metrics.csv").write_text("site,subject,phase,structure,dice,hd95_mm,assd_mm\na,a-t01,ED,LV,0.8,,\n")
    return tmp_path


def test_a_result_has_maps_by_structure(run: Path) -> None:
    result = read_result(run)
    assert result.schema_version == 2
    assert result.sites["a"].dice.structures == {"LV": 0.8, "MYO": 0.6, "RV": None}
    assert (result.sites["a"].dice.mean, result.sites["a"].dice.missing) == (0.7, 2)
    assert result.mean_dice == {"LV": pytest.approx(0.6), "MYO": pytest.approx(0.6), "RV": None}
    assert result.overall_dice == 0.65


def test_a_result_of_no_known_version_is_refused(run: Path) -> None:
    (run / "result.json").write_text(json.dumps({**RESULT, "schema_version": 3}))
    with pytest.raises(FolderError, match="schema version 3; this release reads 1 and 2"):
        read_result(run)
    (run / "result.json").write_text(json.dumps({**RESULT, "sites": {"a": {**SITE, "dice": {"LV": 0.1}}}}))
    with pytest.raises(FolderError, match="no result that this release reads"):
        read_result(run)


def test_a_scenario_without_a_task_has_the_one_that_there_was(run: Path) -> None:
    task = read_scenario(run).task
    assert (task.names, task.times, task.region) == (("LV", "MYO", "RV"), ("ED", "ES"), "heart")


def test_a_list_of_participants_is_read() -> None:
    subject = {
        "code": "A1", "centre": 1, "vendor": "Siemens", "split": "train", "labelled": True, "ed": 3, "es": 9,
        "image": "/a.nii.gz", "mask": None, "pathology": "DCM", "sex": "F", "age": 61.0, "order": ["RV", "MYO", "LV"],
    }  # fmt: skip
    (one,) = COHORT.validate_python({"train": [subject], "test": []}).train
    assert (one.frames, one.order) == ({"ED": 3, "ES": 9}, ("RV", "MYO", "LV"))
    assert one.attributes == {"disease": "DCM", "sex": "F", "vendor": "Siemens"}
    again = COHORT.validate_json(COHORT.dump_json(COHORT.validate_python({"train": [subject], "test": []})))
    assert again.train == (one,)
