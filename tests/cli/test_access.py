"""The commands about access: a request goes its way, every step stands in the ledger, and a wrong one changes nothing."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fedprivseg.cli.access import app
from fedprivseg.core.errors import RequestError
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger import ledger

STAFF = """
[[staff]]
id = "ada"
title = "researcher"
department = "cardiology"

[[staff]]
id = "max"
title = "data-manager"
department = "archive"
"""
APPLICATION = """
title = "Right ventricle in cine MRI"
scenario = "A study of three centres on segmentation."
logic = "Codes of the images train a network at the server."
effect = "Nobody is named; patients could be told again from codes."
days = 90

[range]
sources = ["cine-mri"]
level = 3
granularities = ["default"]
uses = ["train"]
"""
APPROVAL = """
days = 30
limits = ["de-identification", "access-control"]

[range]
sources = ["cine-mri"]
level = 3
granularities = ["default"]
uses = ["train"]
"""


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "sites" / "centre1"
    (folder / "vault").mkdir(parents=True)
    SiteKey.create(folder / "vault" / "key.pem")
    (folder / "staff.toml").write_text(STAFF)
    (tmp_path / "ask.toml").write_text(APPLICATION)
    (tmp_path / "grant.toml").write_text(APPROVAL)
    return folder


def call(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_a_request_goes_its_way_and_every_step_stands_in_the_ledger(home):
    ask, grant = home.parents[1] / "ask.toml", home.parents[1] / "grant.toml"
    assert call("request", home.parents[1], home.name, ask, "--as", "ada") == "request-1: submitted by ada\n"
    with pytest.raises(RequestError, match="reviewed by the title data-manager"):
        call(
            "review",
            home.parents[1],
            home.name,
            "request-1",
            "--as",
            "ada",
            "--reasons",
            "It is mine, after all.",
            "--approve",
            grant,
        )
    assert "approved by max" in call(
        "review",
        home.parents[1],
        home.name,
        "request-1",
        "--as",
        "max",
        "--reasons",
        "The range is no wider than needed.",
        "--approve",
        grant,
    )
    (case,) = json.loads(call("list", home.parents[1], home.name, "--json"))
    assert (case["state"], case["applicant"]) == ("approved", "ada")
    assert "revoked by ada" in call(
        "revoke", home.parents[1], home.name, "request-1", "--as", "ada", "--reasons", "The study has ended early."
    )
    assert "revoked" in call("list", home.parents[1], home.name)
    assert "rejected" in (
        call("request", home.parents[1], home.name, ask, "--as", "ada")
        + call(
            "review",
            home.parents[1],
            home.name,
            "request-2",
            "--as",
            "max",
            "--reasons",
            "The term is longer than needed.",
        )
    )
    lines = [line for line in ledger.read(home / "ledger.jsonl") if line.event == "access"]
    assert [line.facts["what"] for line in lines] == ["submitted", "approved", "revoked", "submitted", "rejected"]
    ledger.verify(home / "ledger.jsonl")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("days = 90", "days = 9000"), "days"),
        (("level = 3", "level = 4"), "range.level"),
        (('uses = ["train"]', 'uses = ["sell"]'), "range.uses"),
        (("effect = ", "affect = "), "effect: Field required"),
    ],
)
def test_an_application_that_lacks_something_is_refused_by_name(home, change, said):
    path = home.parents[1] / "ask.toml"
    path.write_text(APPLICATION.replace(*change))
    with pytest.raises(RequestError, match=said):
        call("request", home.parents[1], home.name, path, "--as", "ada")
    assert not (home / "ledger.jsonl").exists()


def test_who_is_not_on_the_staff_asks_for_nothing(home):
    with pytest.raises(RequestError, match="it names: ada, max"):
        call("request", home.parents[1], home.name, home.parents[1] / "ask.toml", "--as", "eve")
    (home / "staff.toml").write_text(STAFF.replace("researcher", "wizard"))
    with pytest.raises(RequestError, match="title"):
        call("request", home.parents[1], home.name, home.parents[1] / "ask.toml", "--as", "ada")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (STAFF + STAFF, "stands twice"),
        (STAFF.replace('department = "archive"', 'department = "archive"\nsuperior = "eve"'), "above stand: ada"),
        ("", "staff"),
    ],
)
def test_a_list_of_staff_that_contradicts_itself_names_nobody(home, text, said):
    (home / "staff.toml").write_text(text)
    with pytest.raises(RequestError, match=said):
        call("request", home.parents[1], home.name, home.parents[1] / "ask.toml", "--as", "ada")


def test_what_is_no_sites_folder_has_no_requests(tmp_path):
    with pytest.raises(RequestError, match="is no site's folder: it holds no staff.toml; give RUN and SITE"):
        call("list", tmp_path, "nowhere")


def test_help_says_what_a_file_of_approval_holds():
    # Help texts are marked up: what stands in square brackets is taken for a style, and left out.
    assert "days, limits, table range" in " ".join(call("review", "--help").replace("│", " ").split())


def test_reasons_that_are_too_short_are_refused_with_what_reasons_are(home):
    call("request", home.parents[1], home.name, home.parents[1] / "ask.toml", "--as", "ada")
    with pytest.raises(
        RequestError, match=r"reasons cannot be taken as given. Reasons are 10 to 2000 characters, .* 128\.$"
    ):
        call("review", home.parents[1], home.name, "request-1", "--as", "max", "--reasons", "No.")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("days = 90", "days = 2026-03-01"), "days"),
        (("days = 90", "days = nan"), "holds nan"),
        (("days = 90", "days = " + "9" * 5000), "64 bits"),
        (("days = 90", "days = " + "[" * 3000), "deep"),
    ],
)
def test_a_wild_application_is_refused_in_a_sentence(home, tmp_path, change, says):
    (tmp_path / "ask.toml").write_text(APPLICATION.replace(*change))
    words = ["request", str(tmp_path), home.name, str(tmp_path / "ask.toml"), "--as", "ada"]
    with pytest.raises(RequestError, match=says):
        CliRunner().invoke(app, words, catch_exceptions=False)
