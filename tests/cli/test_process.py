"""How a command ends: its status, and one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import tiny_settings

COMMAND = [sys.executable, "-m", "fedprivseg.cli"]


def _call(*words, **environment):
    done = subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("folder", "says"), [("a" * 300, "File name too long; choose a shorter name"), ("/dev/null/x", "")]
)
def test_a_path_that_the_disk_refuses_is_a_wrong_request(folder, says):
    done = _call("sites", folder)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_home_that_cannot_be_written_is_told_before_anything_runs(phantom, quickstart, tmp_path):
    words = [word for setting in tiny_settings(phantom) for word in ("--set", setting)]
    done = _call("run", quickstart, "-o", tmp_path / "run", *words, HOME="/dev/null", FEDPRIVSEG_CACHE="")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "the cache of phantoms and gridded images, /dev/null/.cache/fedprivseg, cannot be written" in line
    assert "set FEDPRIVSEG_CACHE" in line
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_sigterm_ends_a_run_in_one_sentence_and_nothing_half_written(phantom, quickstart, tmp_path):
    folder = tmp_path / "run"
    settings = [*tiny_settings(phantom), "method.parameters.image_steps=10000000"]
    words = [word for setting in settings for word in ("--set", setting)]
    # A shell that starts tests in the background may have them ignore signals, and what they start would inherit that.
    listening = lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL)  # noqa: E731
    command, pipe = [*COMMAND, "run", str(quickstart), "-o", str(folder), *words], subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=listening)
    end = time.monotonic() + 240
    while not list(folder.glob("sites/*/progress.json")) and time.monotonic() < end:
        time.sleep(0.1)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert errors == "fedprivseg: ended by SIGTERM; the same command goes on where it stopped\n"
    assert (folder / "scenario.json").exists()
    assert not list(folder.rglob("*.draft"))
