"""Flower's backend is ended in order: who still works, who waits for that, Ray."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from fedprivseg.runtime.engines import ray_backend
from fedprivseg.runtime.engines.ray_backend import OrderlyRayBackend, RayBackend


@pytest.fixture
def events(monkeypatch):
    """What was done, in order; a killed actor lets whoever waits for it go on."""
    found, killed = [], threading.Event()

    def kill(actor):
        found.append(f"kill {actor}")
        if actor == "busy":
            killed.set()

    def waits(self, message, context):
        assert killed.wait(10)
        found.append("the thread goes on")

    monkeypatch.setattr(RayBackend, "__init__", lambda self, config: None)
    monkeypatch.setattr(RayBackend, "process_message", waits)
    monkeypatch.setattr(ray_backend, "ray", SimpleNamespace(kill=kill, shutdown=lambda: found.append("shut down")))
    return found


def test_ray_goes_down_after_the_threads_that_wait_for_it(events):
    backend = OrderlyRayBackend({})
    backend.pool = SimpleNamespace(pool=["idle"], _future_to_actor={"future": "busy"})
    thread = threading.Thread(target=backend.process_message, args=(None, None))
    thread.start()
    while not backend._threads:
        pass
    backend.terminate()
    assert events == ["kill idle", "kill busy", "the thread goes on", "shut down"]
    assert not thread.is_alive()


def test_without_a_pool_ray_goes_down_at_once(events):
    backend = OrderlyRayBackend({})
    backend.pool = None
    backend.terminate()
    assert events == ["shut down"]
