"""The scenarios about policies end as their headers say, and a policy binds a run from its first order to its last."""

from __future__ import annotations

import json

import pytest
from conftest import BRIEF, ROOT, tiny_settings

from fedprivseg.errors import QuorumError, ScenarioError
from fedprivseg.policy import ledger
from fedprivseg.run import load_scenario, simulate

SITES = ("centre1", "centre2", "centre3")
FEDAVG = ["method.name=fedavg", 'method.variant=""', "method.parameters={rounds=1, local_steps=1}"]
FEW = ["study.consent.refused={centre1=1}", "study.consent.withdrawn={centre2=1}"]  # the phantom of the tests is small
COARSE = [f"method.parameters.{each}" for each in ("image_steps=1", "mask_steps=1", "mapping_steps=1")]


def run(name: str, phantom, folder, *settings: str):
    """Statuses of the sites of simulations/policy-<name>.toml on the smallest of grids, by site, and the result."""
    path = ROOT / "simulations" / f"policy-{name}.toml"
    brief = [] if settings and settings[0].startswith("method.name") else [*BRIEF, *COARSE]
    scenario = load_scenario(path, [*tiny_settings(phantom), *brief, *settings])
    result = simulate(scenario, folder)
    return {site: account.status for site, account in result.sites.items()}, result


@pytest.mark.parametrize(
    ("name", "settings", "withheld"),
    [
        ("open", [], {}),
        ("codes-only", [], {}),
        ("codes-only", FEDAVG, {"centre2": "policy.kind"}),
        ("opt-out", [], {"centre3": "policy.kind"}),
        ("expired-agreement", ["study.today=2026-03-01"], {}),
        ("noise-demanded", [], {}),
        ("noise-demanded", ["protections=[]"], {"centre1": "protection.missing"}),
        (
            "noise-demanded",
            ['protections=[{name="noise", of=["image-code"], parameters={multiplier=0.4}}]'],
            {"centre1": "protection.missing"},
        ),
    ],
)
def test_a_scenario_ends_as_its_header_says(name, settings, withheld, phantom, tmp_path):
    statuses, _ = run(name, phantom, tmp_path / "run", *settings)
    for site in SITES:
        if site in withheld:
            assert f"({withheld[site]})" in statuses[site]
        else:
            assert statuses[site] == "ok"
    for site in withheld:
        home = tmp_path / "run" / "sites" / site
        kinds = {line.facts.get("kind") for line in ledger.read(home / "ledger.jsonl") if line.event == "release"}
        assert not kinds & {"weights"}
        assert name != "opt-out" or not kinds, "an opted-out site releases nothing, not even a count"
        assert not list((tmp_path / "run/server/codes").glob(f"{site}/send_image_codes/*"))


def test_an_agreement_that_ran_out_ends_a_study_without_quorum(phantom, tmp_path):
    with pytest.raises(QuorumError, match="agreement.term"):
        run("expired-agreement", phantom, tmp_path / "run")
    for site in SITES:
        lines = ledger.read(tmp_path / "run/sites" / site / "ledger.jsonl")
        assert not [line for line in lines if line.event == "release"]
        refusals = [line.facts for line in lines if line.event == "refusal"]
        assert all((facts["rule"], facts["clause"]) == ("agreement.term", "5.3.2-a") for facts in refusals)


def test_who_did_not_consent_is_not_taken_in_and_the_ledger_says_how_many(phantom, tmp_path):
    statuses, result = run("consent", phantom, tmp_path / "run", *FEW)
    assert set(statuses.values()) == {"ok"}
    _, everybody = run("open", phantom, tmp_path / "open")
    seen = {site: account.subjects_train + account.subjects_test for site, account in result.sites.items()}
    whole = {site: account.subjects_train + account.subjects_test for site, account in everybody.sites.items()}
    assert seen == {**whole, "centre1": whole["centre1"] - 1, "centre2": whole["centre2"] - 1}
    refused = {"centre1": ["consent.sharing: 1"], "centre2": ["consent.withdrawn: 1"], "centre3": []}
    for site in SITES:
        lines = ledger.read(tmp_path / "run/sites" / site / "ledger.jsonl")
        (intake,) = [line.facts for line in lines if line.event == "intake"]
        assert intake["refused"] == refused[site]
        assert intake["subjects"] == seen[site]
        assert intake["class"] == "clinical image, structural"
    codes = json.loads((tmp_path / "run/sites/centre1/intake.json").read_text())["subjects"]
    assert not any(code in (tmp_path / "run/sites/centre1/ledger.jsonl").read_text() for code in codes)


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lambda home: (home / "policy.toml").unlink(), "policy.absent"),
        (lambda home: (home / "policy.toml").write_text("profile = "), "policy.absent"),
        (lambda home: (home / "policy.toml").write_text('profile = "open"'), "policy.absent"),
        (lambda home: (home / "policy.toml").chmod(0) or _hide(home / "policy.toml"), "policy.absent"),
        (lambda home: (home / "consent.csv").unlink(), "consent.register"),
        (lambda home: (home / "consent.csv").write_text("subject\n"), "consent.nobody"),
        (lambda home: (home / "consent.csv").write_text("subject\nA\n"), "consent.register"),
    ],
)
def test_a_site_whose_rules_cannot_be_read_releases_nothing(damage, rule, phantom, tmp_path, monkeypatch):
    from fedprivseg import run as module

    settle = module.settle

    def damaged(folder, *rest):
        settle(folder, *rest)
        damage(folder / "sites/centre1")

    monkeypatch.setattr(module, "settle", damaged)
    statuses, _ = run("consent", phantom, tmp_path / "run", *FEW)
    assert f"({rule})" in statuses["centre1"]
    assert (statuses["centre2"], statuses["centre3"]) == ("ok", "ok")
    lines = ledger.read(tmp_path / "run/sites/centre1/ledger.jsonl")
    assert not [line for line in lines if line.event == "release"]


def _hide(path):
    """Root reads files of any mode: a folder in its place can be read by nobody."""
    path.unlink()
    path.mkdir()


def test_consent_that_is_withdrawn_closes_the_gate_at_the_next_payload(phantom, tmp_path, monkeypatch):
    from fedprivseg.site.bench import Bench

    folder = tmp_path / "run"
    training = Bench.training

    def withdrawing(bench):
        slices = training(bench)
        register = folder / "sites/centre1/consent.csv"
        if bench.name == "centre1" and (folder / "server/codes").exists() and "2026-02-28" not in register.read_text():
            first = json.loads((folder / "sites/centre1/intake.json").read_text())["subjects"][0]
            lines = register.read_text().splitlines()
            column = lines[0].split(",").index("withdrawn")
            for number, line in enumerate(lines):
                values = line.split(",")
                if values[0] == first:
                    values[column] = "2026-02-28"
                    lines[number] = ",".join(values)
            register.write_text("\n".join(lines) + "\n")
        return slices

    monkeypatch.setattr(Bench, "training", withdrawing)
    statuses, _ = run("consent", phantom, folder, *FEW)
    assert "(consent.lapsed)" in statuses["centre1"]
    assert (statuses["centre2"], statuses["centre3"]) == ("ok", "ok")


def test_a_scenario_cannot_open_what_a_site_closes(phantom, tmp_path):
    (tmp_path / "sites/centre1").mkdir(parents=True)
    (tmp_path / "simulations").mkdir()
    text = (
        (ROOT / "simulations/policy-open.toml").read_text().replace('["centre1", "centre2", "centre3"]', '["centre1"]')
    )
    (tmp_path / "simulations/x.toml").write_text(text + '\n[policy.restrict.all]\nprofile = "open-research"\n')
    (tmp_path / "sites/centre1/site.toml").write_text((ROOT / "sites/centre1/site.toml").read_text())
    settings = [*tiny_settings(phantom), *BRIEF]
    scenario = load_scenario(tmp_path / "simulations/x.toml", settings)
    with pytest.raises(QuorumError, match="policy.absent"):
        simulate(scenario, tmp_path / "without")
    (tmp_path / "sites/centre1/policy.toml").write_text('profile = "weights-only"\n')
    scenario = load_scenario(tmp_path / "simulations/x.toml", settings)
    with pytest.raises(QuorumError, match="policy.kind"):
        simulate(scenario, tmp_path / "closed")
    (tmp_path / "sites/centre1/policy.toml").write_text('profile = "weights"\n')
    with pytest.raises(ScenarioError, match="a policy stands on one of"):
        load_scenario(tmp_path / "simulations/x.toml", settings)
