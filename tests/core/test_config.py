"""Scenario files: what is refused, and what the refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprivseg import protections
from fedprivseg.core.config import (
    GridConfig,
    Scenario,
    SiteConfig,
    apply_settings,
    label_orders,
    read_scenario,
    read_sites,
)
from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.task import default_task
from fedprivseg.study.run import load_scenario

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "simulations" / "quickstart.toml"


@pytest.mark.parametrize("path", sorted((ROOT / "simulations").rglob("*.toml")), ids=lambda path: path.stem)
def test_every_starter_scenario_resolves(path):
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    assert scenario.question
    assert scenario.method.parameters, "the resolved scenario writes every parameter out"
    for config in scenario.protections:
        assert protections.resolve(config).guarantee
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#"), "a scenario begins with a comment: what it asks, what it should show"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("grid.heigth=128", ["grid.heigth", "did you mean 'height'", "width"]),
        ("nonsense=1", ["unknown key 'nonsense'", "method", "seed"]),
        ("grid.height=100", ["divisible by 16", "96", "112", "100"]),
        ("method.name=privacy", ["unknown method 'privacy'", "privacy-sf"]),
        ("method.variant=best", ["no variant 'best'", "improved", "paper"]),
        ("method.parameters.vieews=3", ["vieews"]),
        ('sites=["centre9"]', ["unknown site 'centre9'", "centre1, centre2", "init"]),
        ("sites=[]", ["sites must be a list"]),
        ("seed=-1", ["seed", "-1"]),
        ("engine=spark", ["engine", "ray"]),
        ("resources.sites_at_once=0", ["sites_at_once", "0"]),
        ("quorum=7", ["quorum is 7", "3 sites"]),
        ("grid.height", ["key=value"]),
        ("name.x=1", ["is a value, not a table"]),
    ],
)
def test_wrong_settings_name_the_fault_and_what_is_allowed(setting, words):
    with pytest.raises(ScenarioError) as caught:
        load_scenario(QUICKSTART, [setting])
    for word in words:
        assert word in str(caught.value)
    assert caught.value.status == 2


def test_a_missing_file_and_a_broken_file_are_told_apart(tmp_path):
    with pytest.raises(ScenarioError, match="no such file"):
        read_scenario(tmp_path / "x.toml")
    with pytest.raises(ScenarioError, match="is a folder; give a TOML file"):
        read_scenario(tmp_path)
    (tmp_path / "y.toml").write_text("name = ")
    with pytest.raises(ScenarioError, match="not valid TOML"):
        read_scenario(tmp_path / "y.toml")


def test_a_site_folder_must_carry_its_own_name(tmp_path):
    home = tmp_path / "sites" / "north"
    home.mkdir(parents=True)
    (home / "site.toml").write_text('name = "south"\ncentre = 1\n')
    scenario = tmp_path / "simulations" / "s.toml"
    scenario.parent.mkdir()
    scenario.write_text('name = "s"\nsites = ["north"]\n[method]\nname = "privacy-sf"\n')
    with pytest.raises(ScenarioError, match="'south'.*'north'"):
        read_scenario(scenario)


def sites_with(tmp_path, labels):
    home = tmp_path / "north"
    home.mkdir(exist_ok=True)
    (home / "site.toml").write_text(f'name = "north"\ncentre = 1\nlabels = {labels}\n')
    return tmp_path


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ("{}", ()),
        ('{ 1 = "LV", 2 = "MYO", 3 = "RV" }', ("LV", "MYO", "RV")),
        ('{ 1 = "RV", 2 = "MYO", 3 = "LV" }', ("RV", "MYO", "LV")),
        ('{ 3 = "LV", 1 = "MYO", 2 = "RV" }', ("MYO", "RV", "LV")),
    ],
)
def test_a_site_states_what_its_labels_are(tmp_path, labels, order):
    (site,) = read_sites(sites_with(tmp_path, labels))
    assert site.order == order
    assert label_orders([site], default_task()) == ({"1": order} if order else {})


@pytest.mark.parametrize(
    "labels",
    [
        '{ 1 = "RV", 2 = "MYO" }',
        '{ 1 = "RV", 2 = "MYO", 3 = "RV" }',
        '{ 1 = "RV", 2 = "MYO", 4 = "LV" }',
        '{ 0 = "RV", 1 = "MYO", 2 = "LV" }',
        '{ 1 = "RV", 2 = "MYO", 3 = "LV", 4 = "LA" }',
        '{ 1 = "rv", 2 = "MYO", 3 = "LV" }',
        '{ one = "RV", 2 = "MYO", 3 = "LV" }',
        '["RV", "MYO", "LV"]',
    ],
)
def test_labels_name_every_structure_once(tmp_path, labels):
    with pytest.raises(ScenarioError, match="labels") as caught:
        label_orders(read_sites(sites_with(tmp_path, labels)), default_task())
    assert caught.value.status == 2


def test_an_incomplete_statement_is_told_what_is_allowed(tmp_path):
    with pytest.raises(ScenarioError, match=r"each of LV, MYO, RV once, for the labels 1, 2, 3, such as"):
        label_orders(read_sites(sites_with(tmp_path, '{ 1 = "RV", 2 = "RV", 3 = "LV" }')), default_task())


def test_sites_of_one_centre_agree_on_labels(tmp_path):
    one = SiteConfig(name="north", centre=1)
    other = SiteConfig(name="south", centre=1, labels={1: "RV", 2: "MYO", 3: "LV"})
    with pytest.raises(ScenarioError, match="sites of centre 1 state different labels"):
        label_orders([one, other], default_task())
    with pytest.raises(ScenarioError, match="holds no site"):
        read_sites(tmp_path / "nowhere")


def test_the_hash_names_the_question_not_the_engine():
    one, other = load_scenario(QUICKSTART), load_scenario(QUICKSTART, ["engine=inline"])
    assert one.sha256 == other.sha256
    assert one.sha256 != load_scenario(QUICKSTART, ["seed=1"]).sha256
    assert Scenario.model_validate_json(one.model_dump_json()).sha256 == one.sha256


@given(st.integers(16, 1024))
def test_grid_sizes_are_multiples_of_sixteen(size):
    if size % 16:
        with pytest.raises(ValueError, match="divisible by 16"):
            GridConfig(height=size)
    else:
        assert GridConfig(height=size).height == size


def test_settings_are_toml_literals_or_text():
    content = apply_settings({}, ["a.b=1", "a.c=[1, 2]", "a.d=plain text", 'e="1"', "f=true"])
    assert content == {"a": {"b": 1, "c": [1, 2], "d": "plain text"}, "e": "1", "f": True}


@pytest.mark.parametrize(
    ("name", "method", "variant", "folder"),
    [
        ("quickstart", "privacy-sf", "improved", "quickstart-privacy-sf-improved-7"),
        ("quickstart", "privacy-sf", "paper", "quickstart-privacy-sf-paper-7"),
        ("quickstart", "fedavg", "default", "quickstart-fedavg-7"),
        ("quickstart", "fedavg", "", "quickstart-fedavg-7"),
        ("fedavg", "fedavg", "default", "fedavg-7"),
        ("coded-paper", "privacy-sf", "paper", "coded-paper-privacy-sf-7"),  # the name says the variant already
        ("privacy-sf-paper", "privacy-sf", "paper", "privacy-sf-paper-7"),
        ("no-fedavgm", "fedavg", "default", "no-fedavgm-fedavg-7"),  # part of a word says nothing
    ],
)
def test_a_run_folder_is_named_after_scenario_method_variant_and_seed(name, method, variant, folder):
    content = {
        "name": name,
        "seed": 7,
        "sites": [{"name": "a", "centre": 1}],
        "method": {"name": method, "variant": variant},
    }
    scenario = Scenario.model_validate(content)
    assert scenario.run_name == folder
    assert str(scenario.folder) == f"runs/{folder}"


def test_another_method_takes_the_files_variant_and_parameters_away():
    settings = ["method.parameters.rounds=3", "method.name=fedavg"]  # in whatever order
    scenario = load_scenario(ROOT / "simulations/quickstart.toml", settings)
    assert (scenario.method.name, scenario.method.variant, scenario.method.parameters["rounds"]) == (
        "fedavg",
        "default",
        3,
    )
    same = load_scenario(ROOT / "simulations/quickstart.toml", ["method.name=privacy-sf"])
    assert (same.method.variant, same.method.parameters["views"]) == ("improved", 6)
