"""A finished run, and what it would take between other hospitals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from browser import cut_off
from commands import call, refused
from conftest import BRIEF, ROOT, tiny_settings

from fedprivseg.core.results import read_result
from fedprivseg.core.site_profile import SiteProfile
from fedprivseg.study import pipeline
from fedprivseg.study.clock.exchanges import recorded
from fedprivseg.study.clock.gantt import gantt_chart
from fedprivseg.study.clock.what_if import simulated_time
from fedprivseg.study.compare.compare_tables import as_content, as_rows
from fedprivseg.study.compare.runs import compare
from fedprivseg.study.run import load_scenario

NIGHTS = '[profile]\nuplink = 10\nlatency = 30\navailability = { daily = ["20:00", "06:00"] }\n'


@pytest.fixture(scope="module")
def run(tmp_path_factory, phantom) -> Path:
    """A run of three sites, of which the second works at night."""
    home = tmp_path_factory.mktemp("clock")
    shutil.copytree(ROOT / "sites", home / "sites")
    site = home / "sites" / "centre2" / "site.toml"
    site.write_text(f"{site.read_text()}\n{NIGHTS}")
    settings = [*tiny_settings(phantom), *BRIEF]
    scenario = load_scenario(ROOT / "simulations" / "quickstart.toml", settings, sites_folder=home / "sites")
    pipeline.run(scenario, home / "run")
    return home / "run"


def test_the_record_has_every_order_and_the_bytes_of_the_accounts(run):
    found, result = recorded(run), read_result(run)
    for name, site in result.sites.items():
        own = [each.errands[name] for each in found if each.action != "describe" and name in each.errands]
        assert sum(errand.up for errand in own) == site.bytes_up
        assert sum(errand.down for errand in own) == site.bytes_down
        assert sum(errand.seconds for errand in own) == pytest.approx(site.seconds, abs=0.01 * len(own))
    stages = [each.stage for each in found]
    assert list(dict.fromkeys(stages)) == ["roll call", *result.stages]
    for stage, seconds in result.stages.items():
        assert 0 <= sum(each.server_s for each in found if each.stage == stage) <= seconds


def test_the_result_holds_the_time_and_the_report_says_it(run, tmp_path):
    time = read_result(run).simulated_time
    assert time is not None
    assert time == simulated_time(run)
    assert 11 * 3600 < time.total_s < 12 * 3600, (
        "it begins at nine in the morning, and the second site at eight in the evening"
    )
    assert time.sites["centre1"].away_s == 0
    for site in time.sites.values():
        assert site.busy_s + site.waiting_s == pytest.approx(time.total_s)
    page = (run / "report.html").read_text()
    assert "This study takes 11 hours between these hospitals." in page
    assert "The others wait most for centre2" in page
    assert cut_off(page, tmp_path) == {}


def test_profiles_make_no_other_run(run, phantom):
    """Who states a profile, or another one, need not run again: it is the same scenario."""
    settings = [*tiny_settings(phantom), *BRIEF]
    plain = load_scenario(ROOT / "simulations" / "quickstart.toml", settings)
    assert read_result(run).scenario_sha256 == plain.sha256


def test_other_profiles_change_the_time_and_nothing_else(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    near = ["all.availability=always", "all.latency=0"]
    always, slow = simulated_time(run, near), simulated_time(run, [*near, "centre2.uplink=1"])
    assert always.total_s < 3600
    assert slow.sites["centre2"].up_s == pytest.approx(10 * always.sites["centre2"].up_s)
    assert slow.sites["centre1"] == always.sites["centre1"].model_copy(
        update={"waiting_s": slow.sites["centre1"].waiting_s}
    )
    assert simulated_time(run, deadline_s=60).sites["centre2"].late > 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_stands_for_all_sites_comes_first(run):
    one, other = "centre1.speed=4", "all.speed=2"
    assert simulated_time(run, [one, other]) == simulated_time(run, [other, one]) != simulated_time(run, [other])


def test_the_command_says_it(run, tmp_path):
    said = call("clock", run)
    assert said.endswith(
        "This study takes 11 hours between these hospitals.\nThe others wait most for centre2: 11 hours away.\n"
    )
    assert "fit encoders\t" in said
    picture = tmp_path / "new" / "stages.svg"
    found = json.loads(call("clock", run, "--site", "all.availability=always", "--json", "-o", picture))
    assert found["total_s"] < 3600
    assert set(found["sites"]) == {"centre1", "centre2", "centre3"}
    assert "fit encoders" in found["stages"]
    assert picture.read_text().startswith("<svg ")
    assert "centre2" in picture.read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("centr2.uplink=1", ["centr2.uplink=1", "did you mean 'centre2'", "all", "uplink"]),
        ("centre2", ["SITE.KEY=VALUE", "centre1.uplink=10"]),
        ("centre2.up=1", ["unknown key 'up'", "uplink"]),
        ("centre2.uplink=0", ["uplink", "0.001"]),
        ("centre2.availability=sometimes", ['"always"', "daily", "sometimes"]),
        ('centre2.availability={daily=["20:00", "20:00"]}', ["the same"]),
        ('centre2.availability={daily=["20:00", "24:00"]}', ["24:00"]),
        ("centre2.availability={trace=[1]}", ["even number"]),
        ("centre2.availability={trace=[1, 1], markov={there=1, away=1}}", ["trace and markov are given"]),
        ("centre2.loss=0.5", ["loss", "0.1"]),
    ],
)
def test_what_cannot_be_asked_is_refused(run, change, words):
    said = refused("clock", run, "--site", change)
    for word in words:
        assert word in said


def test_a_deadline_is_above_zero(run):
    assert "--deadline is 0" in refused("clock", run, "--deadline", "0")


def test_a_picture_has_a_row_for_each_site_and_its_labels_are_text(run):
    time = simulated_time(run)
    drawn = gantt_chart(time, {"centre1": "<b>One</b>", "centre2": "Two", "centre3": "Three"})
    for word in ("server", "&lt;b&gt;One&lt;/b&gt;", "Two", "Three", "fit encoders", "away", "hours of simulated time"):
        assert word in drawn
    assert drawn == gantt_chart(time, {"centre1": "<b>One</b>", "centre2": "Two", "centre3": "Three"})


def test_a_comparison_has_a_column(run):
    header, rows = as_rows(compare([run]))
    assert rows[0][header.index("between hospitals")] == "11 hours"
    (row,) = as_content(compare([run]))["rows"]
    assert row["simulated_seconds"] == pytest.approx(read_result(run).simulated_time.total_s)


def test_defaults_are_the_machine_that_measured_behind_a_common_line():
    profile = SiteProfile()
    assert (profile.speed, profile.share, profile.crash, profile.loss) == (1, 1, 0, 0)
    assert profile.availability == SiteProfile(availability="always").availability
