"""A Ray cluster that is there: joined, not begun; sites stay where their folders lie; a node that is lost is survived."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from two_ray_nodes import PINNED, SITES

from fedprivseg.core.config import ResourceConfig, Scenario
from fedprivseg.core.errors import RunError, ScenarioError
from fedprivseg.core.validation import validated
from fedprivseg.runtime.engines.ray_cluster import ADDRESS, Cluster

# One after another with the other tests that use Ray.
pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What happened on two nodes."""
    out = tmp_path_factory.mktemp("nodes") / "told.json"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests/two_ray_nodes.py"), str(out)]
    env = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=560)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "", "what Ray tells of lost nodes is no answer of a command"
    return json.loads(out.read_text())


def test_every_site_answers_from_either_node(told):
    assert {site: said["count"] for site, said in told["first"].items()} == dict.fromkeys(SITES, 1)
    assert {site: said["count"] for site, said in told["second"].items()} == dict.fromkeys(SITES, 2), "state goes along"
    assert all(said["station"] == f"/sites/{site}/station.json" for site, said in told["first"].items())


def test_a_site_whose_folder_lies_with_a_node_works_there(told):
    for when in ("first", "second", "after a death"):
        assert told[when][PINNED]["node"] == told["pinned to"]


def test_a_site_goes_back_to_who_served_it(told):
    """Where it has what it read."""
    assert told["alone"]["centre1"]["pid"] in {told[when]["centre1"]["pid"] for when in ("first", "second")}


def test_a_site_that_ends_its_worker_is_dead_and_the_next_order_finds_another(told):
    crashed = 8
    assert told["dead"] == {"centre1": crashed}
    assert set(told["after a death"]) == set(SITES)
    assert all(isinstance(said, dict) for said in told["after a death"].values())


def test_who_answers_too_late_is_not_heard_and_asked_one_order_at_a_time(told):
    assert told["late"] == {}
    before, after = told["after a death"]["centre3"]["count"], told["after a late one"]["centre3"]["count"]
    assert after == before + 2, "the late order was done before the next"


def test_a_lost_node_is_survived(told):
    """What it did is done again elsewhere, but for the site whose folder lay with it."""
    unavailable = 5
    assert told["node lost"].pop(PINNED) == unavailable
    assert set(told["node lost"]) == set(SITES) - {PINNED}
    assert {said["node"] for said in told["node lost"].values()}.isdisjoint({told["pinned to"]})
    assert told["after the loss"].pop(PINNED) == unavailable
    assert set(told["after the loss"]) == set(SITES) - {PINNED}


def test_what_finds_no_room_is_said_with_what_there_is(told):
    assert "one takes 64 CPUs" in told["too large"]
    assert told["too large"].count("2 CPUs, 0 GPUs") == 2


def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv(ADDRESS, "127.0.0.1:1")
    cluster = Cluster(ResourceConfig())
    with pytest.raises(RunError, match=r"the Ray cluster at '127\.0\.0\.1:1' cannot be joined"):
        cluster.ready()
    cluster.end()


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port", "head:6379 --x"])
def test_an_address_is_that_of_a_cluster(address):
    with pytest.raises(ScenarioError, match="ray_address"):
        validated(ResourceConfig, {"ray_address": address}, "x")
    assert validated(ResourceConfig, {"ray_address": "head-1.example:6379"}, "x").ray_address


def test_the_cluster_makes_no_other_scenario(tiny_scenario: Scenario):
    """A run goes on on another cluster."""
    joined = tiny_scenario.resources.model_copy(update={"ray_address": "head:6379"})
    assert tiny_scenario.model_copy(update={"resources": joined}).sha256 == tiny_scenario.sha256
