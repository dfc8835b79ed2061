"""A whole run under a site's key: what left is keyed, and both ways through the site's door turn it back."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from conftest import BRIEF, tiny_settings

from fedprivseg.data.mnms import read_release
from fedprivseg.errors import ScenarioError
from fedprivseg.leakage.released import Released
from fedprivseg.methods import resolve
from fedprivseg.nets.views import view
from fedprivseg.prediction import predict_image
from fedprivseg.run import load_scenario, simulate
from fedprivseg.site.bench import Bench, station_folder
from fedprivseg.site.station import Station

KEYED = 'protections=[{name="keyed", of=["image-code", "mask-code"]}]'


@pytest.fixture(scope="module")
def keyed(tmp_path_factory, phantom, quickstart):
    folder = tmp_path_factory.mktemp("keyed") / "run"
    scenario = load_scenario(quickstart, [*tiny_settings(phantom), *BRIEF, KEYED])
    simulate(scenario, folder)
    return folder, scenario


def test_what_left_is_keyed_and_says_so(keyed):
    folder, scenario = keyed
    bench = Bench(Station.read(station_folder(folder, "centre1") / "station.json"), scenario)
    method = resolve(scenario.method)
    own = method.encode_pictures(bench, "images", view(bench.testing(), 0)[:, None]).astype(np.float32)
    sent = Released(folder, "centre1").rows("send_test_codes", len(own)).astype(np.float32)
    assert np.abs(sent - own).max() > 0.1
    # A rotation of the channels keeps every cell's length.
    np.testing.assert_allclose(np.linalg.norm(sent, axis=1), np.linalg.norm(own, axis=1), rtol=0.02, atol=0.02)
    lines = (station_folder(folder, "centre1") / "ledger.jsonl").read_text()
    assert "keyed channels" in lines


def test_predict_answers_as_the_run_did(keyed, phantom, tmp_path):
    folder, _ = keyed
    by_code = {subject.code: subject for subject in read_release(phantom).subjects}
    ran = sorted((folder / "sites/centre2/predictions").glob("*.nii.gz"))
    subject = by_code[ran[0].name.split("_")[0]]
    predict_image(folder, subject.image, "centre2", tmp_path / "mask.nii.gz")
    mask = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    for path in ran:
        frame = subject.ed if path.name.endswith("_ED.nii.gz") else subject.es
        assert (mask[..., frame] == np.asarray(nib.load(path).dataobj)).mean() > 0.999


def test_a_method_without_codes_has_nothing_to_protect(phantom, quickstart, tmp_path):
    settings = [
        *tiny_settings(phantom),
        "method.name=fedavg",
        "method.variant=default",
        "method.parameters={rounds=1}",
        KEYED,
    ]
    with pytest.raises(ScenarioError, match="protections"):
        simulate(load_scenario(quickstart, settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()
