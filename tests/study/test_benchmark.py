"""A folder of scenarios, run and compared with one command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT, tiny_settings

from fedprivseg.core.errors import RequestError, ScenarioError
from fedprivseg.core.results import read_result
from fedprivseg.study import pipeline
from fedprivseg.study.benchmark import Plan, carry_out, planned
from fedprivseg.study.compare.runs import compare
from fedprivseg.study.scenarios import load_scenario

SCENARIO = """
name = "{name}"
sites = ["centre1", "centre2", "centre3"]
[method]
name = "{name}"
[method.parameters]
rounds = 2
local_steps = 1
test_views = 1
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "simulations" / "own").mkdir(parents=True)
    (tmp_path / "sites").symlink_to(ROOT / "sites")
    for name in ("fedavg", "local-only"):
        (tmp_path / "simulations" / "own" / f"{name}.toml").write_text(SCENARIO.format(name=name))
    return tmp_path / "simulations" / "own"


def benchmark(folder, phantom, out, *options):
    settings = [word for setting in tiny_settings(phantom) for word in ("--set", setting)]
    command = [sys.executable, "-m", "fedprivseg.cli", "benchmark", str(folder), "--out", str(out), "--seeds", "0"]
    return subprocess.run([*command, *options, *settings], env=os.environ, capture_output=True, text=True, check=False)


def test_one_command_runs_all_and_compares_them(folder, phantom, tmp_path):
    for _ in range(2):  # the second time finds everything done
        done = benchmark(folder, phantom, tmp_path / "runs")
        assert done.returncode == 0, done.stderr
        assert "fedavg" in done.stdout
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert names == {"fedavg-0", "local-only-0", "compare.html", "compare.csv", "compare.png", "table.md"}
    assert "Across sites: local-only" in (tmp_path / "runs" / "compare.html").read_text()
    table = (tmp_path / "runs" / "table.md").read_text()
    assert table.startswith("| method |")
    assert "| local-only (floor) |" in table
    assert table.endswith("- 2 of 2 runs are finished.\n")


def test_parts_fill_one_folder_and_every_subject_is_tested_once(folder, phantom, tmp_path):
    for part, finished in (("1/2", 3), ("2/2", 6)):
        done = benchmark(folder, phantom, tmp_path / "runs", "--folds", "3", "--part", part)
        assert done.returncode == 0, done.stderr
        assert f"- {finished} of 6 runs are finished." in (tmp_path / "runs" / "table.md").read_text()
    found = compare([tmp_path / "runs"])
    assert [(entry.folds, entry.subjects) for entry in found.entries] == [((0, 1, 2), 9)] * 2
    assert (tmp_path / "runs" / "fedavg-fold2-0" / "result.json").exists()
    # Each fold has other people, and together they are the same.
    results = [read_result(tmp_path / "runs" / f"fedavg-fold{fold}-0") for fold in range(3)]
    assert len({result.split_sha256 for result in results}) == 3
    assert len({result.subjects_sha256 for result in results}) == 1
    assert {row.subject for row in results[2].metrics} == {f"centre{n}-f2-t01" for n in (1, 2, 3)}


@pytest.fixture
def fake(monkeypatch):
    """Runs and attacks that only say that they took place; a list of them, and a clock."""

    class Fake:
        def __init__(self):
            self.done, self.now, self.lasts = [], 0.0, 60.0

        def run(self, scenario, place, display=None):
            self.done.append(place.name)
            self.now += self.lasts
            place.mkdir(parents=True, exist_ok=True)
            (place / "result.json").touch()

        def attack(self, place, budget, attacks, sites, progress):
            self.done.append(f"{budget} {place.name}")

    found = Fake()
    monkeypatch.setattr(pipeline, "run", found.run)
    monkeypatch.setattr(pipeline, "attack", found.attack)
    return found


def _planned(folder, phantom, out, plan, *more):
    return planned(folder, out, plan, [*tiny_settings(phantom), *more])


def test_parts_are_the_same_each_time_apart_and_of_about_equal_cost(folder, phantom, tmp_path):
    out = tmp_path / "runs"
    parts = [_planned(folder, phantom, out, Plan((0, 1, 2), 3, part=(k, 4))) for k in (1, 2, 3, 4)]
    owners = [[k for k, part in enumerate(parts) if part[place].mine] for place in range(18)]
    assert all(len(each) == 1 for each in owners)
    loads = [sum(job.cost for job in part if job.mine) for part in parts]
    assert max(loads) - min(loads) <= max(job.cost for job in parts[0])
    again = _planned(folder, phantom, out, Plan((0, 1, 2), 3, part=(2, 4)))
    assert [(job.folder, job.mine) for job in again] == [(job.folder, job.mine) for job in parts[1]]
    assert [job.folder.name for job in again[:3]] == ["fedavg-fold0-0", "local-only-fold0-0", "fedavg-fold1-0"]
    with pytest.raises(RequestError, match="part 3 of 40 is empty|make fewer parts"):
        _planned(folder, phantom, out, Plan((0,), 3, part=(39, 40)))
    assert not out.exists()


def test_killed_it_goes_on_and_tells_how_long(folder, phantom, tmp_path, fake, monkeypatch):
    plan = Plan((0, 1))
    jobs = _planned(folder, phantom, tmp_path / "runs", plan)
    told = []

    def killed(scenario, place, display=None):
        if len(fake.done) == 2:
            raise KeyboardInterrupt
        fake.run(scenario, place)

    monkeypatch.setattr(pipeline, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        carry_out(jobs, plan, tell=told.append, clock=lambda: fake.now)
    monkeypatch.setattr(pipeline, "run", fake.run)
    carry_out(jobs, plan, tell=told.append, clock=lambda: fake.now)
    assert fake.done == ["fedavg-0", "local-only-0", "fedavg-1", "local-only-1"]
    assert told[0].startswith("[1/4]")
    assert told[0].endswith("as estimated")
    # A minute for the first of four alike: three minutes are left.
    assert told[1].endswith("about 3 min left in all, as measured until now")
    assert told[3].startswith("[1/2]")


def test_what_leaves_something_is_attacked_once(folder, phantom, tmp_path, fake):
    plan = Plan((0,), attack="small")
    jobs = _planned(folder, phantom, tmp_path / "runs", plan)
    carry_out(jobs, plan)
    assert fake.done == ["fedavg-0", "small fedavg-0", "local-only-0"]
    assert [job.finished("none") for job in jobs] == [True, True]
    assert [job.finished("small") for job in jobs] == [False, True]  # fake attacks leave no record
    assert jobs[0].cost - jobs[1].cost == 300


def test_a_quick_cut_says_what_it_left_out(folder, phantom, tmp_path, fake):
    """The reference first, then the floor; what would not end within an hour at the measured rate is not begun."""
    for name in ("aaa", "bbb"):
        (folder / f"{name}.toml").write_text(SCENARIO.format(name="fedavg").replace("fedavg", name, 1))
    plan = Plan((5, 6), 3, quick=True)
    jobs = _planned(folder, phantom, tmp_path / "runs", plan, "compare.reference=fedavg")
    names = [job.folder.name for job in jobs]
    assert names == ["fedavg-fold0-5", "local-only-fold0-5", "aaa-fedavg-fold0-5", "bbb-fedavg-fold0-5"]
    assert plan.cuts == ["Quick: seed 5 and the first fold alone (left out: seeds 6, all other folds)."]
    fake.lasts = 1500.0
    cut = carry_out(jobs, plan, clock=lambda: fake.now)
    assert fake.done == names[:2]
    assert cut == ["Quick: not started, since they would not end within 60 minutes: aaa, bbb."]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--part", "3/2"), ("--part", "0/2"), ("--part", "half"), ("--attack", "some"), ("--folds", "1")],
)
def test_options_that_mean_nothing_end_with_status_2(folder, phantom, tmp_path, option, value):
    from typer.testing import CliRunner

    from fedprivseg.cli import app

    settings = [word for setting in tiny_settings(phantom) for word in ("--set", setting)]
    done = CliRunner().invoke(app, ["benchmark", str(folder), "-o", str(tmp_path / "o"), option, value, *settings])
    assert isinstance(done.exception, RequestError)
    assert not (tmp_path / "o").exists()


def test_a_mistake_in_the_last_scenario_is_found_before_the_first_runs(folder, tmp_path):
    (folder / "zz.toml").write_text(SCENARIO.format(name="fedavg").replace("rounds", "ruonds"))
    with pytest.raises(ScenarioError, match="rounds"):
        planned(folder, tmp_path / "runs", Plan())
    assert not (tmp_path / "runs").exists()


def test_a_setting_that_changes_the_method_goes_into_folders_of_its_own(folder, tmp_path):
    """Two methods of one scenario never meet in one folder, so the second does not stop at what the first left."""
    plain = load_scenario(folder / "fedavg.toml", ["seed=4"])
    other = load_scenario(folder / "fedavg.toml", ["seed=4", "method.name=fedprox"])
    assert (plain.run_name, other.run_name) == ("fedavg-4", "fedavg-fedprox-4")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(RequestError, match="no scenario"):
        planned(tmp_path, tmp_path / "runs", Plan())


def test_companion_files_of_macos_are_no_scenarios(folder, tmp_path):
    for path in folder.glob("*.toml"):
        path.rename(path.with_name(f"._{path.name}"))
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07\xff")
    with pytest.raises(RequestError, match="no scenario"):
        planned(folder, tmp_path / "runs", Plan())
