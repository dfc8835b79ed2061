"""attacks.json: format 1 is read as format 2 has it, and the admission table follows from what attacks say they count for."""

from __future__ import annotations

import json

import pytest

from fedprivseg.core.config import AdmissionConfig
from fedprivseg.core.errors import FolderError
from fedprivseg.core.leakage_result import INDICATORS, admission, read_leakage

MEASURE = {
    "measure": "SSIM", "value": 0.6, "low": None, "high": None, "floor": 0.2, "neighbour": 0.3, "own_decoder": 0.9,
    "ceiling": 1.0, "leakage": 0.5,
}  # fmt: skip
REDRAWN = {
    "attack": "alignment", "title": "Alignment", "paper": "x", "setting": "5 anchors", "site": "centre1", "what": "images",
    "knows": "x", "slices": 4, "subjects": 1, "measures": [MEASURE], "recognised": 0.75, "chance": 0.25, "seconds": 1.0,
    "staged": False, "defence": "",
}  # fmt: skip
INFERRED = [
    ("linkage", "ED against ES: AUC", 0.9, 0.5),
    ("linkage", "ED against ES: right patient first", 1.0, 0.25),
    ("attributes", "sex: accuracy", 0.75, 0.5),
    ("membership", "slices: AUC", 0.625, 0.5),
    ("membership", "slices: TPR at 1 % FPR", 1.0, 0.01),
    ("membership", "control, members against members: AUC", 0.95, 0.5),
]
FORMAT_1 = {
    "version": 1, "scenario_sha256": "0", "method": "m", "variant": "v", "protections": [], "budget": "small",
    "sites": ["centre1"], "auxiliary": "x", "left_out": ["why"], "seconds": 2.0, "redrawn": [REDRAWN],
    "inferred": [
        {"attack": attack, "title": attack, "paper": "x", "site": "centre1", "knows": "x", "measure": measure,
         "value": value, "chance": chance, "raw": None, "count": "4 patients"}
        for attack, measure, value, chance in INFERRED
    ],
}  # fmt: skip


def _written(folder, content):
    (folder / "attacks.json").write_text(json.dumps(content))
    return folder


def test_format_1_is_read_as_format_2(tmp_path):
    found = read_leakage(_written(tmp_path, FORMAT_1))
    (one,) = found.reconstructions
    assert (one.rank1, one.metrics[0].lower_baseline, one.metrics[0].upper_baseline, one.leakage) == (
        0.75,
        0.2,
        1.0,
        0.5,
    )
    assert [each.counts for each in found.inferences] == [0.9, None, 0.25, 0.625, None, None]
    again = read_leakage(_written(tmp_path, found.model_dump(mode="json")))
    assert again == found


def test_the_worst_of_each_indicator_stands_in_the_table(tmp_path):
    found = read_leakage(_written(tmp_path, FORMAT_1))
    lines = admission(found, AdmissionConfig(), {"linkage": "centre1"})
    assert [line.measured for line in lines] == [0.5, None, 0.5, 0.9, 0.25, 0.625]
    assert [line.by for line in lines][::3] == ["Alignment (5 anchors) at centre1", "ED against ES: AUC at centre1"]
    assert [line.whose for line in lines] == ["", "", "", "centre1", "", ""]
    assert list(INDICATORS) == list(AdmissionConfig.model_fields)


@pytest.mark.parametrize("change", [{"version": 3}, {"redrawn": None}, {"inferred": [{"count": "1"}]}, {"new": 1}])
def test_what_is_no_record_is_refused(change, tmp_path):
    with pytest.raises(
        FolderError, match="is no record of attacks that this release reads. Delete it and attack again"
    ):
        read_leakage(_written(tmp_path, {**FORMAT_1, **change}))
