"""Flower's Ray backend, ended in order: its threads first, then Ray.

Flower's own shuts Ray down while threads still wait for the sites. After a signal one of them may then call Ray, whose core
ends the process with status 1 at once: no sentence, no status of the signal.
"""

from __future__ import annotations

import threading
import time
from typing import Any, final

import ray
from flwr.app import Context, Message
from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend

_PATIENCE_S = 20.0


@final
class OrderlyRayBackend(RayBackend):
    """As Flower's, but `terminate` kills what the sites still do and waits for the threads that wait for them."""

    def __init__(self, backend_config: Any) -> None:
        super().__init__(backend_config)
        self._threads: set[threading.Thread] = set()

    def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
        """Have a site carry out `message`."""
        self._threads.add(threading.current_thread())
        return super().process_message(message, context)

    def terminate(self) -> None:
        """Kill the actors, wait for the threads that wait for them, take Ray down."""
        if self.pool is not None:
            for actor in [*self.pool.pool, *self.pool._future_to_actor.values()]:
                ray.kill(actor)  # type: ignore[arg-type]
        end = time.monotonic() + _PATIENCE_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        ray.shutdown()
