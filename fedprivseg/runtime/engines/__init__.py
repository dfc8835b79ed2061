"""Engines: the same server and site programs, brought together in different ways. One module each, one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from fedprivseg.core.cache import require_cache
from fedprivseg.core.compute import require_gpus
from fedprivseg.core.config import Scenario
from fedprivseg.core.runfolder import RunFolder

if TYPE_CHECKING:  # Flower takes seconds
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

ENGINES = ("inline", "ray", "deployment")

Engine = Callable[[Path, Scenario, "ClientApp", "ServerApp"], None]
"""``run(folder, scenario, site_app, server_app)``: carries out a scenario that was prepared in a run folder; every site runs
`site_app`."""


def engine(name: str) -> Engine:
    """The engine of that name. Imported on use: Ray takes seconds."""
    run: Engine = import_module(f"fedprivseg.runtime.engines.{name}").run
    return run


@contextmanager
def begun(scenario: Scenario, folder: Path) -> Iterator[Engine]:
    """The scenario's engine, with what takes it seconds under way in the background while the caller loads and checks the
    rest; gone at the end of the block, whether it was used or not. A finished run needs no engine, nor one without data. Raises
    RequestError before anything begins if an unfinished one lacks GPUs or a cache here."""
    finished = RunFolder(folder).result.exists()
    if not finished:
        require_gpus(scenario.resources.gpus)
        require_cache()
        if scenario.engine == "deployment":
            from fedprivseg.runtime.deployment.terminator import program

            program()
    data = scenario.data.source == "phantom" or Path(scenario.data.source).is_dir()
    if scenario.engine != "ray" or not data or finished:
        yield lambda *run: engine(scenario.engine)(*run)
        return
    from fedprivseg.runtime.engines.ray_cluster import Cluster

    cluster = Cluster(scenario.resources)
    try:
        yield lambda *run: import_module("fedprivseg.runtime.engines.ray").run(*run, cluster)
    finally:
        cluster.end()
