"""Another organ, from the scenario to the page: nothing but the scenario says that it is one."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import BRIEF, ROOT

from fedprivseg.core.errors import DataError, ScenarioError
from fedprivseg.core.leakage_result import Leakage
from fedprivseg.core.results import Result, read_result, read_scenario
from fedprivseg.governance.compliance import read_compliance
from fedprivseg.imaging.phantom.brain import write_brains
from fedprivseg.study import pipeline
from fedprivseg.study.leakage import attack_run
from fedprivseg.study.predict import predict_image
from fedprivseg.study.run import load_scenario, preflight, simulate

SCENARIO = ROOT / "simulations" / "other-organ.toml"
TINY = [
    "engine=inline",
    'sites=["centre1", "centre2"]',
    "data.subjects=3",
    "grid.height=32",
    "grid.width=32",
    "grid.spacing=6.5",
    "resources.cpus=1",
    "resources.sites_at_once=1",
]
FEDAVG = ["method.name=fedavg", 'method.variant=""', "method.parameters={rounds=1, local_steps=2, curve_points=1}"]


@pytest.fixture(scope="module")
def coded(tmp_path_factory) -> Path:
    """A finished run of coded segmentation on heads."""
    folder = tmp_path_factory.mktemp("heads") / "coded"
    simulate(load_scenario(SCENARIO, [*TINY, *BRIEF]), folder)
    return folder


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _told(result: Result) -> None:
    assert set(result.mean_dice) == {"lesion"}
    assert {site.status for site in result.sites.values()} == {"ok"}
    assert all(set(site.hd95_mm.structures) == {"lesion"} for site in result.sites.values())


def test_coded_segmentation_runs_on_it(coded: Path) -> None:
    _told(read_result(coded))
    assert [(row["subject"], row["phase"], row["structure"]) for row in _rows(coded)] == [
        (f"centre{n}-t01", "scan", "lesion") for n in (1, 2)
    ]
    content = json.loads((coded / "result.json").read_text())
    assert content["schema_version"] == 2
    assert set(content["sites"]["centre1"]["dice"]["structures"]) == {"lesion"}
    for site in ("centre1", "centre2"):
        (mask,) = (coded / "sites" / site / "predictions").iterdir()
        assert mask.name.endswith("_scan.nii.gz")
        assert set(np.unique(np.asarray(nib.load(mask).dataobj))) <= {0, 1}


def test_fedavg_runs_on_it(tmp_path: Path) -> None:
    result = simulate(load_scenario(SCENARIO, [*TINY, *FEDAVG]), tmp_path / "fedavg")
    _told(result)
    assert result.curve


def test_the_battery_reads_the_task(coded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One channel is a mask here: it is judged by Dice, and volumes of one time point are linked by their slices alone."""
    chosen = ("alignment", "trained-inverter", "membership", "linkage", "attributes")
    found = attack_run(coded, attacks=chosen, sites=["centre1"])
    assert isinstance(found, Leakage)
    masks = [one for one in found.reconstructions if one.what == "masks"]
    assert masks
    assert {each.metric for one in masks for each in one.metrics} == {"Dice"}
    images = {each.metric for one in found.reconstructions if one.what == "images" for each in one.metrics}
    assert {"SSIM", "SSIM, lesion", "PSNR, lesion"} <= images
    assert not any("told which form a volume" in one.metric for one in found.inferences)
    assert any(one.metric == "slices, all pairs: AUC" for one in found.inferences)


def test_report_and_compliance_read_the_task(coded: Path) -> None:
    page = pipeline.report(coded).read_text()
    assert "learned together to outline lesions in brain MRI" in page
    assert "Dice lesion" in page
    assert "axial FLAIR slice" in page
    assert "no patient was scanned" in page
    assert not any(word in page for word in ("heart", "ventricle", "myocardium", "End-diastole"))
    states = {each.clause: each.state for each in read_compliance(coded)}
    assert states["5.1.1"] == states["5.1.2-d"] == "kept"


def test_it_predicts(coded: Path, tmp_path: Path) -> None:
    heads = write_brains(tmp_path / "heads", 2, 9, centres=("new",))
    image = heads / "imagesTr/new_000_0000.nii.gz"
    done = predict_image(coded, image, "centre1", tmp_path / "mask.nii.gz")
    written, given = nib.load(done.mask), nib.load(image)
    assert done.shape == given.shape
    np.testing.assert_array_equal(written.affine, given.affine)
    assert set(np.unique(np.asarray(written.dataobj))) <= {0, 1}


def test_a_release_of_one_s_own_with_sites_by_name(tmp_path: Path) -> None:
    """nnU-Net raw in a folder, sites of their own whose names are in the names of cases; split by patient."""
    data = write_brains(tmp_path / "Dataset007", 3, 1, centres=("north", "south"))
    (data / "cases.csv").unlink()
    for name in ("north", "south"):
        (tmp_path / "sites" / name).mkdir(parents=True)
        (tmp_path / "sites" / name / "site.toml").write_text(f'name = "{name}"\n')
        shutil.copy(ROOT / "sites/centre1/policy.toml", tmp_path / "sites" / name)
    (tmp_path / "simulations").mkdir()
    path = tmp_path / "simulations/own.toml"
    path.write_text(SCENARIO.read_text())
    own = [*TINY, f'data.source="{data}"', "data.channel=1", "data.split=by-patient", 'sites=["north", "south"]']
    scenario = load_scenario(path, own)
    assert (scenario.task.names, scenario.task.region, scenario.study.data) == (("lesion",), "lesion", "mri")
    assert scenario.data.format == "nnunet"  # a site that is asked later, without its images, still knows
    ahead = preflight(scenario, tmp_path / "run")
    assert [(site.name, site.train, site.test) for site in ahead.sites] == [("north", 2, 1), ("south", 2, 1)]
    (data / "dataset.json").write_text((data / "dataset.json").read_text().replace('"lesion"', '"tumour"'))
    assert load_scenario(path, own).task.names == ("tumour",)


def test_a_task_that_the_data_have_not_is_refused() -> None:
    stated = 'task={structures=[{name="tumour", label=1}]}'
    with pytest.raises(ScenarioError, match=r"task\.structures are tumour, and the data have lesion"):
        load_scenario(SCENARIO, [*TINY, stated])
    with pytest.raises(ScenarioError, match=r"task\.time_points are a, b, and the data have scan"):
        load_scenario(SCENARIO, [*TINY, 'task={time_points=[{name="a"}, {name="b"}]}'])
    with pytest.raises(ScenarioError, match=r"unknown dataset 'nnunett' \(did you mean 'nnunet'\?\)"):
        load_scenario(SCENARIO, [*TINY, 'data={source="x", format="nnunett"}'])
    with pytest.raises(DataError, match=r"data\.channel is 'T1', and an M&Ms release has one image"):
        load_scenario(SCENARIO, [*TINY, 'data={source="x", channel="T1"}'])


def test_the_same_words_again_are_the_same_scenario(coded: Path) -> None:
    """Words and colours of a task change no result: a run goes on under others."""
    scenario = read_scenario(coded)
    assert load_scenario(SCENARIO, [*TINY, *BRIEF, 'task.aim="find lesions"']).sha256 == scenario.sha256
    assert load_scenario(SCENARIO, [*TINY, *BRIEF, 'task.region="tumour"']).sha256 != scenario.sha256
