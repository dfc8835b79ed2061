"""A run as it is at this moment."""

from __future__ import annotations

import subprocess

import pytest
from commands import tree
from live_run import HEAD, LiveRun

from fedprivseg.core.errors import FolderError
from fedprivseg.core.lock import LOCK, alone
from fedprivseg.study.watch import progress_now
from fedprivseg.study.watch.progress_now import Watcher, run_folder


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(progress_now, "OFTEN_S", 0.0)


def test_what_a_run_does(tmp_path):
    live = LiveRun(tmp_path / "run")
    live.receipt("centre1", bytes=100, sent=20, centiseconds=150)
    live.blocked("centre3", "kind.not-allowed", "blocked by site policy in 'send_image_codes' (kind.not-allowed): no.")
    live.ended("fit encoders", 12.5)
    live.doing("send codes", 3, 9)
    live.doing("encode", 1, 4, site="centre1")
    now = Watcher(tmp_path / "run").now()
    assert (now.state, now.name, now.method, now.engine) == ("running", "quickstart", "privacy-sf", "inline")
    assert (now.doing.stage, now.doing.done, now.doing.total) == ("send codes", 3, 9)
    assert [(each.name, each.seconds) for each in now.stages] == [("fit encoders", 12.5)]
    one, two, three = now.sites
    assert (one.sent, one.received, one.seconds, one.orders, one.ledger_lines, one.ledger_head) == (
        100,
        20,
        1.5,
        1,
        7,
        HEAD,
    )
    assert (one.doing.stage, one.doing.done) == ("encode", 1)
    assert (two.heard, two.doing, two.status) == ("", None, "ok")
    assert three.status.startswith("blocked by site policy")
    assert now.blocked[0].rule == "kind.not-allowed"
    assert now.ledger_lines == 3
    assert now.fault == ""


def test_the_states_of_a_run(tmp_path):
    live = LiveRun(tmp_path / "run")
    watcher = Watcher(tmp_path / "run")
    assert watcher.now().state == "running"
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "run" / LOCK).write_text(ended)
    assert watcher.now().state == "stopped", "the process that says it works there is gone"
    (tmp_path / "run" / LOCK).unlink()
    assert watcher.now().state == "stopped"
    (tmp_path / "run" / LOCK).write_text("")
    live.finish()
    assert watcher.now().state == "finished"


def test_who_looks_is_not_in_the_way_of_who_comes_to_work(tmp_path):
    LiveRun(tmp_path / "run")
    watcher = Watcher(tmp_path / "run")
    with alone(tmp_path / "run"):
        assert watcher.now().state == "running"
    assert watcher.now().state == "stopped"


def test_looking_changes_nothing(tmp_path):
    live = LiveRun(tmp_path / "run")
    live.receipt("centre1", bytes=100)
    before = tree(tmp_path)
    Watcher(tmp_path / "run").now()
    assert tree(tmp_path) == before


def test_what_is_damaged_is_said_and_the_page_goes_on(tmp_path):
    live = LiveRun(tmp_path / "run")
    live.run.server.accounts.write_text("{")
    assert "accounts.json" in Watcher(tmp_path / "run").now().fault


def test_files_are_read_once_however_many_look(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_now, "OFTEN_S", 60.0)
    live = LiveRun(tmp_path / "run")
    watcher = Watcher(tmp_path / "run")
    first = watcher.now()
    live.doing("send codes", 3, 9)
    assert watcher.now() is first


def test_a_deployment_may_not_have_begun(tmp_path):
    for kit in (tmp_path / "server", tmp_path):
        (tmp_path / "server").mkdir(exist_ok=True)
        (tmp_path / "server" / "deployment.json").write_text("{}")
        assert run_folder(kit) == tmp_path / "server" / "run"
    assert Watcher(tmp_path / "server" / "run").now().state == "not begun"
    LiveRun(tmp_path / "server" / "run")
    assert run_folder(tmp_path) == tmp_path / "server" / "run"
    assert run_folder(tmp_path / "server") == tmp_path / "server" / "run"


def test_what_is_neither_is_refused(tmp_path):
    with pytest.raises(FolderError, match=r"neither a run .* nor a deployment"):
        run_folder(tmp_path)
