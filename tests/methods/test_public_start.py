"""Runs that begin from a public start: who gets it, what begins with it, and that the same numbers come whoever asks first."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT, tiny_settings
from fakes import FakeFederation, FakeSite, blocks

from fedprivseg.core.config import MethodConfig
from fedprivseg.core.errors import DataError, FolderError, RequestError
from fedprivseg.core.kinds import PUBLIC_START
from fedprivseg.core.records import Grid, Slices
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.core.task import Scope, Structure, default_task
from fedprivseg.imaging.public import public_slices
from fedprivseg.methods import METHODS, resolve
from fedprivseg.methods.training import MODEL, NET, build, under
from fedprivseg.nets.baseline import norm_names, weights_of
from fedprivseg.study.prepare_start import prepare_start
from fedprivseg.study.run import load_scenario, simulate

BRIEF = {
    "start": "phantom", "start_steps": 2, "start_subjects": 2, "rounds": 1, "local_steps": 1, "curve_points": 0,
    "test_views": 1, "batch": 4,
}  # fmt: skip
EXTRA = {"phantom-distillation": {"public_slices": 4, "distil_steps": 1}}
GRID = Grid(32, 32, 6.0)


def federation(folder, name, slices=None, **parameters):
    """Three toy sites, and the public start that was fitted to toy slices."""
    method = resolve(MethodConfig(name=name, parameters={**BRIEF, **parameters}))
    each = slices or [blocks(8, seed=place) for place in range(3)]
    sites = [FakeSite(f"centre{place}", own, folder / "sites") for place, own in enumerate(each)]
    found = FakeFederation(method, sites, folder / "server")
    start = method.public_start(Scope(sites[0].grid, default_task()))
    found.begins_with = start.fit(blocks(12, seed=9), "cpu", lambda *_: None)
    return found


@pytest.mark.parametrize("name", ["fedavg", "fedbn", "scaffold", "local-only", "phantom-distillation"])
def test_every_site_and_the_server_begin_with_the_start(tmp_path, name):
    here = federation(tmp_path, name, **EXTRA.get(name, {}))
    wanted = under(here.begins_with, NET)
    here.method.conduct(here)
    for where in (here, *here.all.values()):
        found = weights_of(build(here.method.parameters, where))
        assert set(found) == set(wanted)
        for key, value in found.items():
            np.testing.assert_array_equal(value, wanted[key])


def test_the_start_goes_out_as_what_it_is_and_before_anything_else(tmp_path):
    here = federation(tmp_path, "fedavg")
    here.method.conduct(here)
    assert [action for action, _, _ in here.asked][:3] == ["begin"] * 3
    assert PUBLIC_START not in here.method.declared, "no site sends one"


def test_without_a_start_nothing_is_sent(tmp_path):
    here = federation(tmp_path, "fedavg")
    method = resolve(MethodConfig(name="fedavg", parameters={**BRIEF, "start": "random"}))
    assert method.public_start(Scope(GRID, default_task())) is None
    plain = FakeFederation(method, [*here.all.values()], tmp_path / "plain")
    method.conduct(plain)
    assert "begin" not in {action for action, _, _ in plain.asked}


def test_personalised_layers_begin_with_the_start_too(tmp_path):
    here = federation(tmp_path, "fedbn")
    net = build(here.method.parameters, here)
    names = norm_names(net)
    start = under(here.begins_with, NET)
    assert any(np.any(start[name] != 1) for name in names if name.endswith("running_var")), "else it would show nothing"


def test_encoders_and_the_segmentation_network_begin_with_it(tmp_path):
    from fedprivseg.methods.coded_encoders import IMAGE, MASK, started
    from fedprivseg.methods.coded_mapping import MAPPING, untrained

    tiny = {"image_steps": 1, "mask_steps": 1, "mapping_steps": 1, "views": 1, "image_rate": 1e-12, "mask_rate": 1e-12}
    method = resolve(
        MethodConfig(
            name="privacy-sf",
            variant="improved",
            parameters={"start": "phantom", "start_steps": 2, "start_subjects": 2, "test_views": 1, "batch": 4, **tiny},
        )
    )
    sites = [FakeSite(f"centre{place}", blocks(8, seed=place), tmp_path / "sites") for place in range(2)]
    here = FakeFederation(method, sites, tmp_path / "server")
    start = method.public_start(Scope(sites[0].grid, default_task()))
    here.begins_with = start.fit(blocks(12, seed=9), "cpu", lambda *_: None)
    method.conduct(here)
    for name, key in ((IMAGE, "encoder.stem.0.weight"), (MASK, "decoder.output.weight")):
        begun = started(here, name)[key]
        for site in sites:  # a step at so low a rate moves nothing that one sees
            np.testing.assert_allclose(site.vault.load(name)[key], begun, atol=1e-6)
    mapping = untrained(method.parameters, default_task(), ("a", "b"), 0)
    mapping.begin(started(here, MAPPING))
    own = started(here, MAPPING)
    for place in range(2):
        key = f"entrances.{place}.1.weight"
        np.testing.assert_array_equal(mapping.state_dict()[key].numpy(), own["entrances.0.1.weight"])


def test_a_site_without_labels_is_served_with_what_the_others_learn(tmp_path):
    empty = Slices(np.empty((0, 32, 32), np.float32), np.empty((0, 32, 32), np.uint8), np.empty(0, np.int32))
    full = [blocks(8, seed=place) for place in range(2)]
    here = federation(tmp_path, "fedavg", [*full, empty], tune_steps=1)
    here.all["centre2"].testing = lambda: full[0].images[:4]
    here.all["centre2"].validate = here.all["centre0"].validate
    found = here.method.conduct(here)
    assert sorted(found) == ["centre0", "centre1", "centre2"]
    assert {site for action, _, site in here.asked if action == "train"} == {"centre0", "centre1"}
    own = here.all["centre2"].vault.load("final")
    for name, value in under(here.load_model(MODEL)[0], NET).items():
        np.testing.assert_array_equal(own[name], value, err_msg="it cannot tune what it has no labels for")


def test_public_slices_are_the_same_whether_drawn_or_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDPRIVSEG_CACHE", str(tmp_path))
    drawn = public_slices(default_task(), GRID, 2)
    kept = public_slices(default_task(), GRID, 2)
    for one, other in zip(vars(drawn).values(), vars(kept).values(), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert set(np.unique(drawn.masks)) == {0, 1, 2, 3}
    assert set(drawn.subjects) == {0, 1}
    assert len(list((tmp_path / "public").iterdir())) == 1


def test_a_task_that_no_phantom_shows_has_no_start():
    task = default_task().model_copy(
        update={"structures": (Structure(name="spleen", label=1, meaning="", colour="#123456"),)}
    )
    with pytest.raises(DataError, match="no phantom shows spleen"):
        public_slices(task, GRID, 2)


def test_a_start_is_trained_once_for_all_runs_of_its_recipe(tmp_path, monkeypatch, phantom):
    monkeypatch.setenv("FEDPRIVSEG_CACHE", str(tmp_path / "cache"))
    parameters = [f"method.parameters.{key}={value}" for key, value in BRIEF.items()]
    settings = [*tiny_settings(phantom), 'method={name="fedavg"}', *parameters]
    scenario = load_scenario(ROOT / "simulations" / "quickstart.toml", settings)
    runs = [RunFolder(tmp_path / name) for name in ("one", "other")]
    for run in runs:
        prepare_start(scenario, run.server)
    assert runs[0].server.start.read_bytes() == runs[1].server.start.read_bytes()
    assert len(list((tmp_path / "cache" / "starts").iterdir())) == 1
    [kept] = (tmp_path / "cache" / "starts").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(FolderError, match="made again"):
        prepare_start(scenario, RunFolder(tmp_path / "third").server)


TINY = {
    "start": "phantom",
    "start_subjects": 2,
    "start_steps": 2,
    "image_steps": 2,
    "mask_steps": 2,
    "mapping_steps": 2,
    "views": 2,
    "rounds": 1,
    "local_steps": 1,
    "steps": 2,
    "curve_points": 1,
    "test_views": 1,
    "public_slices": 4,
    "distil_steps": 1,
    "batch": 4,
    "averaging": {"rounds": 1, "local_steps": 1, "test_views": 1},
}


@pytest.mark.parametrize(
    "name", ["fedavg", "fedbn", "local-only", "pooled", "privacy-sf", "coded-federated", "phantom-distillation"]
)
def test_a_site_without_labels_is_measured_under_every_way_of_sharing(tmp_path, phantom, name):
    known = METHODS.find(name).parameters_type.model_fields
    parameters = {key: value for key, value in TINY.items() if key in known}
    variant = "improved" if name == "privacy-sf" else ""
    settings = [*tiny_settings(phantom), "data.unlabelled=['centre3']"]
    scenario = load_scenario(ROOT / "simulations" / "policy-open.toml", settings)
    scenario = scenario.model_copy(
        update={
            "method": MethodConfig(name=name, variant=variant, parameters=parameters),
            "policy": scenario.policy.model_copy(
                update={"raw_sharing": "allowed" if name == "pooled" else "forbidden"}
            ),
        }
    )
    result = simulate(scenario, tmp_path / "run")
    assert result.sites["centre3"].subjects_train == 0
    assert {name: site.status for name, site in result.sites.items()} == dict.fromkeys(result.sites, "ok")
    assert all(site.dice.mean is not None for site in result.sites.values())


def test_without_a_start_a_site_without_labels_is_refused_where_nobody_else_trains_its_networks(tmp_path, phantom):
    settings = [*tiny_settings(phantom), "data.unlabelled=['centre3']"]
    scenario = load_scenario(ROOT / "simulations" / "policy-open.toml", settings)
    with pytest.raises(RequestError, match=r"centre3 has no training subject with masks.*start = \"phantom\""):
        simulate(scenario, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    everybody = scenario.data.model_copy(update={"unlabelled": ("centre1", "centre2", "centre3")})
    with pytest.raises(RequestError, match="one site at least"):
        simulate(scenario.model_copy(update={"data": everybody}), tmp_path / "run")
