"""The commands that read ledgers: what is asked for is shown, and an export is what stands in the files."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from fedprivseg.cli.ledgers import app
from fedprivseg.core.errors import FolderError, LedgerError, RequestError
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.ledger import Ledger


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
        (["--where", "knid=weights"], "no line has a fact 'knid'; facts are: format, kind"),
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


def test_verify_knows_the_server_by_the_key_that_the_sites_have_on_file(run):
    """A server's ledger written anew under another key verifies by itself; the sites dealt with another server."""
    (run / "server").mkdir()
    key = SiteKey.create(run / "server/key.pem")
    Ledger(run / "server/ledger.jsonl", key, "server")
    station = {"site": {"name": "centre1", "centre": 1}, "data": {}, "release": "r", "cache": "c", "today": None}
    on_file = run / "sites/centre1/station.json"
    on_file.write_text(json.dumps({**station, "server_key": key.public_hex}))
    assert "server: 1 lines, intact" in call("verify", run)
    on_file.write_text(json.dumps({**station, "server_key": SiteKey.create(run / "other.pem").public_hex}))
    assert "server: BROKEN: line 0 of ledger.jsonl states a foreign key" in call("verify", run)
    on_file.write_text("{")
    with pytest.raises(LedgerError, match="station.json of centre1 cannot be read"):
        call("verify", run)


def test_verify_names_a_ledger_that_is_gone(run):
    server = run / "server"
    server.mkdir()
    keys = {path.parent.name: SiteKey.load(path).public_hex for path in run.glob("sites/*/key.pem")}
    (server / "identities.json").write_text(json.dumps(keys))
    Ledger(server / "ledger.jsonl", SiteKey.create(server / "key.pem"), "server")
    assert "MISSING" not in call("verify", run)
    for path in (server / "ledger.jsonl", run / "sites/centre2/ledger.jsonl"):
        path.unlink()
    done = CliRunner().invoke(app, ["verify", str(run)])
    assert [line.split(":")[:2] for line in done.stdout.splitlines()[1:]] == [
        ["centre2", " MISSING"],
        ["server", " MISSING"],
    ]
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("event", "facts", "said"),
    [
        ("intake", {"subjects": 6, "refused": ["consent.sharing: 2", "consent.withdrawn: 1"]},
         "6 subjects taken in; not taken in: consent.sharing: 2, consent.withdrawn: 1"),
        ("intake", {"subjects": 9, "refused": []}, "9 subjects taken in"),
        ("access", {"what": "decision", "decision": "deny", "item": "images", "subject": "e451", "reason": "No."},
         "images; denied; e451; No."),
        ("access", {"what": "decision", "decision": "permit", "action": "view"}, "view; allowed"),
        ("receipt", {"site": "centre1", "action": "describe", "digest": "9a7b"}, "centre1; describe; payload 9a7b"),
        ("withdrawal", {"clause": "5.1.2-b", "subject": "127730cc"}, "5.1.2-b; 127730cc"),
    ],
)  # fmt: skip
def test_a_query_says_what_was_decided_who_was_taken_in_and_what_came(run, event, facts, said):
    home = run / "sites/centre1"
    Ledger(home / "ledger.jsonl", SiteKey.load(home / "key.pem"), "centre1").append(event, facts)
    assert call("query", run, "--event", event).splitlines()[1:][-1].split("\t")[-1] == said


def test_an_export_never_takes_the_place_of_a_device_or_a_pipe(run, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FolderError, match="is no file, and would be replaced by one"):
        call("export", run, "-o", pipe)
    assert pipe.is_fifo()
