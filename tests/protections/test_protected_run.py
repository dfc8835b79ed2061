"""A whole run under a site's key: what left is keyed, and both ways through the site's door turn it back."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from conftest import BRIEF, tiny_settings

from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.methods import resolve
from fedprivseg.methods.release_order import kept_order
from fedprivseg.nets.test_time import view
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.study.leakage import attack_run
from fedprivseg.study.leakage.released import Released
from fedprivseg.study.predict import predict_image
from fedprivseg.study.run import load_scenario, simulate

KEYED = 'protections=[{name="keyed", of=["image-code", "mask-code"]}]'


@pytest.fixture(scope="module")
def keyed(tmp_path_factory, phantom, quickstart):
    folder = tmp_path_factory.mktemp("keyed") / "run"
    scenario = load_scenario(quickstart, [*tiny_settings(phantom), *BRIEF, KEYED])
    simulate(scenario, folder)
    return folder, scenario


def test_what_left_is_keyed_and_says_so(keyed):
    folder, scenario = keyed
    bench = SiteRuntime(SiteContext(SiteConfiguration.read(RunFolder(folder).site("centre1").configuration), scenario))
    method = resolve(scenario.method)
    slices = bench.testing()[kept_order(bench.vault, method.sends[0], 0, len(bench.testing()))]
    own = method.encode_pictures(bench, "images", view(slices, 0)[:, None]).astype(np.float32)
    sent = Released(folder, "centre1").rows("send_test_codes", len(own)).astype(np.float32)
    assert np.abs(sent - own).max() > 0.1
    # A rotation of the channels keeps every cell's length.
    np.testing.assert_allclose(np.linalg.norm(sent, axis=1), np.linalg.norm(own, axis=1), rtol=0.02, atol=0.02)
    lines = (RunFolder(folder).site("centre1").path / "ledger.jsonl").read_text()
    assert "keyed channels" in lines


def test_predict_answers_as_the_run_did(keyed, phantom, tmp_path):
    folder, _ = keyed
    by_code = {subject.code: subject for subject in MnMs().read(phantom).subjects}
    ran = sorted((folder / "sites/centre2/predictions").glob("*.nii.gz"))
    subject = by_code[ran[0].name.split("_")[0]]
    predict_image(folder, subject.image, "centre2", tmp_path / "mask.nii.gz")
    mask = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    for path in ran:
        frame = subject.frames[path.name.removesuffix(".nii.gz")[-2:]]
        assert (mask[..., frame] == np.asarray(nib.load(path).dataobj)).mean() > 0.999


def test_a_method_without_codes_has_nothing_to_protect(phantom, quickstart, tmp_path):
    settings = [
        *tiny_settings(phantom),
        "method.name=fedavg",
        "method.variant=default",
        "method.parameters={rounds=1}",
        KEYED,
    ]
    with pytest.raises(ScenarioError, match="image-code, mask-code, which method .fedavg. does not send"):
        simulate(load_scenario(quickstart, settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_site_may_send_its_own_answer_of_a_bit_a_value(phantom, quickstart, tmp_path):
    answer = ["encoder='answer'", "image_channels=3", "image_folds=0", "image_reconstruction=0", "image_steps=4"]
    settings = [
        *tiny_settings(phantom),
        *BRIEF,
        *(f"method.parameters.{each}" for each in answer),
        'protections=[{name="precision", of=["image-code"], parameters={bits=1, least=0, most=1}}]',
    ]
    folder = tmp_path / "run"
    simulate(load_scenario(quickstart, settings), folder)
    side = load_scenario(quickstart, settings).grid.height
    sent = Released(folder, "centre1").rows("send_test_codes", 1).astype(np.float32)
    depth = resolve(load_scenario(quickstart, settings).method).parameters.image_depth
    assert sent.shape == (1, 3, side >> depth, side >> depth)
    assert sent.min() >= 0
    assert sent.max() <= 1
    assert all(len(np.unique(channel)) <= 2 for channel in sent[0])
    found = attack_run(folder, "small", ("data-free",), ("centre1",), lambda stage, done, total: None)
    assert {one.attack for one in found.reconstructions} == {"data-free"}
