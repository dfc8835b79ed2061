"""The commands that ask for records: what they print, what they write, and with which status they end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hospital import entry, hold, hospital, know, own
from typer.testing import CliRunner

from fedprivseg.cli.access import app
from fedprivseg.core.errors import LedgerError, RequestError
from fedprivseg.governance.ledger import ledger


@pytest.fixture
def home(tmp_path):
    home = hospital(tmp_path)
    hold(home, entry("P00", "imaging-report"), entry("P00", "local-ct-report", sensitive=True))
    know(home, own("P00", rights=["print"]))
    return home


@pytest.fixture
def run(home):
    return home.parent.parent


def call(*words):
    """(exit status, what was printed). What the command line turns into a message and a status of 2 is raised."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def lines(home):
    path = home / "ledger.jsonl"
    return [line for line in ledger.read(path) if line.event == "access"] if path.exists() else []


def ask(run, *more, who="attending-rhythm", item="imaging-report"):
    return call("ask", run, "centre1", "P00", item, "--as", who, *more)


def test_what_is_allowed_ends_with_0_and_names_policy_clause_and_line(run, home):
    status, said = ask(run, "--signed-in", 5)
    assert status == 0
    assert said.splitlines()[1].split("\t")[:5] == ["imaging-report", "4", "allowed", "treatment.informed", "A.1.1-b"]
    assert said.rstrip().endswith("\t1")
    assert [line.facts["decision"] for line in lines(home)] == ["permit"]


def test_what_is_denied_ends_with_1_and_has_its_line(run, home):
    assert ask(run)[0] == 1  # nobody proved who it is
    status, said = ask(run, "--signed-in", 5, "--json", who="eve")
    assert status == 1
    (answer,) = json.loads(said)
    assert (answer["allowed"], answer["policy"], answer["line"]) == (False, "access.unknown-person", 2)
    status, said = ask(run, "--signed-in", 5, "--plain-channel")
    assert (status, "channel.encrypted" in said) == (1, True)
    assert ask(run, "--signed-in", 600)[0] == 1
    rules = [line.facts["rule"] for line in lines(home)]
    assert rules == ["trust.unauthenticated", "access.unknown-person", "channel.encrypted", "trust.session"]


def test_level_5_asks_for_a_second_factor_and_a_place(run, home):
    hold(home, entry("P00", "images", level=5, granularity="authorised", attending=["attending-rhythm"]))
    words = ["--signed-in", 1, "--second-factor"]
    assert "level.5-place" in ask(run, *words, item="images")[1]
    status, said = ask(run, *words, "--controlled-place", item="images")
    assert (status, "notice: This data is of level 5" in said) == (0, True)


def test_a_patient_queries_everything_and_is_told_what_is_hidden(run, home):
    words = ("query", run, "centre1", "--as", "account-P00", "--signed-in", 1)
    status, said = call(*words, "--json")
    assert status == 0
    assert {each["item"]: each["policy"] for each in json.loads(said)} == {
        "imaging-report": "person.query",
        "local-ct-report": "person.sensitive",
    }
    assert call(*words, "--item", "local-ct-report")[0] == 1
    hold(home, entry("P00", "imaging-report"), entry("P00", "old-report", reported="2025-09-01"))
    know(home, own("P00", rights=["print"], window_days=365))
    assert "old-report\t4\tdenied\tperson.window" in call(*words)[1]
    assert "old-report\t4\tallowed" in call(*words, "--days", 365)[1]


def test_keeping_a_copy_shows_the_notice_first(run, home):
    words = (
        "query",
        run,
        "centre1",
        "--as",
        "account-P00",
        "--item",
        "imaging-report",
        "--signed-in",
        1,
        "--do",
        "print",
    )
    status, said = call(*words)
    assert (status, "notice: Once medical data is out of this system" in said) == (1, True)
    status, said = call(*words, "--confirm-notice")
    assert (status, "notice: You now hold a copy" in said) == (0, True)
    assert call(*words, "--confirm-notice", "--plain-channel")[0] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ask", "{run}", "centre9", "P00", "images", "--as", "chief"), "the sites of this run are: centre1"),
        (("ask", "{run}", "../centre1", "P00", "images", "--as", "chief"), "the sites of this run are: centre1"),
        (("query", "{run}/sites", "centre1", "--as", "a"), "holds no run"),
        (("simulate", "{run}/nowhere", "centre1"), "holds no run"),
        (("ask", "{run}", "centre1", "P00", "images", "--as", "chief", "--signed-in", "-1"), "from 0 to 1440"),
        (("ask", "{run}", "centre1", "P00", "images", "--as", "chief", "--signed-in", "nan"), "from 0 to 1440"),
        (("ask", "{run}", "centre1", "P00", "images", "--as", "chief", "--project", "p" * 200), "1 to 128 characters"),
        (("simulate", "{run}", "centre1", "--requests", "2000000"), "from 1 to 1000000"),
    ],
)
def test_a_wrong_request_is_refused_and_writes_nothing(run, home, words, said):
    with pytest.raises(RequestError, match=said) as caught:
        call(*(word.format(run=run) for word in words))
    assert caught.value.status == 2
    assert lines(home) == []


def test_a_run_from_before_there_were_records_says_what_to_do(run, home):
    (home / "records.jsonl").unlink()
    with pytest.raises(RequestError, match=r"the site centre1 has no records\.jsonl"):
        ask(run)


@pytest.mark.parametrize("words", [("--do", "query"), ("--purpose", "own-care"), ("--do", "fly")])
def test_words_that_staff_cannot_say_are_wrong_requests(run, home, words):
    assert ask(run, *words)[0] == 2
    assert lines(home) == []


def test_a_ledger_that_cannot_be_written_denies(run, home):
    ask(run, "--signed-in", 5)
    (home / "ledger.jsonl.head").unlink()
    status, said = ask(run, "--signed-in", 5)
    assert (status, "ledger.unwritable" in said) == (1, True)
    with pytest.raises(LedgerError):
        call("simulate", run, "centre1", "--requests", 5)


def test_a_trial_prints_who_gets_what_and_leaves_one_line(tmp_path):
    home = hospital(tmp_path)
    status, said = call("simulate", tmp_path, "centre1", "--requests", 300)
    rows = [line.split("\t") for line in said.splitlines()]
    assert status == 0
    assert rows[0][:5] == ["role", "level", "allowed", "denied", "share allowed"]
    asked = rows[1 : rows.index([""])]
    assert sum(int(row[2]) + int(row[3]) for row in asked) == 300
    assert ["clause", "policy", "decision", "requests", "says"] in rows
    assert "(median)" in rows[-1][0]
    assert [line.facts["what"] for line in lines(home)] == ["simulation"]
    again = json.loads(call("simulate", tmp_path, "centre1", "--requests", 300, "--json")[1])
    assert again["allowed"] + again["denied"] == 300
    assert sum(each["allowed"] for each in again["asked"]) == again["allowed"]
    assert lines(home)[0].facts["decisions_sha256"] == again["decisions_sha256"]
    assert again["line"] == 2


def test_the_program_itself_ends_with_the_status_that_help_names(run, home):
    def status(*words):
        command = [sys.executable, "-m", "fedprivseg.cli", "access", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    words = ("ask", run, "centre1", "P00", "imaging-report", "--as")
    assert status(*words, "attending-rhythm", "--signed-in", 1).returncode == 0
    assert status(*words, "eve").returncode == 1
    wrong = status("ask", run, "centre9", "P00", "imaging-report", "--as", "eve")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    for command in ("ask", "query"):
        assert "0 allowed, 1 denied, 2 the" in " ".join(status(command, "--help").stdout.split())
