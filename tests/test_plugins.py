"""Parts of other packages: one that `fedprivseg new` wrote is built, installed, listed, run, gated, attacked and reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call, refused
from conftest import BRIEF, ROOT, tiny_settings

from fedprivseg.attacks import ATTACKS
from fedprivseg.core.config import DataConfig
from fedprivseg.core.documents import read_document
from fedprivseg.core.errors import RequestError, ScenarioError
from fedprivseg.core.plugins import Registry
from fedprivseg.core.results import read_result
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.ledger import ledger
from fedprivseg.imaging.dataset import Dataset
from fedprivseg.imaging.datasets import dataset_of
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.imaging.nnunet import NnUNet
from fedprivseg.methods import Method
from fedprivseg.methods.averaging import FedAvg
from fedprivseg.protections.operation import Operation
from fedprivseg.protections.precision import Precision
from fedprivseg.study.run import load_scenario

PARTS = {"method": "ours", "attack": "linear", "protection": "steps"}
SCRIPT = """
import json
import sys
from pathlib import Path
from fedprivseg.attacks.base import Effort
from fedprivseg.study import leakage
from fedprivseg.study import pipeline
from fedprivseg.study.run import load_scenario, simulate
leakage.SMALL = Effort(3, 3)
for folder, attacks, settings in json.loads(sys.argv[2]):
    simulate(load_scenario(Path(sys.argv[1]), settings), Path(folder))
    leakage.attack_run(Path(folder), attacks=attacks)
    pipeline.report(Path(folder))
print(load_scenario(Path(sys.argv[1])).sha256)
"""
QUICKSTART = ROOT / "simulations/quickstart.toml"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a process in which a package of each sort is installed, and the folder of their sources."""
    home = tmp_path_factory.mktemp("packages")
    for sort, name in PARTS.items():
        call("new", sort, name, "--out", home / sort)
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--no-build-isolation",
            "--no-index",
            "--no-deps",
            "--upgrade",
        ]
        done = subprocess.run(
            [*command, "--target", home / f"site-{sort}", home / sort], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    path = os.pathsep.join([str(ROOT), *(str(home / f"site-{sort}") for sort in PARTS)])
    return {**os.environ, "PYTHONPATH": path}, home


def _python(installed, *words):
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, env=installed[0]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def runs(installed, phantom):
    """The folder of a run with the method, and of one with the protection, attacked and reported."""
    weights = [*tiny_settings(phantom), f"method.name={PARTS['method']}", "method.variant=default"]
    weights += ["method.parameters={rounds=1, local_steps=1, curve_points=0, test_views=1}"]
    codes = [*tiny_settings(phantom), *BRIEF, f'protections=[{{name="{PARTS["protection"]}"}}]']
    asked = [(str(installed[1] / "weights"), ["gradient-inversion", "membership"], weights)]
    asked += [(str(installed[1] / "codes"), [PARTS["attack"]], codes)]
    digest = _python(installed, "-c", SCRIPT, QUICKSTART, json.dumps(asked)).split()[-1]
    assert digest == load_scenario(QUICKSTART).sha256, "what is installed changes no scenario"
    return [RunFolder(Path(folder)) for folder, _, _ in asked]


@pytest.mark.parametrize(("sort", "name"), PARTS.items())
def test_it_is_listed_with_its_package_and_version(installed, sort, name):
    rows = json.loads(_python(installed, "-m", "fedprivseg.cli", f"{sort}s", "--json"))
    assert [row["name"] for row in rows if row["from"] == f"fedprivseg-{name} 0.1.0"] == [name]
    assert rows[-1]["name"] == name, "ours come first"


def test_a_method_runs_is_gated_and_attacked_like_ours(runs):
    run = runs[0]
    result, attacks = read_result(run.path), read_document(run.attacks)
    assert result.method == "ours"
    assert result.environment["fedprivseg-ours"] == "0.1.0"
    assert len(run.sites) == 3
    for site in run.sites:
        ledger.verify(site.ledger)
        assert "weights" in {line.facts.get("kind") for line in ledger.read(site.ledger) if line.event == "release"}
    assert {one["attack"] for one in attacks["reconstructions"]} == {"gradient-inversion"}
    assert {one["attack"] for one in attacks["inferences"]} == {"membership"}
    assert "What leaks" in run.report.read_text()


def test_a_protection_protects_and_an_attack_attacks_like_ours(runs):
    run = runs[1]
    assert read_result(run.path).environment["fedprivseg-steps"] == "0.1.0"
    lines = ledger.read(run.site("centre1").ledger)
    assert any("multiples of 0.1" in line.facts.get("history", ()) for line in lines)
    attacks = read_document(run.attacks)
    assert attacks["plugins"] == {"fedprivseg-linear": "0.1.0"}
    assert {(one["attack"], one["what"]) for one in attacks["reconstructions"]} == {
        ("linear", "images"),
        ("linear", "masks"),
    }
    assert "Linear at centre1" in run.report.read_text()


def test_the_contract_tests_that_are_written_pass(installed):
    _python(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(installed[1] / sort for sort in PARTS))


def _package(folder: Path, package: str, entry: str, code: str = "", group: str = "methods") -> None:
    """An installed package with one module of this code and one entry point."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fedprivseg.{group}]\n{entry}\n")
    (folder / f"{package}.py").write_text(code)


def _methods() -> Registry[type[Method]]:
    return Registry("method", Method, (FedAvg,))


@pytest.mark.parametrize(
    ("entry", "code", "says"),
    [
        ("x = {}:X", "1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("x = {}:X", "", "cannot be loaded: AttributeError"),
        ("x = {}:X", "X = 1", "is no Method"),
        ("x = {}:X", "from fedprivseg.methods.method import Method as X", "does not define conduct, predict"),
        ("x = {}:X", "from fedprivseg.methods.fedbn import FedBN as X", "whose own name is 'fedbn'"),
    ],
)
def test_a_broken_plug_in_names_package_and_entry_point(entry, code, says, tmp_path, monkeypatch, request):
    package = f"broken{abs(hash(request.node.name))}"  # a module is imported once
    _package(tmp_path, package, entry.format(package), code)
    monkeypatch.syspath_prepend(tmp_path)
    for ask in (list, lambda registry: registry.find("x")):
        with pytest.raises(RequestError, match=says) as caught:
            ask(_methods())
        assert f"package {package} 1.0" in str(caught.value)
        assert f"entry point {package}:X" in str(caught.value)
        assert f"pip uninstall {package}" in str(caught.value)
    assert _methods().find("fedavg") is FedAvg, "it is not loaded unless it is asked for"


@pytest.mark.parametrize("names", [["fedavg"], ["new", "new"]])
def test_a_name_stands_for_one_part(names, tmp_path, monkeypatch):
    for number, name in enumerate(names):
        _package(tmp_path, f"clash{number}", f"{name} = nothing:X")
    monkeypatch.syspath_prepend(tmp_path)
    for ask in (list, lambda registry: registry.names, lambda registry: registry.find("other")):
        with pytest.raises(RequestError, match=f"'{names[0]}'.* has the name of a method of"):
            ask(_methods())


def test_an_unknown_name_is_answered_with_those_there_are(tmp_path, monkeypatch):
    _package(tmp_path, "lazy", "newer = lazy:X", "raise SystemError")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ScenarioError, match="unknown method 'newr' .did you mean 'newer'..; the methods are: fedavg, newer"
    ):
        _methods().find("newr")


def test_without_plug_ins_there_are_ours_and_a_run_names_no_package():
    registry = Registry("protection", Operation, (Precision,))
    assert list(registry) == [Precision]
    assert registry.packages(["precision"]) == {}
    assert registry.origin("precision").package == "fedprivseg"
    assert {str(ATTACKS.origin(name)) for name in ATTACKS.own} == {str(registry.origin("precision"))}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("network", "x"), "no new 'network' can be begun; allowed are: method, attack, protection"),
        (("method", "My Method"), "'My Method' is no name for a method"),
        (("method", "../x"), "is no name for a method"),
        (("method", "x--y"), "is no name for a method"),
        (("attack", "linkage"), "the attack 'linkage' exists already, in fedprivseg"),
    ],
)
def test_a_wrong_beginning_is_refused(words, says, tmp_path):
    assert says in refused("new", *words, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "x").mkdir()
    assert "exists already; choose another folder with --out" in refused("new", "method", "x", "--out", tmp_path / "x")
    assert list((tmp_path / "x").iterdir()) == []


def test_a_data_set_of_another_package_is_known_by_its_files(tmp_path, monkeypatch):
    code = """
from dataclasses import dataclass
from fedprivseg.imaging.nnunet import NnUNet
@dataclass(frozen=True)
class Theirs(NnUNet):
    name, title = "theirs", "nnU-Net raw under another name"
    @classmethod
    def recognises(cls, folder):
        return (folder / "theirs.json").exists()
"""
    _package(tmp_path, "theirdata", "theirs = theirdata:Theirs", code, "datasets")
    monkeypatch.syspath_prepend(tmp_path)
    datasets = Registry("dataset", Dataset, (MnMs, NnUNet))
    assert datasets.names == ["mnms", "nnunet", "theirs"]
    assert datasets.packages(["theirs"]) == {"theirdata": "1.0"}
    monkeypatch.setattr("fedprivseg.imaging.datasets.DATASETS", datasets)
    (tmp_path / "theirs.json").touch()
    assert type(dataset_of(DataConfig(), tmp_path)) is datasets.find("theirs")
    assert type(dataset_of(DataConfig(format="theirs"), tmp_path)).name == "theirs"
