"""The scenarios about policies end as their headers say, and a policy binds a run from its first order to its last."""

from __future__ import annotations

import json
import re

import pytest
from conftest import BRIEF, ROOT, tiny_settings

from fedprivseg.core.errors import QuorumError, RequestError, ScenarioError
from fedprivseg.crypto.sealed_files import SealError
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.checkpoints import equivocations
from fedprivseg.governance.lifecycle.withdrawal import OWN_SLICES, traces, withdraw
from fedprivseg.governance.policy.consent import write_register
from fedprivseg.governance.sitefolder.vault import open_vault
from fedprivseg.study import pipeline
from fedprivseg.study.run import load_scenario, simulate

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
    ("name", "settings", "blocked"),
    [
        ("open", [], {}),
        ("codes-only", [], {}),
        ("codes-only", FEDAVG, {"centre2": "kind.not-allowed"}),
        ("opt-out", [], {"centre3": "kind.not-allowed"}),
        ("domains", [], {"centre2": "transfer.across-domains"}),
        ("expired-agreement", ["study.today=2026-03-01"], {}),
        ("retention", ["study.today=2027-01-01"], {}),  # 1 January 2026 and 365 days: the last day
        ("noise-demanded", [], {}),
        ("noise-demanded", ["protections=[]"], {"centre1": "protection.missing"}),
        (
            "noise-demanded",
            ['protections=[{name="noise", of=["image-code"], parameters={multiplier=0.4}}]'],
            {"centre1": "protection.missing"},
        ),
    ],
)
def test_a_scenario_ends_as_its_header_says(name, settings, blocked, phantom, tmp_path):
    statuses, _ = run(name, phantom, tmp_path / "run", *settings)
    for site in SITES:
        if site in blocked:
            assert f"({blocked[site]})" in statuses[site]
        else:
            assert statuses[site] == "ok"
    for site in blocked:
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


def test_a_term_of_retention_that_ended_ends_a_study_before_anything_is_computed(phantom, tmp_path):
    with pytest.raises(QuorumError, match=r"retention\.expired"):
        run("retention", phantom, tmp_path / "run", "study.today=2027-01-02")  # the day after the last
    for site in SITES:
        home = tmp_path / "run/sites" / site
        lines = ledger.read(home / "ledger.jsonl")
        assert {line.event for line in lines} == {"key", "refusal"}
        refusals = [line.facts for line in lines if line.event == "refusal"]
        assert all((facts["rule"], facts["clause"]) == ("retention.expired", "5.8-b") for facts in refusals)
        assert "may be kept for 365 days" in refusals[0]["reason"]
        assert not list((home / "vault").glob("*slices*"))
        assert not (home / "intake.json").exists()
    with pytest.raises(ScenarioError, match="after the day of the study"):
        load_scenario(ROOT / "simulations/policy-retention.toml", ["study.today=2025-01-01"])


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
        (intake,) = [line.facts for line in lines if line.event == "enrolment"]
        assert intake["day"] == "2026-03-01"
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
        (lambda home: (home / "consent.csv").unlink(), "consent.no-register"),
        (lambda home: (home / "consent.csv").write_text("subject\n"), "consent.no-register"),
        (lambda home: write_register(home / "consent.csv", []), "consent.no-subjects"),
        (lambda home: (home / "consent.csv").write_text("subject\nA\n"), "consent.no-register"),
    ],
)
def test_a_site_whose_rules_cannot_be_read_releases_nothing(damage, rule, phantom, tmp_path, monkeypatch):
    from fedprivseg.study import run as module

    provision_sites = module.provision_sites

    def damaged(folder, *rest):
        provision_sites(folder, *rest)
        damage(folder / "sites/centre1")

    monkeypatch.setattr(module, "provision_sites", damaged)
    statuses, _ = run("consent", phantom, tmp_path / "run", *FEW)
    assert f"({rule})" in statuses["centre1"]
    assert (statuses["centre2"], statuses["centre3"]) == ("ok", "ok")
    lines = ledger.read(tmp_path / "run/sites/centre1/ledger.jsonl")
    assert not [line for line in lines if line.event == "release"]


def _hide(path):
    """Root reads files of any mode: a folder in its place can be read by nobody."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("method", [[], FEDAVG], ids=["coded", "averaged"])
def test_consent_that_is_withdrawn_in_mid_study_closes_the_gate_and_can_be_carried_out(method, phantom, tmp_path):
    folder = tmp_path / "run"
    first = [*method] if not method else [*method, 'study.consent.withdraws={centre1="validate"}']
    statuses, result = run("withdrawal", phantom, folder, *first)
    assert "(consent.no-longer-valid)" in statuses["centre1"]
    assert (statuses["centre2"], statuses["centre3"]) == ("ok", "ok")
    assert any("shards deleted at the server" in note for note in result.sites["centre1"].notes)
    assert not list((folder / "server/codes").glob("centre1/**/*.safetensors"))
    register = (folder / "sites/centre1/consent.csv").read_text().splitlines()
    column = register[0].split(",").index("withdrawn")
    (subject,) = [line.split(",")[0] for line in register[1:] if line.split(",")[column]]

    others = {
        path: path.read_bytes()
        for path in [
            *folder.glob("server/codes/centre[23]/*train*/**"),
            *folder.glob("sites/centre[23]/vault/*slices*"),
        ]
        if path.is_file()
    }
    done = withdraw(folder, "centre1", subject)
    assert done.models
    assert subject not in (folder / "withdrawals.json").read_text()
    assert not (folder / "result.json").exists()
    assert not list((folder / "sites/centre1/predictions").glob("*"))
    assert all(path.read_bytes() == body for path, body in others.items()), "what the other sites sent stays"
    if method:
        learned = [path.name for path in folder.glob("sites/centre[23]/vault/*.safetensors")]
        assert {name.split(".")[0] for name in learned} <= set(OWN_SLICES)

    statuses, again = run("withdrawal", phantom, folder, *first)
    assert set(statuses.values()) == {"ok"}
    assert any("consent of 1 subject was withdrawn; trained again without" in note for note in again.notes)
    before, after = (each.sites["centre2"].subjects_train for each in (result, again))
    assert before == after
    assert again.split_sha256 != result.split_sha256
    taken = json.loads((folder / "sites/centre1/intake.json").read_text())["subjects"]
    assert taken
    assert subject not in taken
    assert traces(folder, done) == ()
    events = [line.event for line in ledger.read(folder / "sites/centre1/ledger.jsonl")]
    assert events.count("withdrawal") == 1
    assert events.count("enrolment") == 2


def test_a_withdrawal_at_an_order_that_no_method_knows_is_refused(phantom):
    with pytest.raises(ScenarioError, match=r"'sending'; the orders of privacy-sf are: begin, decode, fit_encoders"):
        load_scenario(ROOT / "simulations/policy-withdrawal.toml", ["study.consent.withdraws={centre1='sending'}"])


def test_what_is_found_again_after_a_withdrawal_is_told(phantom, tmp_path):
    folder = tmp_path / "run"
    run("consent", phantom, folder, *FEW)
    subject = json.loads((folder / "sites/centre3/intake.json").read_text())["subjects"][0]
    kept = (folder / "server/mapping.safetensors").read_bytes()
    intake = (folder / "sites/centre3/intake.json").read_bytes()
    done = withdraw(folder, "centre3", subject)
    assert len(done.shards) > 0
    assert traces(folder, done) == ()
    (folder / "server/copy.safetensors").write_bytes(kept)
    (folder / "sites/centre3/intake.json").write_bytes(intake)
    assert traces(folder, done) == (
        "server/copy.safetensors holds what was deleted",
        "the subject is among those whom centre3 has enrolled",
    )
    with pytest.raises(RequestError, match="has no such subject"):
        withdraw(folder, "centre3", "nobody")
    with pytest.raises(RequestError, match="sites of this run are: centre1, centre2, centre3"):
        withdraw(folder, "centre9", subject)


def test_a_sealed_site_ends_with_the_same_numbers_and_leaves_no_array_readable(phantom, tmp_path):
    _, plain = run("open", phantom, tmp_path / "plain")
    seal = 'policy.restrict.centre1={profile="open-research", at_rest="encrypted"}'
    statuses, sealed = run("open", phantom, tmp_path / "sealed", seal)
    assert set(statuses.values()) == {"ok"}
    assert sealed.mean_dice == plain.mean_dice
    home = tmp_path / "sealed/sites/centre1"
    held = {path.stem for path in (home / "vault").glob("*.sealed")}
    assert {"training-slices", "testing-slices", "image-codec", "mask-codec", "pictures"} <= held
    assert any(name.startswith("prediction-") for name in held)
    assert not list(home.rglob("*.safetensors"))
    assert not list(home.rglob("*.nii.gz"))
    for path in (tmp_path / "plain/sites/centre1/vault").glob("*.safetensors"):
        piece = path.read_bytes()[-64:]
        if len(set(piece)) > 8:  # arrays that end in one value say nothing
            assert not any(piece in other.read_bytes() for other in home.rglob("*") if other.is_file()), path.name
    assert (
        "data:image" in pipeline.report(tmp_path / "sealed").read_text()
        or "<svg" in (tmp_path / "sealed/report.html").read_text()
    )
    (home / "sealing.key").rename(tmp_path / "lost.key")
    with pytest.raises(RequestError, match="is to be encrypted"):
        open_vault(home)


def test_one_changed_byte_in_a_sealed_vault_excludes_its_site(phantom, tmp_path):
    seal = 'policy.restrict.centre1={profile="open-research", at_rest="encrypted"}'
    run("open", phantom, tmp_path / "run", seal)
    vault = open_vault(tmp_path / "run/sites/centre1")
    path = vault.path("training-slices")
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(bytes(body))
    with pytest.raises(SealError):
        vault.load("training-slices")
    (tmp_path / "run/result.json").unlink()
    (tmp_path / "run/sites/centre1/vault/image-codec.sealed").unlink()
    statuses, _ = run("open", phantom, tmp_path / "run", seal)
    assert re.match(r"failed in 'describe': SealError.* under id \w+\.", statuses["centre1"])
    assert (statuses["centre2"], statuses["centre3"]) == ("ok", "ok")


def test_neither_side_can_put_its_ledger_back_without_the_other_showing_it(phantom, tmp_path):
    folder = tmp_path / "run"
    run("open", phantom, folder)
    server = ledger.read(folder / "server/ledger.jsonl")
    sites = {site: ledger.read(folder / "sites" / site / "ledger.jsonl") for site in SITES}
    assert equivocations(server, sites) == ()
    receipts = [line.facts for line in server if line.event == "receipt"]
    for site in SITES:
        released = {line.facts["digest"] for line in sites[site] if line.event == "release"}
        assert released == {facts["digest"] for facts in receipts if facts["site"] == site}
        assert all("server_checkpoint" in line.facts for line in sites[site] if line.event == "release")
        shorter = {**sites, site: sites[site][:-1]}
        assert any(f"the ledger of {site} has" in sentence for sentence in equivocations(server, shorter))
    assert any("the ledger of server has" in sentence for sentence in equivocations(server[:5], sites))


def test_a_server_that_the_site_does_not_know_gets_nothing(phantom, tmp_path, monkeypatch):
    from fedprivseg.study import run as module

    provision_sites = module.provision_sites

    def another(folder, *rest):
        provision_sites(folder, *rest)
        station = folder / "sites/centre1/station.json"
        content = json.loads(station.read_text())
        station.write_text(json.dumps({**content, "server_key": "00" * 32}))

    monkeypatch.setattr(module, "provision_sites", another)
    statuses, _ = run("open", phantom, tmp_path / "run")
    assert statuses["centre1"].startswith("failed in 'describe': LedgerError")
    assert (statuses["centre2"], statuses["centre3"]) == ("ok", "ok")
    path = tmp_path / "run/sites/centre1/ledger.jsonl"
    assert not [line for line in ledger.read(path) if line.event == "release"]


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
    with pytest.raises(QuorumError, match="kind.not-allowed"):
        simulate(scenario, tmp_path / "closed")
    (tmp_path / "sites/centre1/policy.toml").write_text('profile = "weights"\n')
    with pytest.raises(ScenarioError, match="a policy stands on one of"):
        load_scenario(tmp_path / "simulations/x.toml", settings)
