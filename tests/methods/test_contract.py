"""What every registered method keeps, on three phantom sites: a method joins by standing in METHODS."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from conftest import tiny_settings

from fedprivseg.core.config import MethodConfig
from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.kinds import KINDS, RAW
from fedprivseg.core.results import read_scenario
from fedprivseg.governance.ledger import ledger
from fedprivseg.methods import METHODS, resolve
from fedprivseg.study.run import load_scenario, simulate

# Parameters that make a method's run last seconds, those of them that it has.
BRIEF = {
    "image_steps": 3,
    "mask_steps": 3,
    "mapping_steps": 3,
    "views": 2,
    "shard_slices": 24,
    "rounds": 2,
    "local_steps": 2,
    "steps": 3,
    "curve_points": 1,
    "test_views": 2,
}

CASES = [(method, variant) for method in METHODS for variant in method.variants]
IDS = [f"{method.name}-{variant}" for method, variant in CASES]


def brief_settings(method, variant, release):
    settings = [*tiny_settings(release), f"method.name={method.name}", f"method.variant={variant}"]
    # The quickstart's own parameters are those of its method.
    settings += ["method.parameters={}"]
    settings += ["policy.raw_sharing=allowed"] if RAW in method.exports else []
    known = method.parameters_type.model_fields
    return settings + [f"method.parameters.{k}={v}" for k, v in BRIEF.items() if k in known]


@pytest.fixture(scope="module", params=CASES, ids=IDS)
def finished(request, tmp_path_factory, phantom, quickstart):
    import fedprivseg.runtime.server.server_app
    import fedprivseg.runtime.site.client_app  # noqa: F401 - some library draws a random number when it is imported, and may

    method, variant = request.param
    world = random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state(), torch.get_num_threads()
    folder = tmp_path_factory.mktemp(f"{method.name}-{variant}") / "run"
    result = simulate(load_scenario(quickstart, brief_settings(method, variant, phantom)), folder)
    return method, folder, result, world


def test_it_runs_to_a_result_at_every_site(finished):
    method, _, result, _ = finished
    assert result.method == method.name
    assert set(result.sites) == {"centre1", "centre2", "centre3"}
    for site in result.sites.values():
        assert site.status == "ok"
        assert site.subjects_train > 0
        assert site.subjects_test > 0
        assert site.bytes_up > 0
        assert 0 <= site.dice.mean <= 1
    assert len(result.rows()) == sum(site.subjects_test for site in result.sites.values()) * 2 * 3


def test_only_declared_kinds_left(finished):
    method, folder, result, _ = finished
    scenario = read_scenario(folder)
    declared = resolve(scenario.method).declared
    assert result.exports == tuple(sorted(declared))
    for path in folder.glob("sites/*/ledger.jsonl"):
        ledger.verify(path)
        left = {line.facts["kind"] for line in ledger.read(path) if line.event == "release"}
        assert left <= declared <= method.exports
        assert (RAW in left) == (RAW in declared)


def test_bytes_are_those_of_the_ledger(finished):
    _, folder, result, _ = finished
    for name, site in result.sites.items():
        lines = ledger.read(folder / "sites" / name / "ledger.jsonl")
        released = [line for line in lines if line.event == "release" and line.facts["action"] != "describe"]
        assert site.bytes_up == sum(line.facts["bytes"] for line in released)


def _by_itk(mask, image):
    """An independent reader puts both in one place; the image has a fourth axis, which is time."""
    import SimpleITK

    one, other = SimpleITK.ReadImage(mask), SimpleITK.ReadImage(image)
    assert one.GetOrigin() == other.GetOrigin()[:3]
    assert one.GetSpacing() == other.GetSpacing()[:3]
    assert np.reshape(one.GetDirection(), (3, 3)).tolist() == np.reshape(other.GetDirection(), (4, 4))[:3, :3].tolist()
    corner = [size - 1 for size in one.GetSize()]
    assert one.TransformIndexToPhysicalPoint(corner) == other.TransformIndexToPhysicalPoint([*corner, 0])[:3]


def test_predictions_lie_at_the_site_on_the_original_grid(finished, phantom):
    import nibabel as nib

    from fedprivseg.imaging.mnms.release import MnMs

    _, folder, result, _ = finished
    by_code = {subject.code: subject for subject in MnMs().read(phantom).subjects}
    for name, site in result.sites.items():
        paths = sorted((folder / "sites" / name / "predictions").glob("*.nii.gz"))
        assert len(paths) == 2 * site.subjects_test
        for path in paths:
            mask, image = nib.load(path), nib.load(by_code[path.name.split("_")[0]].image)
            assert mask.shape == image.shape[:3]
            np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
            _by_itk(path, by_code[path.name.split("_")[0]].image)


def test_the_worlds_random_state_and_threads_are_untouched(finished):
    state, numpy_state, torch_state, threads = finished[3]
    assert random.getstate() == state
    assert (np.random.get_state()[1] == numpy_state).all()
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert torch.get_num_threads() == threads


def test_nothing_names_a_patient_outside_the_sites(finished, phantom):
    from fedprivseg.imaging.mnms.release import MnMs

    _, folder, _, _ = finished
    codes = [subject.code.encode() for subject in MnMs().read(phantom).subjects]
    for path in folder.rglob("*"):
        if path.is_file() and "sites" not in path.relative_to(folder).parts:
            assert not any(code in path.read_bytes() for code in codes), path.name


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_states_what_it_is(method):
    assert method.paper
    assert method.title
    assert method.exports <= frozenset(KINDS)
    assert method.__doc__
    for field in method.parameters_type.model_fields.values():
        assert not field.is_required(), "every parameter has a default"
    for variant in method.variants:
        assert resolve(MethodConfig(name=method.name, variant=variant)).variant == variant
    with pytest.raises(ScenarioError, match="nonsense"):
        resolve(MethodConfig(name=method.name, parameters={"nonsense": 1}))
