"""A run's folder as version 0.1.0 left it (schema 1, that version's rule ids) is still read: `format1/three-hospitals`.

Made on 29 November 2026 from `simulations/policy-consent.toml` and `conftest`'s `tiny_settings` and `BRIEF`, with six phantom
subjects a centre, at centre1 one who refused and one who withdrew; centre3 demands noise that the scenario has not, so its gate
refused (protection.missing). Then attacked (alignment, linkage, membership). Taken out: every private key, the vaults, codes,
predictions, pictures of the attack, the model, and the report. Never remake it: what an old version wrote is the point.
Nothing but the command line and names of files stands here, so that it outlives the code that wrote the run.

What needs what was taken out cannot be done with it: attacking, predicting, showing slices in the report.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
from commands import call, refused
from conftest import ROOT

KEPT = ROOT / "tests" / "format1" / "three-hospitals"
SITES = ("centre1", "centre2", "centre3")
REASON = "demands noise with multiplier at least 0.5 on every"


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(KEPT, tmp_path / "three-hospitals")


def _status(*words):
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "fedprivseg.cli", *map(str, words)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=own)
    return done.returncode, done.stdout + done.stderr


def test_it_is_small_and_holds_no_secret():
    files = [path for path in KEPT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 300 * 1024
    assert not [path for path in files if path.suffix in {".pem", ".key", ".gz", ".sealed"} or "vault" in path.parts]


def test_its_ledgers_hold(run):
    text = call("ledger", "verify", run)
    assert [line.split(":")[0] for line in text.splitlines()] == ["server", *SITES]
    assert all(line.endswith("intact") for line in text.splitlines())


@pytest.mark.parametrize("name", ["server/ledger.jsonl", *(f"sites/{site}/ledger.jsonl" for site in SITES)])
def test_a_changed_byte_in_a_ledger_is_found(run, name):
    content = (run / name).read_bytes()
    place = content.index(b'"facts"', len(content) // 2) + 1
    (run / name).write_bytes(content[:place] + b"F" + content[place + 1 :])
    status, text = _status("ledger", "verify", run)
    assert status == 1
    assert "intact" in text  # the others'
    assert next(line for line in text.splitlines() if "intact" not in line).startswith(name.split("/")[-2])


def test_a_line_taken_out_of_a_ledger_is_found(run):
    path = run / "sites" / "centre2" / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert _status("ledger", "verify", run)[0] == 1


def test_its_ledgers_tell_who_was_refused_and_why(run):
    text = call("ledger", "query", run, "--event", "refusal")
    assert "centre3" in text
    assert "protection.missing" in text
    assert REASON in text
    lines = [json.loads(line) for line in (run / "sites" / "centre1" / "ledger.jsonl").read_text().splitlines()]
    intake = next(line["facts"] for line in lines if line["event"] == "intake")
    assert intake["refused"] == ["consent.sharing: 1", "consent.withdrawn: 1"]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (("--event", "intake"), ("--event", "enrolment"), 3),
        (("--where", "rule=kind.declared"), ("--where", "rule=kind.declared"), 16),
        (
            ("--event", "refusal", "--where", "rule=strategy.unadvised"),
            ("--where", "rule=technique.not-recommended"),
            0,
        ),
    ],
)
def test_its_ledgers_are_asked_in_its_own_words_and_in_todays(run, old, new, found):
    assert call("ledger", "query", run, *old) == call("ledger", "query", run, *new)
    assert len(call("ledger", "query", run, *new).splitlines()) == 1 + found
    assert "intake" not in call("ledger", "query", run)


def test_an_export_of_its_ledgers_is_what_was_signed(run, tmp_path):
    call("ledger", "export", run, "--site", "centre1", "-o", tmp_path / "copy.jsonl")
    copied = [json.loads(line) for line in (tmp_path / "copy.jsonl").read_text().splitlines()]
    written = [json.loads(line) for line in (run / "sites" / "centre1" / "ledger.jsonl").read_text().splitlines()]
    assert [{name: fact for name, fact in line.items() if name != "hash"} for line in copied] == written


def test_its_report_is_drawn(run):
    call("report", run)
    page = (run / "report.html").read_text()
    assert all(site in page for site in SITES)
    assert "protection.missing" in page
    assert REASON in page
    assert "Membership inference" in page


def test_it_is_compared(run, tmp_path):
    listed = json.loads(call("compare", run, "--out", tmp_path / "compare.html", "--json"))
    assert "privacy-sf" in json.dumps(listed)
    assert "privacy-sf" in (tmp_path / "compare.html").read_text()


def test_it_is_known_for_the_same_run_again(run, tmp_path):
    again = shutil.copytree(run, tmp_path / "again")
    assert "the same run" in refused("compare", run, again, "--out", tmp_path / "compare.html")


def test_its_compliance_is_stated_again_as_it_was(run):
    def states():
        return {each["clause"]: each["state"] for each in json.loads((run / "compliance.json").read_text())}

    before = states()
    (run / "compliance.json").unlink()
    call("report", run)
    assert states() == before
    assert set(before.values()) >= {"kept"}


def test_its_documents_are_read(run):
    result = json.loads((run / "result.json").read_text())
    assert result["schema_version"] == 1
    assert {name: site["status"] for name, site in result["sites"].items()}.keys() == set(SITES)
    assert json.loads((run / "attacks.json").read_text())["inferred"]
    with (run / "metrics.csv").open(newline="") as file:
        assert {row["site"] for row in csv.DictReader(file)} == {"centre1", "centre2"}


def test_a_changed_result_is_refused(run):
    path = run / "metrics.csv"
    path.write_text(path.read_text().replace("0.0", "0.9", 1))
    assert "changed" in _status("report", run)[1]
