"""The pre-flight: what can be known of a run before it begins, and what is refused then."""

from __future__ import annotations

import csv
import json
import shutil
from types import SimpleNamespace

import pytest
from commands import call, refused
from conftest import BRIEF, ROOT, tiny_settings

from fedprivseg.core.errors import DataError, FolderError, RequestError
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.imaging.mnms.table import TABLE
from fedprivseg.imaging.phantom.consortium import announced
from fedprivseg.methods.effort import MASK_CODEC_S, TASK_ENCODER_S
from fedprivseg.study.benchmark import Plan, planned
from fedprivseg.study.preflight import BASIS, refuse
from fedprivseg.study.run import cache_folder, preflight, simulate
from fedprivseg.study.scenarios import load_scenario

QUICKSTART = ROOT / "simulations/quickstart.toml"


def _scenario(release, *settings):
    return load_scenario(QUICKSTART, [*tiny_settings(release), *BRIEF, *settings])


@pytest.fixture(scope="module")
def untested(phantom, tmp_path_factory):
    """A release whose centre 2 has nobody to test on."""
    folder = tmp_path_factory.mktemp("untested") / "release"
    shutil.copytree(phantom, folder)
    _drop_tests(folder, {"2"})
    return folder


def _drop_tests(folder, centres):
    with (folder / TABLE).open(newline="") as file:
        header, *rows = list(csv.reader(file))
    code, centre = header.index("External code"), header.index("Centre")
    gone = {row[code] for row in rows if row[centre] in centres and (folder / "Testing" / row[code]).is_dir()}
    for name in gone:
        shutil.rmtree(folder / "Testing" / name)
    with (folder / TABLE).open("w", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in rows if row[code] not in gone)])


def test_subjects_are_counted_per_side_and_site(phantom, tmp_path):
    ahead = preflight(_scenario(phantom), tmp_path / "run")
    # Three labelled subjects a centre: a third of them, one, is for testing.
    assert [(site.name, site.train, site.test) for site in ahead.sites] == [
        ("centre1", 2, 1),
        ("centre2", 2, 1),
        ("centre3", 2, 1),
    ]
    scans = MnMs().read(phantom)
    depths = {s.code: scans.scans[s.code].shape[2] for s in scans.subjects if s.centre == 1}
    assert ahead.sites[0].slices == 2 * sum(depths.values()), "ED and ES of every subject"
    assert (ahead.refusals, ahead.warnings, ahead.gpus_seen) == ((), (), None)
    assert not (tmp_path / "run").exists()


def test_a_phantom_that_was_not_drawn_is_announced_as_it_would_be_drawn(phantom):
    drawn = {(s.code, s.centre, s.split, s.labelled) for s in MnMs().read(phantom).subjects}
    assert {(s.code, s.centre, s.split, s.labelled) for s in announced(3, 0, (1, 2, 3))} == drawn


def test_a_dry_run_draws_no_phantom_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDPRIVSEG_CACHE", str(tmp_path / "cache"))
    text = call("run", QUICKSTART, "--dry-run")
    assert "centre1\t6\t3\t" in text
    for word in ("GPU: none asked for", "disk: ", "memory: ", "time: about ", "nothing"):
        assert word in text
    content = json.loads(call("run", QUICKSTART, "--dry-run", "--json"))
    assert content["folder"] == "runs/quickstart-privacy-sf-improved-0"
    assert [site["test"] for site in content["sites"]] == [3, 3, 3]
    assert list(tmp_path.iterdir()) == []
    assert cache_folder() == tmp_path / "cache"


def test_the_time_is_that_of_the_training_steps(phantom, tmp_path):
    # One core; 3 steps of either encoder at each of three sites and 3 of the mapping, 16 slices of 32 x 32: a ninth of 96 x 96.
    ahead = preflight(_scenario(phantom), tmp_path / "run")
    sites = 3 * (TASK_ENCODER_S + MASK_CODEC_S) * 3 / 9
    assert ahead.seconds == pytest.approx(15 + sites + 0.13 * 3 / 9)
    assert ahead.basis == BASIS
    private = load_scenario(
        QUICKSTART,
        [*tiny_settings(phantom), "method.name=fedavg", 'method.variant=""', "method.parameters={dp={epsilon=8}}"],
    )
    unknown = preflight(private, tmp_path / "run")
    assert unknown.seconds is None
    assert unknown.basis == "no rate was measured for fedavg with these parameters"


def test_nobody_to_test_on_anywhere_is_refused_before_any_work(phantom, tmp_path):
    scenario = _scenario(phantom, 'data.split="by-patient"', "data.test_fraction=0.0")
    with pytest.raises(
        DataError, match=r"no site has a test subject \(centre1, centre2, centre3\).*by-patient"
    ) as caught:
        simulate(scenario, tmp_path / "run")
    assert caught.value.status == 2
    assert not (tmp_path / "run").exists()
    words = [
        w for s in [*tiny_settings(phantom), 'data.split="by-patient"', "data.test_fraction=0.0"] for w in ("--set", s)
    ]
    assert "no site has a test subject" in refused("run", QUICKSTART, "--out", tmp_path / "run", *words)
    assert "no site has a test subject" in refused("run", QUICKSTART, "--out", tmp_path / "run", "--dry-run", *words)
    assert not (tmp_path / "run").exists()


def test_a_benchmark_is_refused_before_its_first_run(phantom, tmp_path):
    (tmp_path / "simulations").mkdir()
    (tmp_path / "sites").symlink_to(ROOT / "sites")
    shutil.copy(QUICKSTART, tmp_path / "simulations" / "a.toml")
    (tmp_path / "simulations" / "b.toml").write_text(
        QUICKSTART.read_text()
        .replace('name = "quickstart"', 'name = "untested"')
        .replace("subjects = 9", 'split = "by-patient"\ntest_fraction = 0.0')
    )
    settings = tiny_settings(phantom)
    with pytest.raises(DataError, match="no site has a test subject"):
        planned(tmp_path / "simulations", tmp_path / "runs", Plan((0, 1)), settings)
    assert not (tmp_path / "runs").exists()


def test_a_site_without_test_subjects_is_warned_of_and_noted(untested, tmp_path):
    sentence = (
        "centre2 has no test subject: it trains and nothing is measured there; "
        'data.split = "by-patient" would deal some'
    )
    settings = [*tiny_settings(untested), *BRIEF, 'sites=["centre1", "centre2"]']
    words = [w for s in settings for w in ("--set", s)]
    said = call("run", QUICKSTART, "--out", tmp_path / "run", *words)
    assert f"warning: {sentence}" in said
    assert sentence in json.loads((tmp_path / "run/result.json").read_text())["notes"]


def test_a_gpu_that_is_not_there_is_refused(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr("fedprivseg.core.compute.gpus_seen", lambda: 0)
    with pytest.raises(RequestError, match="gives gpus = 1, and torch sees none here") as caught:
        simulate(_scenario(phantom, "resources.gpus=1"), tmp_path / "run")
    assert caught.value.status == 2
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("fedprivseg.core.compute.gpus_seen", lambda: 1)
    ahead = preflight(_scenario(phantom, "resources.gpus=2"), tmp_path / "run")
    assert "torch sees 1 here" in ahead.refusals[0]
    assert ahead.warnings == ()
    assert (ahead.seconds, ahead.basis) == (None, "no rate was measured on a GPU")


def test_room_on_disk_and_in_memory(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=260 * 2**20))
    monkeypatch.setattr("fedprivseg.study.preflight._memory_available", lambda: 10**8)
    ahead = preflight(_scenario(phantom, "grid.height=512", "grid.width=512"), tmp_path / "run")
    assert "GB may be needed at" in ahead.warnings[0]
    assert "of memory may be needed, and 0.1 are available; lower resources.sites_at_once" in ahead.warnings[1]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10 * 2**20))
    with pytest.raises(FolderError, match="only 10 MiB are free"):
        refuse(preflight(_scenario(phantom), tmp_path / "run"))


def test_what_a_gate_would_block_is_said_beforehand(phantom, tmp_path):
    settings = [*tiny_settings(phantom), "method.name=fedavg", 'method.variant=""', "method.parameters={rounds=1}"]
    ahead = preflight(load_scenario(ROOT / "simulations/policy-codes-only.toml", settings), tmp_path / "run")
    blocked = {site.name: {each.kind for each in site.blocked} for site in ahead.sites}
    assert blocked == {"centre1": set(), "centre2": {"weights"}, "centre3": set()}
    assert len(ahead.warnings) == 1
    assert ahead.warnings[0].startswith("the gate of centre2 would block weights (kind.not-allowed): ")
    assert ahead.remaining == 2
    strict = _scenario(phantom, 'policy.restrict.all={profile="scgs-313008"}')
    found = preflight(strict, tmp_path / "run")
    assert found.warnings[-1] == "0 sites would remain, and the quorum is 1: the run would end with status 3"
    assert found.refusals == (), "what a run without quorum is worth, its own report says"


def test_a_folder_that_holds_something_else_is_refused(phantom, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FolderError, match="no run folder and not empty"):
        preflight(_scenario(phantom), tmp_path)
