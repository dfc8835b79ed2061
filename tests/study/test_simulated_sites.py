"""Simulated hospitals: a site's own policies on access come into its folder in the run, and hold there."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from commands import tree
from conftest import ROOT, STRICT

from fedprivseg.core.errors import FolderError, ScenarioError
from fedprivseg.core.kinds import KINDS
from fedprivseg.core.records import Subject
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.access.endpoint import AccessEndpoint
from fedprivseg.governance.access.roles import Action, Context, Purpose
from fedprivseg.governance.ledger.identities import write_identities
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.imaging.splits import Cohort
from fedprivseg.study.scenarios import load_scenario
from fedprivseg.study.simulated_sites import provision_sites

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
CLOSED = (
    '@id("hospital.closed") @clause("house rule 1") @says("This house shows nothing to its staff.")\n'
    "forbid (principal is Staff, action, resource);"
)


@pytest.fixture
def sites(tmp_path):
    """A copy of the starter's sites; the first has a policy of its own."""
    shutil.copytree(ROOT / "sites", tmp_path / "sites")
    (tmp_path / "sites/centre1/cedar").mkdir()
    (tmp_path / "sites/centre1/cedar/closed.cedar").write_text(CLOSED)
    return tmp_path / "sites"


def resolved(sites):
    return load_scenario(ROOT / "simulations/quickstart.toml", ["study.today=2026-03-01"], sites_folder=sites)


def asked(home):
    context = Context(NOW, NOW, Purpose.TREATMENT, encrypted=True, integrity=True)
    desk = AccessEndpoint(home, today=NOW.date(), clock=lambda: NOW)
    return desk.staff("chief", "P0", "imaging-report", Action.VIEW, context).ruling.decision.rule


def test_a_sites_own_policies_hold_in_its_simulated_hospital_and_in_no_other(sites, tmp_path):
    scenario, run = resolved(sites), tmp_path / "run"
    folk = tuple(
        Subject(f"P{n}", 1, "train", True, {"ED": 0, "ES": 1}, Path("image"), None, ("LV", "MYO", "RV"))
        for n in range(3)
    )
    cohorts = {site.name: Cohort(folk, ()) for site in scenario.sites}
    provision_sites(run, scenario, frozenset(KINDS), tmp_path / "release", tmp_path / "cache", cohorts)
    rules = {site.name: asked(run / "sites" / site.name) for site in scenario.sites}
    assert rules.pop("centre1") == "hospital.closed"
    assert set(rules.values()) == {"treatment.superior"}
    assert resolved(sites).sha256 == resolved(ROOT / "sites").sha256  # no result depends on who may look


def test_policies_on_access_that_cannot_be_read_or_stand_elsewhere_are_refused(sites):
    (sites / "centre1/cedar/closed.cedar").write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match=r"closed\.cedar cannot be read"):
        resolved(sites)
    (sites / "centre1/cedar/closed.cedar").rename(sites / "centre1/cedar/Closed Doors.cedar")
    (sites / "centre1/cedar/Closed Doors.cedar").write_text(CLOSED)
    with pytest.raises(ScenarioError, match="Closed Doors"):
        resolved(sites)
    site = sites / "centre1/site.toml"
    site.write_text(site.read_text() + "\n[cedar]\n")
    with pytest.raises(ScenarioError, match="files of their own"):
        resolved(sites)


@pytest.fixture
def settled(tmp_path):
    """(the words of `provision_sites`, the run's folder) of three hospitals under the standard's profile, settled once."""
    scenario = load_scenario(ROOT / "simulations/policy-open.toml", STRICT)
    folk = tuple(
        Subject(f"P{n}", 1, "train", True, {"ED": 0, "ES": 1}, Path("image"), None, ("LV", "MYO", "RV"))
        for n in range(3)
    )
    cohorts = {site.name: Cohort(folk, ()) for site in scenario.sites}
    words = (tmp_path / "run", scenario, frozenset(KINDS), tmp_path / "release", tmp_path / "cache", cohorts)
    provision_sites(*words)
    return words, tmp_path / "run"


def test_papers_are_written_once_and_what_a_hospital_changed_stays(settled):
    """A policy that was tightened stays so, and a register that was taken away does not come back with everybody in it."""
    words, run = settled
    home = run / "sites/centre1"
    policy = (home / "policy.toml").read_text()
    assert "max_level = 3" in policy
    (home / "policy.toml").write_text(policy.replace("max_level = 3", "max_level = 1"))
    for name in ("consent.csv", "sealing.key", "staff.toml"):
        (home / name).unlink()
    station = json.loads((home / "station.json").read_text())
    (home / "station.json").write_text(json.dumps({**station, "today": "2026-05-01"}))
    before = tree(run)
    provision_sites(*words)
    assert tree(run) == before


def test_a_hospital_whose_policy_was_taken_away_gets_no_other(settled):
    words, run = settled
    (run / "sites/centre1/policy.toml").unlink()
    provision_sites(*words)
    assert not (run / "sites/centre1/policy.toml").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"release": "/elsewhere"}, "says that the images are in /elsewhere, and this run reads"),
        ({"server_key": "0" * 64}, "has another server's key on file"),
        ({"site": {"name": "centre9", "centre": 1}}, "is that of the site 'centre9'"),
        ({"site": 1}, "it describes no site"),
    ],
)
def test_a_station_that_is_not_this_runs_is_refused(settled, change, says):
    words, run = settled
    path = run / "sites/centre1/station.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(FolderError, match=says) as caught:
        provision_sites(*words)
    assert str(path) in str(caught.value)


def test_a_hospital_that_the_server_knows_is_not_replaced_by_a_new_one(settled):
    """A new hospital in the place of one that was lost would have another key, and block the way of its backup."""
    words, run = settled
    homes = sorted((run / "sites").iterdir())
    keys = {home.name: SiteKey.load(home / "vault/key.pem").public_hex for home in homes}
    write_identities(run / "server", keys)
    provision_sites(*words)
    shutil.rmtree(run / "sites/centre1")
    with pytest.raises(FolderError, match=r"key\.pem is missing.*fedprivseg vault restore"):
        provision_sites(*words)
    assert not (run / "sites/centre1").exists()
    (run / "server/key.pem").unlink()
    with pytest.raises(FolderError, match="the sites know the server by it"):
        provision_sites(*words)


def test_a_hospital_that_has_worked_does_not_get_its_station_anew(settled):
    words, run = settled
    home = run / "sites/centre1"
    Ledger(home / "ledger.jsonl", SiteKey.load(home / "vault/key.pem"), "centre1")
    (home / "station.json").unlink()
    with pytest.raises(FolderError, match=r"station\.json is missing"):
        provision_sites(*words)


def test_the_order_of_labels_that_a_site_states_reaches_its_station(sites, tmp_path):
    site = sites / "centre2/site.toml"
    site.write_text(site.read_text() + '\nlabels = { 1 = "RV", 2 = "MYO", 3 = "LV" }\n')
    scenario, run = resolved(sites), tmp_path / "run"
    assert type(scenario).model_validate_json(scenario.model_dump_json()) == scenario
    assert scenario.sha256 != resolved(ROOT / "sites").sha256  # the same masks are other structures
    cohorts = {each.name: Cohort((), ()) for each in scenario.sites}
    provision_sites(run, scenario, frozenset(KINDS), tmp_path / "release", tmp_path / "cache", cohorts)
    orders = {
        each.name: SiteConfiguration.read(run / "sites" / each.name / "station.json").site.order
        for each in scenario.sites
    }
    assert orders == {"centre1": (), "centre2": ("RV", "MYO", "LV"), "centre3": ()}


def test_companion_files_of_macos_are_no_policies_on_access(sites):
    (sites / "centre1/cedar/._closed.cedar").write_bytes(b"\x00\x05\x16\x07\xff")
    assert list(resolved(sites).sites[0].cedar) == ["closed.cedar"]
