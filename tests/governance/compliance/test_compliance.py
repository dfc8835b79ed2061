"""The compliance report: a clause is kept on evidence, broken when the evidence says so, and never kept for want of it."""

from __future__ import annotations

import json
import shutil
from datetime import date

import pytest
from conftest import ROOT, tiny_settings
from typer.testing import CliRunner

from fedprivseg.cli.access import app
from fedprivseg.core.errors import FolderError
from fedprivseg.core.kinds import KINDS
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.compliance import SCGS, assess, judge, read_compliance
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.lifecycle.at_rest import check
from fedprivseg.governance.lifecycle.backup import back_up
from fedprivseg.governance.lifecycle.withdrawal import withdraw
from fedprivseg.governance.policy.agreement import Agreement, BreachPlan, Terms
from fedprivseg.governance.policy.consent import Register
from fedprivseg.study import pipeline
from fedprivseg.study.run import load_scenario, simulate


@pytest.fixture(scope="module")
def strict(tmp_path_factory, strict_run):
    """A run under the standard's profile, each site of it backed up."""
    folder = tmp_path_factory.mktemp("strict") / "run"
    shutil.copytree(strict_run, folder)
    for site in ("centre1", "centre2", "centre3"):
        back_up(folder, site, folder.parent / f"{site}.backup")
    return folder


@pytest.fixture(scope="module")
def lax(tmp_path_factory, phantom):
    settings = ["method.name=pooled", 'method.variant=""', "method.parameters={steps=1}", "policy.raw_sharing=allowed"]
    scenario = load_scenario(ROOT / "simulations/policy-open.toml", [*tiny_settings(phantom), *settings])
    folder = tmp_path_factory.mktemp("lax") / "run"
    simulate(scenario, folder)
    return folder


def _states(run):
    return {each.clause: each.state for each in judge(run)}


def test_a_run_under_the_standards_profile_breaks_nothing(strict):
    states = _states(strict)
    assert [clause for clause, state in states.items() if state == "broken"] == []
    for clause in (
        "5.1.1",
        "5.1.2-b",
        "5.1.2-e",
        "5.4.1",
        "5.4.2-a",
        "5.4.2-b",
        "5.4.2-c",
        "5.5",
        "5.6.2-d",
    ):
        assert states[clause] == "kept", clause
    for clause in ("5.3.1", "5.3.2-a", "5.3.2-b", "5.3.2-c"):  # everything that left went to another domain, encrypted
        assert states[clause] == "kept", clause


def test_a_pooled_run_of_released_data_says_what_it_breaks_and_what_would_mend_it(lax):
    found = {each.clause: each for each in judge(lax)}
    assert found["5.1.2-b"].state == "outside software"
    assert found["5.3.2-b"].state == "outside software", "nothing was encrypted, and TLS is a deployment's"
    for clause in ("5.1.2-e", "5.3.1", "5.3.2-a", "5.4.1", "5.4.2-b", "5.4.2-c"):
        assert found[clause].state == "broken", clause
        assert found[clause].fix
    assert "Raw images left" in found["5.1.2-e"].why
    assert found["5.1.2-e"].evidence[0].startswith("centre1:")


def test_every_piece_of_evidence_is_there(strict):
    for each in judge(strict):
        for where in each.evidence:
            if ":" in where:
                site, line = where.split(":")
                lines = (strict / "sites" / site / "ledger.jsonl").read_text().splitlines()
                assert json.loads(lines[int(line)])["index"] == int(line)
            else:
                assert (strict / where).exists(), where


@pytest.mark.parametrize(
    ("damage", "clause"),
    [
        (lambda home: _edit(home / "ledger.jsonl", b"release", b"refusal"), "5.6.2-d"),
        (lambda home: (home / "policy.toml").unlink(), "5.1.2-a"),
        (lambda home: (home / "policy.toml").write_text('profile = "no-sharing"'), "5.3.2-c"),
        (lambda home: (home / "policy.toml").write_text('profile = "scgs-313008"\nmax_level = 2'), "5.5"),
        (lambda home: (home / "policy.toml").write_text('profile = "codes-only"'), "5.3.1"),
        (lambda home: (home / "policy.toml").write_text('profile = "scgs-313008"\nacross_domains = []'), "5.3.2-c"),
        (lambda home: (home / "agreement.json").write_text("{}"), "5.3.2-a"),
        (lambda home: _edit(home / "agreement.json", b'"site_signature": "', b'"site_signature": "0'), "5.3.2-a"),
        (lambda home: (home.parents[1] / "server/ledger.jsonl").unlink(), "5.3.2-b"),
        (lambda home: (home / "vault/codes.safetensors").write_bytes(b"open"), "5.4.1"),
        (lambda home: (home / "sealing.key").chmod(0o640), "5.4.1"),
        (lambda home: home.chmod(0o755), "5.4.1"),
        (lambda home: (home / "policy.toml").write_text("profile = "), "5.4.2-a"),
        (lambda home: (home / "cohort.json").write_bytes(b"open"), "5.4.2-b"),
    ],
)
def test_what_was_changed_afterwards_is_found(damage, clause, strict, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(strict, copy)
    assert _states(copy)[clause] == "kept"
    damage(copy / "sites/centre2")
    assert _states(copy)[clause] == "broken"


def _lost(home):
    for name in ("ledger.jsonl", "ledger.jsonl.head"):
        (home / name).unlink()


def _without(home, event):
    """Write the ledger anew with the site's own key, without the lines of an event: by itself it verifies."""
    key, lines = SiteKey.load(home / "vault/key.pem"), ledger.read(home / "ledger.jsonl")
    _lost(home)
    book = ledger.Ledger(home / "ledger.jsonl", key, home.name)
    for line in lines[1:]:
        if line.event != event:
            book.append(line.event, line.facts)
    ledger.verify(home / "ledger.jsonl", public_hex=key.public_hex)


@pytest.mark.parametrize("damage", [_lost, lambda home: _without(home, "release")])
def test_no_clause_is_kept_on_the_word_of_a_ledger_that_is_lost_or_was_written_anew(damage, lax, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(lax, copy)
    for site in ("centre1", "centre2", "centre3"):
        damage(copy / "sites" / site)
    found = {each.clause: each for each in judge(copy)}
    assert found["5.1.2-e"].state == "broken", "raw images left, and who hides it keeps nothing"
    assert {each.state for each in found.values()} <= {"broken", "outside software"}
    assert "ledger" in found["5.6.2-d"].why
    assert all(each.why and each.fix for each in found.values() if each.state == "broken")


def _drawn_up(home, site_key, server_key):
    """An agreement that covers everything for a hundred years, signed with these keys."""
    breach = BreachPlan(contact="data protection office", hours=24, steps=("stop",))
    terms = Terms(
        site=home.name,
        server="server",
        site_key=site_key.public_hex,
        server_key=server_key.public_hex,
        study="Whatever it may be.",
        kinds=tuple(KINDS),
        purposes=("describe", "train", "infer", "measure"),
        start=date(2000, 1, 1),
        end=date(2100, 1, 1),
        protections=(),
        duties=(),
        breach=breach,
    )
    signed = Agreement(terms=terms).signed("site", site_key).signed("server", server_key)
    (home / "agreement.json").write_text(signed.model_dump_json())


def test_papers_that_were_written_afterwards_keep_no_clause(strict, lax, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(lax, copy)
    server = SiteKey.load(copy / "server/key.pem")
    for site in ("centre1", "centre2", "centre3"):
        home = copy / "sites" / site
        (home / "policy.toml").write_text('profile = "open-research"\nconsent = "register"\nagreement = "required"\n')
        _drawn_up(home, SiteKey.load(home / "vault/key.pem"), server)
    found = _states(copy)
    assert (found["5.1.2-b"], found["5.3.2-a"]) == ("outside software", "broken")
    shutil.copytree(strict, tmp_path / "strict")
    forger = SiteKey.create(tmp_path / "forger.pem")
    _drawn_up(tmp_path / "strict/sites/centre2", forger, forger)
    assert _states(tmp_path / "strict")["5.3.2-a"] == "broken", "both signatures are good, and of other parties"


@pytest.mark.parametrize(("fact", "clause"), [("purpose", "5.1.1"), ("channel", "5.1.2-d"), ("source", "5.1.2-d")])
def test_an_intake_that_does_not_state_a_fact_breaks_the_clause_that_asks_for_it(fact, clause, strict, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(strict, copy)
    home = copy / "sites/centre2"
    book = ledger.Ledger(home / "ledger.jsonl", SiteKey.load(home / "vault/key.pem"), "centre2")
    (told,) = (line for line in ledger.read(home / "ledger.jsonl") if line.event == "enrolment")
    line = book.append("enrolment", {name: value for name, value in told.facts.items() if name != fact})
    found = {each.clause: each for each in judge(copy)}
    assert (found[clause].state, found[clause].evidence) == ("broken", (f"centre2:{line.index}",))
    assert {found[each].state for each in ("5.1.1", "5.1.2-d") if each != clause} == {"kept"}


def test_rules_of_use_are_not_kept_by_a_run_of_which_nothing_is_told(strict, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(strict, copy)
    shutil.rmtree(copy / "server")
    for site in ("centre1", "centre2", "centre3"):
        home = copy / "sites" / site
        _lost(home)
        ledger.Ledger(home / "ledger.jsonl", SiteKey.load(home / "vault/key.pem"), site)
    assert _states(copy)["5.6.2-b"] == "not applicable"


def test_a_backup_counts_while_it_is_verified_and_holds_what_the_site_does(strict_run, strict, tmp_path):
    found = {each.clause: each for each in judge(strict_run)}
    assert found["5.4.2-c"].state == "broken"
    assert "vault backup" in found["5.4.2-c"].fix
    copy = tmp_path / "run"
    shutil.copytree(strict, copy)
    home = copy / "sites/centre2"
    withdraw(copy, "centre2", min(Register.read(home / "consent.csv").consents))
    stale = {each.clause: each for each in judge(copy)}["5.4.2-c"]
    assert (stale.state, stale.why) == ("broken", "The last backup at centre2 is older than what the site holds.")
    back_up(copy, "centre2", tmp_path / "again")
    assert _states(copy)["5.4.2-c"] == "kept"


def test_consent_that_lapsed_breaks_5_8_until_the_withdrawal_is_carried_out(strict, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(strict, copy)
    home = copy / "sites/centre2"
    assert _states(copy)["5.8-a"] == "not applicable"
    book = Ledger(home / "ledger.jsonl", SiteKey.load(home / "vault/key.pem"), "centre2")
    line = book.append(
        "refusal", {"action": "send_mask_codes", "kind": "mask-code", "rule": "consent.no-longer-valid", "number": 0}
    )
    found = {each.clause: each for each in judge(copy)}["5.8-a"]
    assert (found.state, found.evidence) == ("broken", (f"centre2:{line.index}",))
    assert "fedprivseg withdraw" in found.fix
    withdraw(copy, "centre2", min(Register.read(home / "consent.csv").consents))
    assert _states(copy)["5.8-a"] == "kept"


def test_a_withdrawal_of_which_the_run_keeps_no_record_is_not_taken_for_carried_out(strict, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(strict, copy)
    withdraw(copy, "centre2", min(Register.read(copy / "sites/centre2/consent.csv").consents))
    clauses = ("5.1.2-b", "5.8-a", "5.8-f")
    assert {_states(copy)[clause] for clause in clauses} == {"kept"}
    (copy / "withdrawals.json").unlink()
    assert {_states(copy)[clause] for clause in clauses} == {"broken"}


def test_a_check_that_found_a_fault_breaks_integrity_until_the_next_that_finds_none(strict, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(strict, copy)
    path = copy / "sites/centre2/vault/training-slices.sealed"
    body = path.read_bytes()
    _edit(path, body[-8:], bytes(8))
    check(copy, "centre2")
    assert _states(copy)["5.4.2-b"] == "broken"
    path.write_bytes(body)
    check(copy, "centre2")
    assert _states(copy)["5.4.2-b"] == "kept"


def _edit(path, old, new):
    body = path.read_bytes()
    assert old in body
    path.write_bytes(body.replace(old, new, 1))


def test_a_run_has_staff_and_records_to_ask_for_and_what_was_asked_keeps_its_clauses(strict, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(strict, copy)
    before = _states(copy)
    asked = ("5.4.2-d", "5.6.2-c", "A.1.1", "A.1.2", "A.1.3", "A.2.1", "A.2.2", "A.2.3")
    assert {before[clause] for clause in (*asked, "5.6.2-a")} == {"not applicable"}
    done = CliRunner().invoke(app, ["simulate", str(copy), "centre1", "--requests", "300"])
    assert done.exit_code == 0, done.output
    subject = json.loads((copy / "sites/centre2/records.jsonl").read_text().splitlines()[0])["subject"]
    words = ["ask", str(copy), "centre2", subject, "imaging-report", "--as", "chief", "--signed-in", "5", "--json"]
    done = CliRunner().invoke(app, words)
    assert json.loads(done.stdout)[0]["policy"] == "treatment.superior"
    after = {each.clause: each for each in judge(copy)}
    assert {after[clause].state for clause in asked} == {"kept"}
    assert any(where.startswith("centre2:") for where in after["A.1.3"].evidence)
    assert after["5.6.2-a"].state == "not applicable"
    assert after["5.6.2-d"].state == "kept"


def test_the_report_has_the_section_and_the_file(strict):
    assert "Rules kept" in pipeline.report(strict).read_text()
    kept = read_compliance(strict)
    assert kept == judge(strict)
    assert [each.clause for each in kept] == [clause.id for clause, _ in SCGS[1]]
    path = strict / "compliance.json"
    path.write_text(path.read_text().replace('"fix"', '"mend"').replace('  "standard": "T/SCGS 313008-2024",\n', ""))
    assert read_compliance(strict) == kept  # as earlier releases wrote it


def test_what_is_no_run_is_refused(tmp_path):
    assert read_compliance(tmp_path) == ()
    with pytest.raises(FolderError, match="holds no run"):
        assess(tmp_path)
    assert not list(tmp_path.iterdir())
