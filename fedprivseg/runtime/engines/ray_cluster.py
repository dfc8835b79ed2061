"""Ray of one run: begun in the background, since its 4 s are spent by other processes while this one loads torch.

Flower's backend begins Ray itself if nobody did, and then gives it a runtime environment for which it cannot use the workers
that are waiting. Workers inherit the environment of the moment at which Ray begins.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any, final

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import RunError

STATIONS = "FEDPRIVSEG_STATIONS"
"""Environment variable, which Ray's workers inherit: the folder that holds ``<site>/station.json`` of every simulated site."""


@final
class Cluster:
    """Ray for `scenario` in the run folder `folder`, from its making on; `ready` waits for it.

    Ray sees room for the scenario's sites at once, its GPUs and memory and no more. Raises RunError if Ray runs in this
    process already.
    """

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        resources = scenario.resources
        self._there, self._over = threading.Event(), threading.Event()
        self._fault: BaseException | None = None
        self._before = os.environ.get(STATIONS)
        os.environ[STATIONS] = str((folder / "sites").resolve())
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the future default; Ray warns without it
        settings = {
            "num_cpus": resources.site_threads * resources.sites_at_once,
            "num_gpus": resources.gpus,
            "object_store_memory": int(resources.memory_gib * 2**30 / 4),
            "include_dashboard": False,
            "logging_level": logging.ERROR,
            "log_to_driver": False,
        }
        self._thread = threading.Thread(target=self._begin, args=(settings,), name="ray", daemon=True)
        self._thread.start()

    def ready(self) -> None:
        """Wait until Ray is there. Raises RunError if it did not begin."""
        self._there.wait()
        if self._fault is not None:
            raise RunError(f"Ray did not begin: {self._fault}") from self._fault
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
        if self._before is None:
            os.environ.pop(STATIONS, None)
        else:
            os.environ[STATIONS] = self._before

    def _begin(self, settings: dict[str, Any]) -> None:
        try:
            import ray

            if ray.is_initialized():
                raise RuntimeError(
                    "it runs in this process already, perhaps with other resources; call ray.shutdown() first"
                )
            ray.init(**settings)
        except BaseException as fault:  # handed to whoever waits
            self._fault = fault
            self._there.set()
            return
        self._there.set()
        # Linux ends Ray's processes with the thread that began them, so this one waits for the end.
        self._over.wait()
        ray.shutdown()
