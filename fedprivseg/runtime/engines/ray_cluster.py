"""Ray of one run: begun in the background, since its 4 s are spent by other processes while this one loads torch.

A scenario may name a cluster that is there (``resources.ray_address``), or the environment (`RAY_ADDRESS`): then this process
joins it, and leaves it as it was. Workers of one that is begun here inherit the environment of that moment.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from typing import Any, final

from fedprivseg.core.config import ResourceConfig
from fedprivseg.core.errors import RunError

ADDRESS = "RAY_ADDRESS"
"""Environment variable, Ray's own: the cluster to join, if the scenario names none."""

_ANSWERS_S = 10.0
"""How long a cluster that is to be joined may take to answer, in seconds."""


@final
class Cluster:
    """Ray for a run with `resources`, from its making on; `ready` waits for it.

    One that begins here sees room for as many sites at once, these GPUs and memory and no more.
    """

    def __init__(self, resources: ResourceConfig) -> None:
        self._there, self._over = threading.Event(), threading.Event()
        self._fault: BaseException | None = None
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the future default; Ray warns without it
        # At Ray's 15 a site's training stands still while the machine does anything else.
        os.environ.setdefault("RAY_worker_niceness", "0")
        settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        self._address = resources.ray_address or os.environ.get(ADDRESS, "")
        own = {
            "address": "local",  # without it Ray joins whatever cluster this machine was last in
            "num_cpus": resources.site_threads * resources.sites_at_once,
            "num_gpus": resources.gpus,
            "object_store_memory": int(resources.memory_gib * 2**30 / 4),
            "include_dashboard": False,
        }
        settings |= {"address": self._address} if self._address else own
        self._thread = threading.Thread(target=self._begin, args=(settings,), name="ray", daemon=True)
        self._thread.start()

    def ready(self) -> None:
        """Wait until Ray is there. Raises RunError if it did not begin."""
        self._there.wait()
        if self._fault is not None:
            what = f"the Ray cluster at {self._address!r} cannot be joined" if self._address else "Ray did not begin"
            raise RunError(f"{what}: {self._fault}") from self._fault
        if (
            threading.current_thread() is threading.main_thread()
            and (before := signal.getsignal(signal.SIGTERM)) is not None
        ):
            # Ray's core puts itself before Python's handler, and prints its stack when the signal comes.
            signal.signal(signal.SIGTERM, before)

    def leave(self) -> None:
        """Have Ray taken down in the background."""
        self._over.set()

    def end(self) -> None:
        """Have Ray taken down, and wait until it is gone; a second call does nothing."""
        self._over.set()
        self._thread.join()

    def _begin(self, settings: dict[str, Any]) -> None:
        try:
            import ray

            if ray.is_initialized():
                raise RuntimeError(
                    "it runs in this process already, perhaps with other resources; call ray.shutdown() first"
                )
            if ":" in self._address:  # Ray itself waits for minutes
                host, port = self._address.rsplit(":", 1)
                socket.create_connection((host, int(port)), _ANSWERS_S).close()
            ray.init(**settings)
            # What Ray says of workers and nodes that were lost it prints among what a command answers, which may be JSON.
            ray._private.worker.print_to_stdstream = lambda *_, **__: None
        except BaseException as fault:  # handed to whoever waits
            self._fault = fault
            self._there.set()
            return
        self._there.set()
        # Linux ends Ray's processes with the thread that began them, so this one waits for the end.
        self._over.wait()
        ray.shutdown()
