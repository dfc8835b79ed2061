"""Clause 5.2 in a run: said before it, enforced in it, judged after it from what the ledgers keep."""

from __future__ import annotations

import json

import pytest
from conftest import BRIEF, ROOT, tiny_settings
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.governance.compliance import judge
from fedprivseg.governance.ledger import ledger
from fedprivseg.study.run import load_scenario, simulate

SCENARIO = ROOT / "simulations/policy-strategy.toml"


def clause(run):
    return next(each for each in judge(run) if each.clause == "5.2")


def ran(phantom, folder, *settings):
    scenario = load_scenario(SCENARIO, [*tiny_settings(phantom), *BRIEF, *settings])
    return simulate(scenario, folder)


@pytest.fixture(scope="module")
def blocked(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategy") / "run"
    return folder, ran(phantom, folder)


def test_the_check_says_before_the_run_what_the_table_says(phantom):
    words = [word for setting in tiny_settings(phantom) for word in ("--set", setting)]
    done = CliRunner().invoke(app, ["policy", "check", str(SCENARIO), *words, "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)
    assert (told["blocked"], told["remain"]) == (["centre2"], 2)
    refused = [each for each in told["decisions"] if not each["allowed"]]
    assert {(each["site"], each["kind"], each["rule"], each["clause"]) for each in refused} == {
        ("centre2", "image-code", "technique.not-recommended", "5.2")
    }
    verdicts = [[one["verdict"] for one in each["technique_advice"]] for each in refused]
    assert all(each == ["recommended", "not recommended"] for each in verdicts)
    plain = CliRunner().invoke(app, ["policy", "check", str(SCENARIO), *words], catch_exceptions=False)
    row = "centre2\timage-code\thigh\tlow\tdata transformation, numeric transform\tnot recommended (refused)"
    assert row in plain.stdout.splitlines()


def test_the_site_is_blocked_and_what_left_elsewhere_was_graded(blocked):
    folder, result = blocked
    assert "(technique.not-recommended)" in result.sites["centre2"].status
    assert result.sites["centre1"].status == result.sites["centre3"].status == "ok"
    lines = ledger.read(folder / "sites/centre2/ledger.jsonl")
    assert "image-code" not in {line.facts.get("kind") for line in lines if line.event == "release"}
    found = clause(folder)
    assert (found.state, found.fix) == ("kept", "")
    assert "image-code under data transformation, numeric transform" in found.why
    site, index = found.evidence[0].split(":")
    assert ledger.read(folder / "sites" / site / "ledger.jsonl")[int(index)].event == "release"


def test_what_is_noted_and_not_refused_breaks_the_clause(phantom, tmp_path):
    noted = 'policy.restrict.centre2.strategy=[{of=["image-code"], utility="high", confidentiality="low"}]'
    assert {account.status for account in ran(phantom, tmp_path / "run", noted).sites.values()} == {"ok"}
    found = clause(tmp_path / "run")
    assert found.state == "broken"
    assert "advises against what left: image-code under data transformation, numeric transform" in found.why
    assert {where.split(":")[0] for where in found.evidence} == {"centre2"}
    assert "refuse" in found.fix


def test_what_leaves_without_a_grade_breaks_the_clause(phantom, tmp_path, monkeypatch):
    from fedprivseg.study import run as module

    provision_sites = module.provision_sites

    def ungraded(folder, *rest):
        provision_sites(folder, *rest)
        (folder / "sites/centre1/policy.toml").write_text('profile = "open-research"\nstrategy = []\n')

    monkeypatch.setattr(module, "provision_sites", ungraded)
    ran(phantom, tmp_path / "run")
    found = clause(tmp_path / "run")
    assert found.state == "broken"
    assert found.why.startswith("centre1 released image-code, mask-code, metric, status without grading")


def test_a_run_in_which_nothing_left_has_nothing_to_judge(phantom, tmp_path):
    with pytest.raises(Exception, match="kind.not-allowed|policy.absent|purpose"):
        ran(phantom, tmp_path / "run", 'policy.restrict.all={profile="no-sharing"}')
    assert clause(tmp_path / "run").state == "not applicable"
