"""A run's folder: one process at a time writes there, and a lock never outlives its process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from fedprivseg.core.errors import FolderError
from fedprivseg.core.lock import LOCK, alone, check_free, worker

HOLDS = (
    "import sys; from pathlib import Path; from fedprivseg.core.lock import alone\n"
    "with alone(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def other(tmp_path):
    """Another process that works in the folder."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_told_by_which_the_folder_is_used(tmp_path, other):
    for attempt in (alone(tmp_path).__enter__, lambda: check_free(tmp_path)):
        with pytest.raises(FolderError, match=f"is in use by process {other.pid}: one process at a time") as caught:
            attempt()
        assert caught.value.status == 2


def test_a_killed_process_leaves_no_lock(tmp_path, other):
    other.kill()
    other.wait()
    assert (tmp_path / LOCK).exists()
    check_free(tmp_path)
    with alone(tmp_path):
        assert (tmp_path / LOCK).read_text() == str(os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_a_second_thread_is_refused_too_and_the_lock_goes_with_an_error(tmp_path):
    said = []

    def work():
        with pytest.raises(FolderError, match="is in use"), alone(tmp_path):
            pass
        said.append("refused")

    def broken():
        with alone(tmp_path):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert said == ["refused"]
    with alone(tmp_path):
        pass


def test_a_lock_of_a_file_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """Between opening the file and locking it, whoever held it may remove it; another may hold the next one."""
    import fcntl

    flock, held = fcntl.flock, []

    def late(descriptor, how):
        if not held:
            held.append(descriptor)
            (tmp_path / LOCK).unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with alone(tmp_path), pytest.raises(FolderError, match="is in use"):
        check_free(tmp_path)


def test_a_folder_that_cannot_be_locked_is_said(tmp_path):
    with pytest.raises(FolderError, match="cannot be locked"), alone(tmp_path / "absent"):
        pass
    check_free(tmp_path / "absent")


def test_who_works_there_can_be_seen_without_a_lock(tmp_path, other):
    assert worker(tmp_path) == other.pid
    (tmp_path / "nobody").mkdir()
    assert worker(tmp_path / "nobody") is None
    assert not (tmp_path / "nobody" / LOCK).exists()


@pytest.mark.parametrize("content", ["", "x", "99999999999999999999", "4194305"])
def test_a_lock_of_nobody_that_lives_tells_of_nobody(tmp_path, content):
    """4,194,304 is the largest process id of Linux."""
    (tmp_path / LOCK).write_text(content)
    assert worker(tmp_path) is None
