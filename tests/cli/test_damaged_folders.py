"""Every file of a finished run, damaged in every way, under every command that reads it: the same numbers or a sentence."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import BRIEF, ROOT, tiny_settings
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.core.errors import FedprivsegError
from fedprivseg.core.records import digest
from fedprivseg.core.results import read_result
from fedprivseg.study.run import load_scenario, simulate

pytestmark = pytest.mark.xdist_group("damaged folders")

SITE = "centre1"
PAPERS = ("policy.toml", "staff.toml", "records.jsonl", "accounts.jsonl", "response.toml", "station.json")
"""The hospital's own: what they say may change, and what follows from it with it."""

STATES = ("trace", "trace at the server", "destroy order")
"""These commands say which files are there, so that what they print follows from it."""

DEAR = ("run again", "report", "attack")
"""These take a second when they are not refused, and are called for two damages of the four."""

WRITERS = (*DEAR, "destroy order")
"""After these all of the run is put back; after the others the site's ledger, and the file that was damaged."""


@pytest.fixture(scope="module")
def commands(tmp_path_factory, phantom):
    """The folder of a finished run, a folder to work in, and the words of every command that reads a run's folder, by name."""
    place = tmp_path_factory.mktemp("damaged")
    settings = [
        *tiny_settings(phantom),
        *BRIEF,
        "method.parameters.half=false",
        "method.parameters.shard_slices=512",
        "report.images=false",
    ]
    path = ROOT / "simulations" / "quickstart.toml"
    simulate(load_scenario(path, settings), place / "whole")
    run = place / "run"
    subject = json.loads((place / "whole/sites" / SITE / "cohort.json").read_text())["train"][0]["code"]
    image = next(phantom.rglob("*_sa.nii.gz"))
    home = run / "sites" / SITE
    reasons = ("--reason", "The study has ended.", "--media", "The storage team shreds the disk in June.")
    words = {
        "run again": ["run", path, "-o", run, *(word for each in settings for word in ("--set", each))],
        "report": ["report", run],
        "compare": ["compare", run, "-o", place / "compare.html"],
        "attack": ["attack", run, "--attacks", "linkage", "--json"],
        "ledger verify": ["ledger", "verify", run],
        "ledger query": ["ledger", "query", run],
        "predict": ["predict", run, image, "--site", SITE, "-o", place / "mask.nii.gz"],
        "trace": ["trace", run, subject, "--json"],
        "trace at the server": ["trace", run, f"{SITE}/send_image_codes/0", "--server", "--json"],
        "retention": ["retention", run, SITE],
        "drill": ["drill", run, SITE, "--key", "--found", "2026-11-01", "--json"],
        "access ask": ["access", "ask", run, SITE, subject, "imaging-report", "--as", "chief", "--signed-in", "1"],
        "access query": ["access", "query", run, SITE, "--as", "patient-001", "--signed-in", "1"],
        "access list": ["access", "list", run, SITE],
        "destroy verify": ["destroy", "verify", run, SITE],
        "destroy order": ["destroy", "order", run, SITE, "--as", "data-manager-1", *reasons],
        "policy diff": ["policy", "diff", home / "policy.toml", "open-research"],
        "vault show": ["vault", "show", run, SITE, "intake.json", "--as", "data-manager-1"],
    }
    restore(place / "whole", run)
    assert call(words["attack"])[0] == 0
    for name in ("attacks.json", "attacks.safetensors"):
        if (run / name).exists():
            shutil.copy(run / name, place / "whole" / name)
    return place / "whole", run, words


def restore(whole, run):
    """The run as it was. Large files are links: nobody writes into one."""
    shutil.rmtree(run, ignore_errors=True)

    def put(source, target):
        (os.link if source.endswith((".safetensors", ".gz")) else shutil.copy2)(source, target)

    shutil.copytree(whole, run, copy_function=put)


def call(words):
    """(exit status, what was printed or said). Anything but an error of ours is one of the test."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, FedprivsegError):
        assert "\n" not in str(done.exception)
        return done.exception.status, str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise AssertionError(f"a traceback: {done.exception!r}") from done.exception
    return done.exit_code, done.output


def numbers(name, run, said):
    """What a command came to, without what differs each time: times, seconds, names drawn anew."""
    if name in ("report", "run again"):
        page = (run / "report.html").read_text()
        return [f"{site.dice.mean:.3f}" in page for site in read_result(run).sites.values()]
    if name == "predict":
        return digest((run.parent / "mask.nii.gz").read_bytes())
    return re.sub(r'"seconds": ?[^,}]*|\d{4}-\d\d-\d\dT[\d:.+]*|destruction-\S+|\b[0-9a-f]{16,64}\b', "", said)


def read_by(words, run, whole):
    """The files of the run that a command opens."""
    opened = set()

    def note(event, arguments):
        if event == "open" and opening and isinstance(arguments[0], str | bytes | os.PathLike):
            opened.add(os.fsdecode(arguments[0]))

    opening = True
    sys.addaudithook(note)  # such a hook cannot be taken away, but told to rest
    status, said = call(words)
    opening = False
    inside = {Path(path).relative_to(run) for path in opened if path.startswith(f"{run}/")}
    return status, said, {path for path in inside if (whole / path).is_file()}


def chosen(path):
    """Of sites and of shards that are alike, one."""
    return not re.search(r"centre[23]|/0000[1-9]\.|scores-0000[1-9]", str(path))


def damages(body):
    half = len(body) // 2
    yield "changed", body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :]
    yield "missing", None
    yield "empty", b""
    yield "cut", body[:half]


NAMES = (
    "run again", "report", "compare", "attack", "ledger verify", "ledger query", "predict", "trace",
    "trace at the server", "retention", "drill", "access ask", "access query", "access list", "destroy verify",
    "destroy order", "policy diff", "vault show",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_gives_the_same_numbers_or_one_plain_sentence(commands, name):
    whole, run, words = commands
    assert tuple(words) == NAMES
    restore(whole, run)
    status, said, files = read_by(words[name], run, whole)
    assert status == 0
    right = numbers(name, run, said)
    restore(whole, run)
    for path in sorted(filter(chosen, files)):
        for damage, body in damages((whole / path).read_bytes()):
            if name in DEAR and damage in ("empty", "cut"):
                continue
            if name == "run again" and path.parent != Path():
                continue  # all else it reads for the report, which is a command of its own
            if (name, path.name, damage) == ("compare", "attacks.json", "missing"):
                continue  # a run that was never attacked has none
            (run / path).unlink()
            if body is not None:
                (run / path).write_bytes(body)
                (run / path).chmod(0o600)
            status, said = call(words[name])
            what = f"{name}: {path} {damage}: {status}: {said[:300]}"
            assert status in (0, 1, 2), what
            if status == 0 and name not in STATES and path.name not in PAPERS:
                assert numbers(name, run, said) == right, what
            if name in WRITERS:
                restore(whole, run)
            else:
                for each in {path, *(Path("sites", SITE, name) for name in ("ledger.jsonl", "ledger.jsonl.head"))}:
                    (run / each).unlink(missing_ok=True)
                    shutil.copy2(whole / each, run / each)


def test_every_file_of_a_finished_run_is_read_by_some_command_or_by_none_for_a_reason(commands):
    """What no command reads cannot be read wrong: what is written for people, and what only a run that goes on needs."""
    whole, run, words = commands
    found = set()
    for name in NAMES:
        if name != "run again":  # which reads what `report` reads
            restore(whole, run)
            found |= read_by(words[name], run, whole)[2]
    unread = {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()} - {
        str(path) for path in found
    }
    reasons = r"report\.html|compliance\.json|.*/progress\.json|.*\.nii\.gz|server/(accounts\.json|.*\.pem|metrics/.*|codes/.*)"
    reasons += r"|sites/[a-z0-9]+/vault/pictures\.safetensors|sites/centre[23]/.*"
    reasons += r"|sites/centre1/(vault/scores-.*|scenario\.json)"
    assert {path for path in unread if not re.fullmatch(reasons, path)} == set()
