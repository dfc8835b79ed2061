"""attacks.json: earlier formats are read as format 3 has them; what counts, and what the worst of it is."""

from __future__ import annotations

import json

import pytest

from fedprivseg.core.admission_table import admission
from fedprivseg.core.config import AdmissionConfig
from fedprivseg.core.errors import FolderError
from fedprivseg.core.leakage_record import read_leakage
from fedprivseg.core.leakage_result import INDICATORS

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


def test_format_1_is_read_as_format_3(tmp_path):
    found = read_leakage(_written(tmp_path, FORMAT_1))
    (one,) = found.reconstructions
    assert (one.rank1, one.metrics[0].lower_baseline, one.metrics[0].upper_baseline, one.leakage) == (
        0.75,
        0.2,
        1.0,
        0.5,
    )
    assert [each.counts for each in found.inferences] == [0.9, None, 0.25, 0.625, None, None]
    assert (one.stream, found.streams) == ("test", ("test",))
    again = read_leakage(_written(tmp_path, found.model_dump(mode="json")))
    assert again == found


def test_format_2_is_read_as_format_3(tmp_path):
    found = read_leakage(_written(tmp_path, FORMAT_1))
    old = found.model_dump(mode="json", exclude={"streams"}) | {"version": 2}
    for one in old["reconstructions"]:
        for name in ("stream", "net", "rank1_low", "rank1_high", "groups"):
            del one[name]
    for one in old["inferences"]:
        for name in ("low", "high", "p"):
            del one[name]
    assert read_leakage(_written(tmp_path, old)) == found


def _leakage(tmp_path, *results):
    """A record of what was reconstructed, as changes of one reconstruction of SSIM leakage 0.5, rank 1 of 0.75 (chance
    0.25)."""
    found = read_leakage(_written(tmp_path, FORMAT_1))
    (one,) = found.reconstructions
    streams = tuple({each.get("stream", "test"): None for each in results if not each.get("staged")})
    made = tuple(one.model_copy(update=each) for each in results)
    return found.model_copy(update={"reconstructions": made, "inferences": (), "streams": streams})


def _metrics(one, **leakages):
    return tuple(
        one.metrics[0].model_copy(update={"metric": name, "leakage": value}) for name, value in leakages.items()
    )


UPDATE = {"stream": "updates", "attack": "inversion"}


def test_the_headline_is_the_worst_of_all_each_from_chance_to_certainty(tmp_path):
    found = read_leakage(_written(tmp_path, FORMAT_1))
    # Leakage 0.5; re-identified (0.75 - 0.25) / 0.75; linkage (0.9 - 0.5) / 0.5; membership 0.25. Attributes do not count.
    assert found.headline.value == pytest.approx(0.8)
    assert (found.headline.indicator, found.headline.attack, found.headline.stream) == ("linkage", "linkage", "")
    codes = found.model_copy(update={"inferences": ()})
    assert codes.headline.value == pytest.approx(2 / 3)
    assert (codes.headline.indicator, codes.headline.stream) == ("recognised", "test")
    assert found.model_copy(update={"streams": ("test", "train")}).headline is None, (
        "nothing is known of training codes"
    )


def test_what_is_known_of_an_unknown_leakage_can_be_too_much_already(tmp_path):
    """Nothing is known of training codes; linkage alone, 0.8, is more than 0.15 and less than 0.9."""
    found = read_leakage(_written(tmp_path, FORMAT_1)).model_copy(update={"streams": ("test", "train")})
    assert (found.headline, found.at_least.value) == (None, pytest.approx(0.8))
    lines = [admission(found, AdmissionConfig(headline=threshold))[0] for threshold in (0.15, 0.9)]
    assert [(line.passed, line.by.startswith("at least; ")) for line in lines] == [(False, True), (None, False)]
    nothing = found.model_copy(update={"inferences": (), "reconstructions": ()})
    assert nothing.at_least is None


def test_the_control_of_each_attack_and_network_is_its_own(tmp_path):
    """A failed control takes every number: leakage, re-identification, and the headline."""
    staged = {**UPDATE, "staged": True, "rank1": 0.25}
    released = {**UPDATE, "rank1": 1.0}
    one = read_leakage(_written(tmp_path, FORMAT_1)).reconstructions[0]
    failed, passed = (staged | {"metrics": _metrics(one, SSIM=value)} for value in (0.1, 0.6))
    nothing = _leakage(tmp_path, released, failed)
    assert nothing.worst("images") is None
    assert nothing.headline is None
    assert nothing.unknown == ("updates",)
    assert {line.measured for line in admission(nothing, AdmissionConfig())} == {None}
    assert _leakage(tmp_path, released, passed).headline.value == 1
    assert _leakage(tmp_path, released).headline is None, "an attack on updates without a control"
    # Another attack's, another network's, or a defended success is no control.
    for other in ({"attack": "other"}, {"net": "unet group"}, {"defence": "masked"}):
        assert _leakage(tmp_path, released, failed, passed | other).headline is None
    both = _leakage(tmp_path, released | {"net": "a"}, passed | {"net": "a"}, released, failed)
    assert [both.counts(each) for each in both.reconstructions] == [True, True, False, False]
    assert both.shown(both.reconstructions[3]), "what shows that the attack fails is shown"


@pytest.mark.parametrize(
    ("metrics", "rank1", "passes"),
    [
        ({"SSIM": 0.1, "squared error": 0.2}, 0.25, False),
        ({"SSIM": 0.1, "squared error": 0.5}, 0.25, True),
        ({"SSIM": 0.5, "squared error": 0.2}, 0.25, True),
        ({"SSIM": 0.1, "squared error": 0.2}, 0.7, True),
        ({"SSIM": 0.1, "squared error": 0.2}, 0.6, False),
    ],
)
def test_a_control_is_passed_by_any_of_three_measures(metrics, rank1, passes, tmp_path):
    """0.5 of the way: a rank-1 rate of 0.625 with a chance of 0.25."""
    one = read_leakage(_written(tmp_path, FORMAT_1)).reconstructions[0]
    staged = {**UPDATE, "staged": True, "metrics": _metrics(one, **metrics), "rank1": rank1}
    assert (_leakage(tmp_path, UPDATE, staged).headline is not None) is passes


def test_the_worst_of_each_indicator_stands_in_the_table(tmp_path):
    found = read_leakage(_written(tmp_path, FORMAT_1))
    lines = admission(found, AdmissionConfig(), {"linkage": "centre1"})
    assert [line.measured for line in lines] == [pytest.approx(0.8), 0.5, None, 0.5, 0.9, 0.25, 0.625]
    linked = "ED against ES: AUC at centre1"
    assert [line.by for line in lines][:5:2] == [linked, "", linked]
    assert lines[1].by == "Alignment (5 anchors) at centre1, test codes"
    assert [line.whose for line in lines] == ["", "", "", "", "centre1", "", ""]
    assert list(INDICATORS) == list(AdmissionConfig.model_fields)


@pytest.mark.parametrize("change", [{"version": 4}, {"redrawn": None}, {"inferred": [{"count": "1"}]}, {"new": 1}])
def test_what_is_no_record_is_refused(change, tmp_path):
    with pytest.raises(
        FolderError, match="is no record of attacks that this release reads. Delete it and attack again"
    ):
        read_leakage(_written(tmp_path, {**FORMAT_1, **change}))
