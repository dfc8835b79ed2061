"""``fedprivseg watch`` as a process: what it prints, who can read its token, how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request

import pytest
from commands import refused
from live_run import LiveRun


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_stopped(tmp_path, number):
    LiveRun(tmp_path / "run")
    token = tmp_path / "token"
    words = [
        sys.executable,
        "-m",
        "fedprivseg.cli",
        "watch",
        str(tmp_path / "run"),
        "--json",
        "--token-file",
        str(token),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        try:
            said = json.loads(served.stdout.readline())
            assert token.stat().st_mode & 0o777 == 0o600
            assert said["page"].endswith(f"/{token.read_text()}/")
            asked = urllib.request.Request(said["metrics"], headers={"Authorization": f"Bearer {token.read_text()}"})
            with urllib.request.urlopen(asked, timeout=60) as got:
                assert b"fedprivseg_run_info" in got.read()
            served.send_signal(number)
            out, complaints = served.communicate(timeout=60)
        finally:
            served.kill()
    assert served.returncode == 128 + number
    assert not token.exists()
    assert said["page"] not in out + complaints
    assert "Traceback" not in complaints


def test_what_it_cannot_do_is_refused(tmp_path):
    LiveRun(tmp_path / "run")
    assert "neither a run" in refused("watch", tmp_path / "nowhere")
    (tmp_path / "token").write_text("mine")
    assert "never overwritten" in refused("watch", tmp_path / "run", "--token-file", tmp_path / "token")
