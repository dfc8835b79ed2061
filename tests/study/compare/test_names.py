"""Runs are named by what tells them apart: short, each once, computed from the scenarios."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprivseg.study.compare.names import LONGEST, names_of, settings_of
from fedprivseg.study.run import load_scenario


def scenario(method="fedavg", variant="default", protections=(), name="quickstart", **parameters):
    return {
        "name": name,
        "question": name,
        "seed": 0,
        "method": {"name": method, "variant": variant, "parameters": parameters},
        "protections": list(protections),
        "resources": {"cpus": 2},
    }


def noise(sigma):
    return {"name": "noise", "of": ["image-code"], "parameters": {"sigma": sigma}}


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        pytest.param(
            [scenario("privacy-sf", "improved"), scenario()], ["privacy-sf", "fedavg"], id="two methods, one name"
        ),
        pytest.param(
            [scenario("privacy-sf", "improved"), scenario("privacy-sf", "paper"), scenario()],
            ["privacy-sf improved", "privacy-sf paper", "fedavg"],
            id="variants",
        ),
        pytest.param(
            [scenario(protections=[noise(1.0)]), scenario(), scenario(protections=[noise(1.0), {"name": "keyed"}])],
            ["fedavg, noise", "fedavg", "fedavg, noise + keyed"],
            id="protections",
        ),
        pytest.param(
            [scenario(protections=[noise(0.5)]), scenario(protections=[noise(1.0)]), scenario()],
            ["fedavg, noise, sigma 0.5", "fedavg, noise, sigma 1", "fedavg"],
            id="strengths of one protection",
        ),
        pytest.param(
            [scenario(rounds=5), scenario(rounds=10)], ["fedavg, rounds 5", "fedavg, rounds 10"], id="a number"
        ),
        pytest.param(
            [
                scenario(rounds=5, dp={"epsilon": 8.0}),
                scenario(rounds=9, dp={"epsilon": 2.0}),
                scenario(rounds=7, dp=None),
            ],
            ["fedavg, epsilon 8", "fedavg, epsilon 2", "fedavg"],
            id="what only some have says more than a number",
        ),
        pytest.param(
            [scenario(a=1, b=1), scenario(a=1, b=2), scenario(a=2, b=1)],
            ["fedavg, a 1, b 1", "fedavg, a 1, b 2", "fedavg, a 2"],
            id="two settings where one is too few",
        ),
        pytest.param(
            [scenario(name="one", paths="x" * 90), scenario(name="two", paths="y" * 90)],
            ["fedavg “one”", "fedavg “two”"],
            id="values too long: the scenarios' own names",
        ),
        pytest.param(
            [scenario(paths="x" * 90), scenario(paths="y" * 90)],
            ["fedavg in a/run", "fedavg in b/run"],
            id="nothing short: the folders",
        ),
        pytest.param([scenario(), scenario("fedprox", mu=0.01)], ["fedavg", "fedprox"], id="no more than is needed"),
    ],
)
def test_a_name_says_what_tells_a_run_apart(runs, names):
    folders = [Path(f"/runs/{letter}/run") for letter in "abcdef"]
    assert names_of(list(zip(runs, folders, strict=False))) == names


@pytest.mark.parametrize("folder", ["benchmark-acdc", "few-acdc", "leakage-acdc", "minutes-acdc", "shift-acdc"])
def test_the_scenarios_of_a_study_have_short_names(folder):
    files = sorted((ROOT / "simulations" / folder).glob("*.toml"))
    names = names_of([(load_scenario(file, ()).model_dump(mode="json"), file.with_suffix("")) for file in files])
    assert len(set(names)) == len(files)
    assert max(map(len, names)) <= LONGEST
    found = dict(zip([file.stem for file in files], names, strict=True))
    if folder == "benchmark-acdc":
        assert (found["coded-paper"], found["coded-paper-fair"]) == (
            "privacy-sf paper, height 96",
            "privacy-sf paper, height 192",
        )
        assert found["dp-epsilon-8"] == "fedavg, epsilon 8, unit slice"
        assert found["dp-patient-epsilon-inf"] == "fedavg, epsilon inf, unit patient"
        assert (found["fedavg-scratch"], found["fedavg"]) == ("fedavg", "fedavg, start phantom")
        assert found["fedavg-tuned"] == "fedavg, start phantom, tune steps 50"


words = st.sampled_from(["fedavg", "fedprox", "x" * 60, "", "default", "in a"])
scenarios = st.builds(
    scenario,
    method=words.filter(bool),
    variant=words,
    protections=st.lists(st.builds(noise, st.floats(0, 2)), max_size=2),
    name=words.filter(bool),
    rounds=st.integers(0, 3),
    mu=st.none() | st.floats(0, 1) | st.text(max_size=3) | st.booleans(),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(scenarios, min_size=1, max_size=6))
def test_no_two_have_one_name_and_their_order_changes_nothing(runs):
    pairs = [(run, Path(f"/runs/{number}")) for number, run in enumerate(runs)]
    names = names_of(pairs)
    assert len(set(names)) == len(names)
    assert all(name.startswith(run["method"]["name"]) for name, run in zip(names, runs, strict=True))
    assert names_of(pairs[::-1]) == names[::-1]


def test_settings_by_dotted_key():
    given_ = scenario(protections=[noise(0.5)], rounds=5, dp=None, mu=0.0, on=True, off=False, ones=[1, 2])
    assert settings_of(given_) == {
        "method.name": "fedavg",
        "method.variant": "default",
        "method.parameters.rounds": "5",
        "method.parameters.on": "on",
        "method.parameters.ones": "1 2",
        "protections.noise.of": "image-code",
        "protections.noise.parameters.sigma": "0.5",
        "resources.cpus": "2",
    }
