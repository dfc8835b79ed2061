"""What is due at a site on a day, and what a leak would have meant: asked by command, answered from ledger and files."""

from __future__ import annotations

import json
import shutil
from datetime import date

import pytest
from small_run import SEALED, SUBJECT, small_run
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.core.errors import LedgerError, RequestError
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.lifecycle.destruction import approval
from fedprivseg.governance.lifecycle.destruction.destruction_session import open_session
from fedprivseg.governance.lifecycle.response_plan import ResponsePlan, breaks, default_plan
from fedprivseg.governance.policy.agreement import BreachPlan

AGREED = "study.agreement={start=2026-01-01, end=2026-06-30}"


@pytest.fixture(scope="module")
def made(tmp_path_factory, phantom):
    return small_run(tmp_path_factory.mktemp("lifecycle") / "run", phantom, SEALED, AGREED)


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def call(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def answer(*words):
    return json.loads(call(*words, "--json"))


@pytest.mark.parametrize(
    ("today", "due"),
    [
        ("2026-06-30", []),
        ("2026-07-01", ["what the server has of the site"]),  # the agreement ended on 30 June
        # 1 January 2026 and 365 days is 1 January 2027, the last day
        ("2027-01-01", ["what the server has of the site"]),
        ("2027-01-02", ["what the server has of the site", "what the site's vault and predictions hold"]),
    ],
)
def test_what_is_due_on_a_day(today, due, made):
    found = answer("retention", made, "centre1", "--today", today)
    assert [duty["name"] for duty in found["duties"] if duty["due"]] == due
    assert {duty["clause"] for duty in found["duties"]} == {"5.8-b"}
    said = call("retention", made, "centre1", "--today", today)
    assert ("next: fedprivseg destroy order" in said) == bool(due)


def test_the_sites_own_day_is_asked_if_no_other_is_given(made):
    assert answer("retention", made, "centre1")["today"] == "2026-03-01"
    with pytest.raises(RequestError, match="wants a day such as"):
        call("retention", made, "centre1", "--today", "tomorrow")
    with pytest.raises(RequestError, match="sites of this run are"):
        call("retention", made, "nowhere")


def test_what_was_destroyed_has_no_term_any_more(run):
    custody = open_session(run, "centre1")
    approval.order(custody, "data-manager-1", "the term of retention has ended")
    approval.approve(open_session(run, "centre1"), "chief")
    approval.execute(open_session(run, "centre1"))
    assert answer("retention", run, "centre1", "--today", "2030-01-01")["duties"] == []
    assert "holds nothing of its subjects" in call("retention", run, "centre1")


def test_a_site_without_a_term_owes_nothing(run):
    policy = run / "sites/centre1/policy.toml"
    lines = policy.read_text().splitlines(keepends=True)
    policy.write_text("".join(line for line in lines if "retention_days" not in line))
    assert answer("retention", run, "centre1", "--today", "2099-01-01")["duties"] == []
    assert "states no term" in call("retention", run, "centre1")


def releases(run):
    return [line for line in ledger.read(run / "sites/centre1/ledger.jsonl") if line.event == "release"]


def test_a_payload_that_leaked_is_found_with_who_is_told(made):
    line = releases(made)[1]
    found = answer("drill", made, "centre1", "--payload", line.facts["digest"], "--found", "2026-03-01T08:00")
    (exposure,) = found["exposures"]
    assert (exposure["index"], exposure["recipient"], exposure["protections"]) == (
        line.index,
        "the server of run small",
        ["encode"],
    )
    assert found["level"] == 3
    # Level 3: the head of the study within 4 hours, the office that the agreement names within its 24.
    assert [(each["role"], each["by"]) for each in found["notifications"]] == [
        ("head of the study", "2026-03-01T12:00:00+00:00"),
        ("data protection office of the site", "2026-03-02T08:00:00+00:00"),
    ]
    said = call("drill", made, "centre1", "--payload", line.facts["digest"])
    assert "In all a leak of level 3; 1 releases, 2 offices to notify." in said
    assert "the server of run small" in said


def test_a_payload_that_no_ledger_knows_is_the_worst(made):
    found = answer("drill", made, "centre1", "--payload", "0" * 64)
    assert (found["level"], found["exposures"]) == (5, [])
    assert "supervisory authority" in [each["role"] for each in found["notifications"]]


def test_a_subject_is_asked_for_by_its_code_which_is_never_printed(made):
    found = call("drill", made, "centre1", "--subject", SUBJECT, "--json")
    assert [each["index"] for each in json.loads(found)["exposures"]] == [line.index for line in releases(made)]
    assert SUBJECT not in found + call("drill", made, "centre1", "--subject", SUBJECT)


def test_a_code_that_no_site_knows_is_not_told_that_nothing_leaked(made):
    with pytest.raises(RequestError, match="centre1 knows no such subject") as refused:
        call("drill", made, "centre1", "--subject", f"{SUBJECT}x")
    assert SUBJECT not in str(refused.value)


def test_a_key_that_leaked_concerns_everything_that_it_signed(made):
    found = answer("drill", made, "centre1", "--key")
    assert (found["level"], len(found["exposures"])) == (5, 2)
    assert any("Revoke it" in sentence for sentence in found["findings"])


def test_a_period_is_everything_that_left_in_it(made):
    day = date.fromisoformat(releases(made)[0].time[:10])
    assert len(answer("drill", made, "centre1", "--since", day, "--until", day)["exposures"]) == 2
    assert answer("drill", made, "centre1", "--until", "2001-01-01")["exposures"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "what leaked"),
        (["--payload", "abc"], "64 hex digits"),
        (["--key", "--subject", "X"], "a drill is of one leak"),
        (["--since", "yesterday"], "a time is such as"),
        (["--since", "2026-03-02", "--until", "2026-03-01"], "ends before it begins"),
    ],
)
def test_a_leak_that_is_not_said_clearly_is_refused(options, said, made):
    with pytest.raises(RequestError, match=said):
        call("drill", made, "centre1", *options)


def test_a_drill_believes_no_ledger_that_was_changed_and_needs_a_plan(run):
    (run / "sites/centre1/response.toml").unlink()
    with pytest.raises(RequestError, match="has no plan for a leak"):
        call("drill", run, "centre1", "--key")
    path = run / "sites/centre1/ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b"image-code", b"mask-codes"))
    with pytest.raises(LedgerError):
        call("drill", run, "centre1", "--key")


def test_a_plan_that_does_less_than_the_agreement_promises_is_told(run):
    path = run / "sites/centre1/response.toml"
    assert answer("drill", run, "centre1", "--until", "2001-01-01")["findings"] == [
        "The ledgers show no release that this leak concerns."
    ]
    path.write_text(path.read_text().replace("data protection office of the site", "porter"))
    findings = answer("drill", run, "centre1", "--until", "2001-01-01")["findings"]
    assert any("promises to notify the data protection office of the site" in sentence for sentence in findings)


def test_the_default_plan_keeps_any_promise():
    breach = BreachPlan(contact="ward office", hours=2, steps=("stop",))
    assert breaks(default_plan("centre1", breach), breach) == ()
    late = default_plan("centre1", breach.model_copy(update={"hours": 3}))
    assert breaks(late, breach) == (
        "The agreement promises to notify the ward office within 2 hours; the plan says 3.",
    )
    contacts = [each.model_dump() for each in default_plan("centre1", breach).contacts]
    contacts[1]["levels"] = (1, 2, 3)
    assert breaks(ResponsePlan.model_validate({"contacts": contacts}), breach) == (
        "The agreement promises to notify the ward office of any leak; the plan leaves out level 4, 5.",
    )
