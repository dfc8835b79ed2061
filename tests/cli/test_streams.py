"""Standard streams that are closed, full or left by their reader: never a traceback, and the command does what it was asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

FULL = "what it prints cannot be written (No space left on device)"


def _call(shell, *words, **environment):
    """Status and what came out of ``shell``, in which ``"$@"`` is the command."""
    command = ["bash", "-c", shell, "bash", sys.executable, "-m", "fedprivseg.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("shell", "status", "says"),
    [
        ('"$@" >&-', 0, ""),
        ('"$@" >&- 2>&- <&-', 0, ""),
        ('"$@" >/dev/full', 1, FULL),
        ('"$@" >/dev/full 2>&1', 1, ""),
        ('"$@" | sleep 0; exit ${PIPESTATUS[0]}', 0, ""),
        ('exec 3>&1; "$@" > >(exec true); exit $?', 0, ""),
    ],
)
def test_what_nobody_gets_stops_nothing(shell, status, says):
    ended, out, errors = _call(shell, "sites", ROOT / "sites")
    assert (ended, out) == (status, "")
    assert says in errors
    assert len(errors.splitlines()) == (1 if says else 0)


@pytest.mark.parametrize("shell", ['"$@" 2>&-', '"$@" 2>/dev/full', '"$@" 2> >(exec true)'])
def test_a_refusal_that_nobody_reads_keeps_its_status_and_stays_out_of_the_output(shell):
    assert _call(shell, "sites", "absent")[:2] == (2, "")


def test_a_refusal_outweighs_an_output_that_was_lost():
    status, _, errors = _call('"$@" >/dev/full', "sites", "absent")
    assert status == 2
    assert "holds no site" in errors


def test_no_file_is_opened_under_the_number_of_a_closed_stream():
    """Whatever then prints, a worker or a library, would write into it."""
    code = "import os; from fedprivseg.cli.streams import open_streams; open_streams(); os._exit(os.dup(2))"
    done = subprocess.run(["bash", "-c", '"$@" <&- >&- 2>&-', "bash", sys.executable, "-c", code], check=False)
    assert done.returncode > 2


def test_what_an_encoding_cannot_say_is_escaped(tmp_path):
    folder = tmp_path / "数据𠮷野"
    folder.mkdir()
    status, out, _ = _call('"$@"', "init", folder, PYTHONIOENCODING="latin-1")
    assert status == 0
    assert r"\u6570\u636e\U00020bb7\u91ce" in out


def test_an_output_that_works_is_left_as_it_is():
    status, out, errors = _call('"$@"', "sites", ROOT / "sites", "--json")
    assert (status, errors) == (0, "")
    assert [site["name"] for site in json.loads(out)] == [f"centre{n}" for n in range(1, 6)]
