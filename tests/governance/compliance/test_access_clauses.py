"""The clauses on access: kept on what ledgers say of real decisions, broken by one line that no policy stands behind."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hospital import TODAY, entry, hold, hospital, know, own

from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.access.application import Application, Approval
from fedprivseg.governance.access.endpoint import AccessEndpoint
from fedprivseg.governance.access.requests import Requests
from fedprivseg.governance.access.roles import Action, Context, Purpose
from fedprivseg.governance.access.simulation import record, simulate
from fedprivseg.governance.access.staff import read_staff
from fedprivseg.governance.compliance import SCGS
from fedprivseg.governance.compliance.evidence import SiteEvidence
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.ledger import Ledger

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
CARE = Context(NOW, NOW, Purpose.TREATMENT, encrypted=True, integrity=True, notified=True)
OWN = replace(CARE, purpose=Purpose.OWN_CARE)
JUDGES = {
    clause.id: check
    for clause, check in SCGS[1]
    if clause.id in ("5.4.2-d", "5.6.2-a", "5.6.2-c") or clause.id.startswith("A.")
}
ANY = ("5.4.2-d", "5.6.2-c")
DOCTORS, PERSONS = ("A.1.1", "A.1.2", "A.1.3"), ("A.2.1", "A.2.2", "A.2.3")


@dataclass(frozen=True)
class Run:
    sites: tuple[SiteEvidence, ...]


def judged(home, fault=""):
    path = home / "ledger.jsonl"
    lines = tuple(ledger.read(path)) if path.exists() else ()
    run = Run((SiteEvidence(SiteFolder(home), lines=lines, fault=fault),))
    return {clause: judge(run) for clause, judge in JUDGES.items()}


def states(home, **more):
    return {clause: verdict[0] for clause, verdict in judged(home, **more).items()}


def append(home, **facts):
    Ledger(home / "ledger.jsonl", SiteKey.load(home / "vault/key.pem"), home.name).append("access", facts)


@pytest.fixture
def home(tmp_path):
    home = hospital(tmp_path)
    freed = {"level": 3, "deidentified": True, "granularity": "authorised", "source": "cine-mri"}
    hold(home, entry("P00", "imaging-report"), entry("P00", "study-images", **freed))
    know(home, own("P00", rights=["print"]))
    return home


def desk(home):
    return AccessEndpoint(home, today=TODAY, clock=lambda: NOW)


def doctors_ask(home):
    assert desk(home).staff("attending-rhythm", "P00", "imaging-report", Action.VIEW, CARE).ruling.allowed
    assert not desk(home).staff("researcher-1", "P00", "imaging-report", Action.VIEW, CARE).ruling.allowed
    assert not desk(home).staff("nobody", "P00", "imaging-report", Action.VIEW, CARE).ruling.allowed


def patients_ask(home):
    for action in (Action.QUERY, Action.PRINT):
        assert desk(home).person("account-P00", "", "imaging-report", action, OWN)[0].ruling.allowed


def test_where_nobody_asked_no_clause_applies(home):
    assert set(states(home).values()) == {"not applicable"}


def test_a_ledger_that_does_not_hold_proves_nothing(home):
    doctors_ask(home)
    found = states(home, fault="line 2 was changed")
    assert {found[clause] for clause in (*ANY, *DOCTORS, *PERSONS)} == {"broken"}


def test_what_doctors_asked_keeps_their_clauses_and_what_patients_asked_theirs(home):
    doctors_ask(home)
    found = states(home)
    assert [found[clause] for clause in (*ANY, *DOCTORS)] == ["kept"] * 5
    assert [found[clause] for clause in (*PERSONS, "5.6.2-a")] == ["not applicable"] * 4
    patients_ask(home)
    whole = judged(home)
    assert [whole[clause][0] for clause in (*ANY, *DOCTORS, *PERSONS)] == ["kept"] * 8
    assert whole["A.1.1"][1].startswith("2 decisions, 1 of them granted")
    assert whole["A.2.2"][2] == ["centre1:5"]


def test_a_trial_is_evidence_for_the_clauses_whose_policies_decided_in_it(tmp_path):
    home = hospital(tmp_path)
    record(home, simulate(home, 200, 0, now=NOW, today=TODAY))
    found = judged(home)
    assert {verdict[0] for clause, verdict in found.items() if clause != "5.6.2-a"} == {"kept"}
    assert found["5.6.2-a"][0] == "not applicable"
    assert "200 simulated" in found["5.4.2-d"][1]


def a_decision(home):
    """The facts of a decision that is in order: a doctor saw a report."""
    doctors_ask(home)
    return dict(
        next(line for line in ledger.read(home / "ledger.jsonl") if line.facts.get("decision") == "permit").facts
    )


WRONG = {
    "no decision": ({"decision": ""}, (*ANY, *DOCTORS)),
    "another word": ({"what": "looked"}, (*ANY, *DOCTORS, *PERSONS)),
    "granted by nothing": ({"rule": "", "clause": ""}, (*ANY, *DOCTORS)),
    "granted by a policy that forbids": ({"rule": "keep.right", "clause": "A.2.2-a"}, (*ANY, *DOCTORS)),
    "granted by a hospital's own": ({"rule": "hospital.all", "clause": "house rule"}, (*ANY, *DOCTORS)),
    "granted under another clause": ({"clause": "5.5"}, (*ANY, *DOCTORS)),
    "granted by more than the package's": ({"policies": ["treatment.informed", "lax.all"]}, (*ANY, *DOCTORS)),
    "granted under unknown policies": ({"policy_set": ""}, (*ANY, *DOCTORS)),
    "refused by what permits": ({"decision": "deny"}, (*ANY, *DOCTORS)),
    "refused by an unknown policy": ({"decision": "deny", "rule": "mood", "clause": "x"}, (*ANY, *DOCTORS)),
    "no purpose": ({"purpose": ""}, ("5.4.2-d",)),
    "somebody unknown": ({"role": "unknown"}, ("5.6.2-c",)),
    "no department": ({"department": ""}, ("A.1.2",)),
    "details under the clause of reports": ({"granularity": "authorised"}, ("A.1.1",)),
    "a named patient's data for a study": (
        {"rule": "research.level-3", "clause": "5.5", "policies": ["research.level-3"], "project": "request-1"},
        ("A.1.3", "5.6.2-a"),
    ),
    "an infectious disease without its notice": (
        {"policies": ["treatment.informed", "treatment.infectious"]},
        ("A.1.3",),
    ),
}


@pytest.mark.parametrize(("change", "clauses"), WRONG.values(), ids=WRONG)
def test_one_line_that_is_not_in_order_breaks_just_its_clauses(home, change, clauses):
    facts = a_decision(home)
    append(home, **{**facts, **change})
    found = judged(home)
    assert tuple(clause for clause, verdict in found.items() if verdict[0] == "broken") == tuple(
        clause for clause in JUDGES if clause in clauses
    )
    for clause in clauses:
        _, why, where, fix = found[clause]
        assert "line 4 of centre1" in why or "line 4 grants" in why
        assert "centre1:4" in where
        assert fix


OF_PERSONS = {
    "details": ({"granularity": "authorised"}, ("A.2.1",)),
    "level 5": ({"level": 5}, ("A.2.1",)),
    "a copy without confirmation": ({"notified": False}, ("A.2.2",)),
    "a copy without a notice": ({"notices": []}, ("A.2.2",)),
    "in clear": ({"encrypted": False}, ("A.2.3",)),
    "without integrity": ({"integrity": False}, ("A.2.3",)),
}


@pytest.mark.parametrize(("change", "clauses"), OF_PERSONS.values(), ids=OF_PERSONS)
def test_what_a_person_should_not_have_got_breaks_just_its_clause(home, change, clauses):
    patients_ask(home)
    append(home, **{**ledger.read(home / "ledger.jsonl")[-1].facts, **change})
    assert tuple(clause for clause, state in states(home).items() if state == "broken") == clauses


@pytest.mark.parametrize("change", [{"denied": 0}, {"permitted": "many"}, {"rules": ["lax.all: 3"]}])
def test_a_trial_that_is_not_in_order_breaks_the_clauses(home, change):
    line = record(home, simulate(home, 20, 0, now=NOW, today=TODAY))
    append(home, **{**line.facts, **change})
    assert states(home)["5.4.2-d"] == "broken"


def asked_for_review(home):
    span = {"sources": ["cine-mri"], "level": 3, "granularities": ["authorised"], "uses": ["train"]}
    said = {"title": "Right ventricles", "scenario": "A study of sites.", "logic": "Codes train a network."}
    said |= {"effect": "Nobody is named by it.", "days": 9, "range": span}
    limits = ["access-control", "de-identification"]
    approval = Approval.model_validate_json(json.dumps({"days": 9, "limits": limits, "range": span}))
    staff, requests, then = read_staff(home / "staff.toml"), Requests(home), NOW - timedelta(days=1)
    requests.submit(staff["researcher-1"], Application.model_validate_json(json.dumps(said)), then)
    requests.approve("request-1", staff["data-manager-1"], approval, "No wider than is needed.", then)


def test_requests_whose_review_is_on_record_keep_the_clause_until_the_ledger_tells_otherwise(home):
    asked_for_review(home)
    assert states(home)["5.6.2-a"] == "kept"
    study = replace(CARE, purpose=Purpose.RESEARCH, project="request-1")
    assert desk(home).staff("researcher-1", "P00", "study-images", Action.TRAIN, study).ruling.allowed
    assert states(home)["5.6.2-a"] == "kept"
    line = next(line for line in ledger.read(home / "ledger.jsonl") if line.facts.get("what") == "approved")
    append(home, **{**line.facts, "request": "request-2"})
    state, why, _, fix = judged(home)["5.6.2-a"]
    assert (state, bool(fix)) == ("broken", True)
    assert "there is no such request" in why


def test_requests_that_an_earlier_release_recorded_are_read(home):
    """Its lines name a hash of the same event in a file beside the ledger, and not what the applicant stated."""
    asked_for_review(home)
    told = [line for line in ledger.read(home / "ledger.jsonl") if line.event == "access"]
    stated = ("study", "scenario", "logic", "effect", "members")
    for path in home.glob("ledger.jsonl*"):
        path.unlink()
    for line in told:
        append(home, **{name: fact for name, fact in line.facts.items() if name not in stated}, hash="0" * 64)
    assert states(home)["5.6.2-a"] == "kept"
    assert Requests(home).projects("researcher-1", NOW)
