"""Signals that end a command: once, and in order."""

from __future__ import annotations

import os
import signal

import pytest

from fedprivseg.cli import stop as module
from fedprivseg.cli.stop import Stop


@pytest.fixture(autouse=True)
def _restored():
    """As in a process that ignores neither, whatever started the tests (`nohup` has SIGHUP ignored)."""
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_as_ctrl_c_does_and_is_kept(number):
    stop = Stop()
    stop.listen()
    assert stop.signal is None
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert stop.signal == number


def test_the_same_signal_again_does_not_cut_the_end_short():
    stop = Stop()
    stop.listen()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGHUP)
    assert stop.signal == signal.SIGTERM


def test_somebody_who_insists_is_heard(monkeypatch):
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)
    stop = Stop()
    stop.listen()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_what_was_to_be_ignored_stays_ignored():
    """As `nohup` has it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    stop.listen()
    os.kill(os.getpid(), signal.SIGHUP)
    assert stop.signal is None
