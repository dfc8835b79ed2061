"""Every site a node of Flower, carried out side by side by Ray's workers: of this machine, or of a cluster that is there."""

from __future__ import annotations

import logging
from pathlib import Path

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import RunError
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.runtime.engines.local_grid import server_context
from fedprivseg.runtime.engines.ray_cluster import Cluster


def run(
    folder: Path, scenario: Scenario, site_app: ClientApp, server_app: ServerApp, cluster: Cluster | None = None
) -> None:
    """Run the scenario prepared in `folder` to its end; every site runs `site_app`.

    cluster: Ray for this run if it was begun already; it is on its way out when this returns, for its owner to `end`. Without
    one, Ray is begun here, and gone when this returns.

    Raises what the server raised, or RunError if Ray itself failed.
    """
    cluster, own = cluster or Cluster(scenario.resources), cluster is None
    try:
        logging.getLogger("flwr").setLevel(logging.CRITICAL)
        cluster.ready()
        # These load Ray, which the cluster has done by now.
        from ray.exceptions import RayError

        from fedprivseg.runtime.engines.ray_grid import RayGrid
        from fedprivseg.runtime.engines.ray_workers import Workers

        names = [site.name for site in scenario.sites]
        workers = Workers(site_app, scenario.resources, names)
        try:
            stations = [RunFolder(folder.resolve()).site(name).configuration for name in names]
            server_app(RayGrid(stations, workers, scenario.resources.memory_gib), server_context(folder))
        except RayError as fault:
            raise RunError(f"Ray failed: {type(fault).__name__}") from fault
        finally:
            workers.end()
    finally:
        cluster.leave()
        if own:
            cluster.end()
