"""A request is checked before anything heavy is loaded, and two scenarios that differ are told apart in a sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

from fedprivseg.study.scenarios import load_scenario, what_differs

HEAVY = ("torch", "flwr", "ray", "scipy", "nibabel", "monai", "opacus", "matplotlib", "pydicom", "cedarpy")


STEPZ = ["--set", "method.parameters.image_stepz=3"]


@pytest.mark.parametrize(
    ("command", "words", "says"),
    [
        ("run", STEPZ, "did you mean 'image_steps'"),
        ("policy check", STEPZ, "did you mean 'image_steps'"),
        ("agreement new", STEPZ, "did you mean 'image_steps'"),
        ("run --dry-run", ["--set", "method.parameters.image_steps=many"], "image_steps"),
        ("run", ["--set", "method.name=fedavgg"], "did you mean 'fedavg'"),
        ("run", ["--set", "method.variant=improvd"], "its variants are: improved, paper"),
        ("run", ["--set", 'sites=["centre9"]'], "centre9"),
        ("run", ["--set", 'protections=[{name="noize"}]'], "did you mean 'noise'"),
        ("run", ["--set", 'protections=[{name="noise", parameters={clipp=1}}]'], "did you mean 'clip'"),
        ("run", ["--set", 'policy.restrict.all={profile="gdpr"}'], "gdpr"),
        ("run", ["--set", "grid.heigth=32"], "did you mean 'height'"),
        ("run", ["--set", "grid"], "key=value"),
        ("run", ["--set", 'study.consent.withdraws.centre1="send_code"'], "send_mask_codes"),
        ("run", ["--engine", "spark"], "ray"),
    ],
)
def test_a_mistake_is_refused_before_anything_heavy_is_loaded(tmp_path, command, words, says):
    asked = [*command.split(), str(ROOT / "simulations/quickstart.toml"), *words]
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules]))\n"
        "from fedprivseg.cli import main\n"
        f"sys.argv = ['fedprivseg', *{asked!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_methods_are_listed_without_torch():
    code = (
        "import sys, fedprivseg.methods; print([m for m in ('torch', 'flwr', 'monai', 'opacus') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def quickstart_scenario():
    return load_scenario(ROOT / "simulations/quickstart.toml")


def test_the_method_is_named_first_and_its_parameters_are_not_listed(quickstart_scenario):
    other = load_scenario(
        ROOT / "simulations/quickstart.toml",
        ["method.name=fedavg", 'method.variant=""', "method.parameters={}", "seed=3", "grid.height=64", "name=other"],
    )
    # method.name, method.variant (improved there, default here), seed, grid.height, name: five, and no parameter.
    assert what_differs(quickstart_scenario, other) == (
        'method.name is "privacy-sf" there and "fedavg" here; method.variant is "improved" there and "default" here; '
        "seed is 0 there and 3 here; and 2 more"
    )


def test_parameters_are_named_where_the_method_is_the_same(quickstart_scenario):
    other = load_scenario(ROOT / "simulations/quickstart.toml", ["method.parameters.views=5"])
    assert what_differs(quickstart_scenario, other) == "method.parameters.views is 6 there and 5 here"


def test_sites_are_told_by_name_and_what_they_hold_by_place(quickstart_scenario):
    fewer = load_scenario(ROOT / "simulations/quickstart.toml", ['sites=["centre1", "centre2"]'])
    assert what_differs(quickstart_scenario, fewer) == (
        'sites is ["centre1", "centre2", "centre3"] there and ["centre1", "centre2"] here'
    )
    first, *rest = quickstart_scenario.sites
    moved = quickstart_scenario.model_copy(update={"sites": (first.model_copy(update={"domain": "north"}), *rest)})
    assert what_differs(quickstart_scenario, moved) == 'sites.centre1.domain is "centre1" there and "north" here'
