"""The commands that read ledgers: what is asked for is shown, and an export is what stands in the files."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fedprivseg.cli.ledger import app
from fedprivseg.errors import RequestError
from fedprivseg.policy.keys import SiteKey
from fedprivseg.policy.ledger import Ledger


@pytest.fixture
def run(tmp_path):
    for site in ("centre1", "centre2"):
        home = tmp_path / "run/sites" / site
        home.mkdir(parents=True)
        book = Ledger(home / "ledger.jsonl", SiteKey.create(home / "key.pem"), site)
        book.append("release", {"kind": "image-code", "rule": "kind.declared", "number": 1})
        book.append("refusal", {"kind": "weights", "rule": "policy.kind", "reason": "No."})
    return tmp_path / "run"


def call(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], 6),
        (["--event", "refusal"], 2),
        (["--site", "centre2"], 3),
        (["--where", "kind=weights", "--site", "centre1"], 1),
        (["--where", "kind=weights", "--where", "rule=kind.declared"], 0),
        (["--where", "number=1"], 2),
    ],
)
def test_a_query_shows_the_lines_that_fit(run, options, found):
    assert len(call("query", run, *options).splitlines()) == 1 + found


def test_an_export_is_what_stands_in_the_ledgers(run, tmp_path):
    assert call("export", run, "-o", tmp_path / "copy.jsonl").endswith("6 lines\n")
    copied = [json.loads(line) for line in (tmp_path / "copy.jsonl").read_text().splitlines()]
    own = [
        json.loads(line) for path in sorted(run.glob("sites/*/ledger.jsonl")) for line in path.read_text().splitlines()
    ]
    assert [{name: each[name] for name in own[0]} for each in copied] == own
    assert all(len(each["hash"]) == 64 for each in copied)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--event", "leak"], "events are: access"),
        (["--site", "centre9"], "sites of this run are: centre1, centre2"),
        (["--where", "kind"], "wants FACT=VALUE"),
    ],
)
def test_what_does_not_exist_is_said(run, options, said):
    with pytest.raises(RequestError, match=said):
        call("query", run, *options)


def test_verify_names_the_ledger_that_was_changed(run):
    assert call("verify", run).count("intact") == 2
    path = run / "sites/centre2/ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b"weights", b"Weights"))
    assert "centre2: BROKEN" in call("verify", run)
