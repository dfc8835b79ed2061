"""A folder of scenarios, run and compared with one command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT, tiny_settings

from fedprivseg.core.errors import RequestError, ScenarioError
from fedprivseg.study.benchmark import run_all
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


def test_one_command_runs_all_and_compares_them(folder, phantom, tmp_path):
    settings = [word for setting in tiny_settings(phantom) for word in ("--set", setting)]
    command = [sys.executable, "-m", "fedprivseg.cli", "benchmark", str(folder), "--out", str(tmp_path / "runs")]
    for _ in range(2):  # the second time finds everything done
        done = subprocess.run(
            [*command, "--seeds", "0", *settings], env=os.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "fedavg" in done.stdout
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert names == {"fedavg-0", "local-only-0", "compare.html", "compare.csv", "compare.png"}
    assert "Across sites: local-only" in (tmp_path / "runs" / "compare.html").read_text()


def test_a_mistake_in_the_last_scenario_is_found_before_the_first_runs(folder, tmp_path):
    (folder / "zz.toml").write_text(SCENARIO.format(name="fedavg").replace("rounds", "ruonds"))
    with pytest.raises(ScenarioError, match="rounds"):
        run_all(folder, tmp_path / "runs", [0])
    assert not (tmp_path / "runs").exists()


def test_a_setting_that_changes_the_method_goes_into_folders_of_its_own(folder, tmp_path):
    """Two methods of one scenario never meet in one folder, so the second does not stop at what the first left."""
    plain = load_scenario(folder / "fedavg.toml", ["seed=4"])
    other = load_scenario(folder / "fedavg.toml", ["seed=4", "method.name=fedprox"])
    assert (plain.run_name, other.run_name) == ("fedavg-4", "fedavg-fedprox-4")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(RequestError, match="no scenario"):
        run_all(tmp_path, tmp_path / "runs", [0])


def test_companion_files_of_macos_are_no_scenarios(folder, tmp_path):
    for path in folder.glob("*.toml"):
        path.rename(path.with_name(f"._{path.name}"))
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07\xff")
    with pytest.raises(RequestError, match="no scenario"):
        run_all(folder, tmp_path / "runs", [0])
