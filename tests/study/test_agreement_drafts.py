"""Data-use agreements by command: drafted from a scenario, signed by each party, found by `policy check` and by a run."""

from __future__ import annotations

import json
import shutil

import pytest
from commands import call, refused
from conftest import BRIEF, ROOT, tiny_settings

from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.policy.agreement import read_agreement
from fedprivseg.study.simulated_sites import keys_of

SCENARIO = ROOT / "simulations/policy-agreement.toml"


@pytest.fixture
def words(phantom):
    settings = [*tiny_settings(phantom), *BRIEF, 'sites=["centre1", "centre2"]']
    return [word for setting in settings for word in ("--set", setting)]


def test_from_a_refusal_to_a_run(words, tmp_path):
    """What a newcomer does under the standard's profile, step by step, and what the scenario's header says."""
    run = tmp_path / "run"
    assert "agreement.absent" in refused("run", SCENARIO, "--out", run, *words, status=3)
    assert "`fedprivseg agreement new SCENARIO`" in refused("policy", "check", SCENARIO, "--out", run, *words, status=3)
    said = call("agreement", "new", SCENARIO, "--out", run, *words)
    assert said.count("drafted, not signed") == 2
    assert "`fedprivseg agreement sign" in refused("policy", "check", SCENARIO, "--out", run, *words, status=3)
    assert "waits for: server" in call("agreement", "sign", run, "--as", "site")
    shown = json.loads(call("agreement", "show", run, "--json"))
    assert [one["signatures"] for one in shown] == [{"site": "valid", "server": "missing"}] * 2
    assert "both have signed" in call("agreement", "sign", run, "--as", "server")
    table = call("agreement", "show", run).splitlines()
    assert table[1].split("\t")[2:] == [
        "image-code, mask-code, metric, status",
        "describe, infer, measure, train",
        "2026-03-01",
        "2027-03-01",
        "valid",
        "valid",
    ]
    assert "no site would be blocked; 2 of 2 remain" in call("policy", "check", SCENARIO, "--out", run, *words)
    ended = json.loads(call("run", SCENARIO, "--out", run, "--json", *words))
    assert {name: site["status"] for name, site in ended["sites"].items()} == {"centre1": "ok", "centre2": "ok"}
    assert ended["resumed"], "who was blocked for want of an agreement is asked again"
    assert "finished run" in refused("agreement", "new", SCENARIO, "--out", run, *words)


@pytest.fixture
def drafted(words, tmp_path):
    call("agreement", "new", SCENARIO, "--out", tmp_path / "run", *words)
    return tmp_path / "run"


def test_one_site_can_sign_alone_and_with_a_key_of_its_own_place(drafted, tmp_path):
    call("agreement", "sign", drafted, "centre2", "--as", "site")
    shown = {one["site"]: one["signatures"]["site"] for one in json.loads(call("agreement", "show", drafted, "--json"))}
    assert shown == {"centre1": "missing", "centre2": "valid"}
    elsewhere = tmp_path / "agreement.json"
    shutil.copy(drafted / "sites/centre1/agreement.json", elsewhere)
    assert "--key" in refused("agreement", "sign", elsewhere, "--as", "site")
    call("agreement", "sign", elsewhere, "--as", "site", "--key", drafted / "sites/centre1/vault/key.pem")
    assert read_agreement(elsewhere).lacks() == ("server",)


def test_a_foreign_key_cannot_sign_and_a_changed_term_shows(drafted, tmp_path):
    SiteKey.create(tmp_path / "other.pem")
    said = refused("agreement", "sign", drafted, "centre1", "--as", "site", "--key", tmp_path / "other.pem")
    assert "names another key as the site's" in said
    call("agreement", "sign", drafted, "--as", "site")
    path = drafted / "sites/centre1/agreement.json"
    path.write_text(path.read_text().replace("2027-03-01", "2036-03-01"))
    shown = json.loads(call("agreement", "show", drafted, "centre1", "--json"))
    assert shown[0]["signatures"] == {"site": "not valid", "server": "missing"}


def test_keys_are_those_with_which_the_run_signs(drafted):
    site, server = keys_of(drafted, "centre1")
    terms = read_agreement(drafted / "sites/centre1/agreement.json").terms
    assert (terms.site_key, terms.server_key) == (site.public_hex, server.public_hex)
    assert (drafted / "sites/centre1/vault/key.pem").stat().st_mode & 0o777 == 0o600


def test_the_scenarios_own_terms_are_the_draft(words, tmp_path):
    terms = 'study.agreement={start=2026-02-01, end=2026-04-01, kinds=["status"]}'
    call("agreement", "new", SCENARIO, "--out", tmp_path / "run", *words, "--set", terms, "--end", "2026-05-01")
    drawn = read_agreement(tmp_path / "run/sites/centre1/agreement.json").terms
    assert (str(drawn.start), str(drawn.end), drawn.kinds) == ("2026-02-01", "2026-05-01", ("status",))


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--start", "tomorrow"], "--start wants a day such as 2026-12-01; given 'tomorrow'"),
        (["--end", "2026-02-01"], "--end is 2026-02-01, before the agreement starts on 2026-03-01"),
    ],
)
def test_wrong_terms_write_nothing(words, tmp_path, extra, says):
    assert says in refused("agreement", "new", SCENARIO, "--out", tmp_path / "run", *words, *extra)
    assert list(tmp_path.iterdir()) == []


def test_a_second_draft_never_overwrites(drafted, words):
    before = (drafted / "sites/centre1/agreement.json").read_bytes()
    assert "has an agreement of centre1, centre2 already" in refused(
        "agreement", "new", SCENARIO, "--out", drafted, *words
    )
    assert "another scenario" in refused("agreement", "new", SCENARIO, "--out", drafted, *words, "--set", "seed=5")
    assert (drafted / "sites/centre1/agreement.json").read_bytes() == before


def test_agreements_of_another_scenario_do_not_count(drafted, words):
    call("agreement", "sign", drafted, "--as", "site")
    call("agreement", "sign", drafted, "--as", "server")
    call("policy", "check", SCENARIO, "--out", drafted, *words)
    refused("policy", "check", SCENARIO, "--out", drafted, *words, "--set", "seed=5", status=3)


def test_an_agreement_that_cannot_be_read_is_said_to_block_that_site(drafted, words):
    call("agreement", "sign", drafted, "--as", "site")
    call("agreement", "sign", drafted, "--as", "server")
    (drafted / "sites/centre2/agreement.json").write_text("{")
    found = json.loads(call("policy", "check", SCENARIO, "--out", drafted, "--json", *words))
    assert (found["blocked"], found["next"]) == (["centre2"], [])
    rules = {each["rule"] for each in found["decisions"] if each["site"] == "centre2"}
    assert rules == {"agreement.unreadable"}


def test_a_lost_key_is_not_made_anew_by_a_look_ahead(drafted, words):
    call("agreement", "sign", drafted, "--as", "site")
    call("agreement", "sign", drafted, "--as", "server")
    key = drafted / "sites/centre1/vault/key.pem"
    key.unlink()
    found = json.loads(call("run", SCENARIO, "--out", drafted, "--dry-run", "--json", *words))
    assert {each["rule"] for each in found["sites"][0]["blocked"]} == {"agreement.parties"}
    assert not key.exists()


def test_nothing_to_show_says_what_to_do(tmp_path, drafted):
    assert "no run" in refused("agreement", "show", tmp_path)
    assert "unknown site 'centre9'" in refused("agreement", "show", drafted, "centre9")
    (drafted / "sites/centre1/agreement.json").unlink()
    assert "holds no agreement of centre1" in refused("agreement", "show", drafted, "centre1", "centre2")
    (drafted / "sites/centre2/agreement.json").unlink()
    assert "`fedprivseg agreement new SCENARIO` drafts one" in refused("agreement", "show", drafted)
