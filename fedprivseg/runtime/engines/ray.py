"""Flower's simulation runtime: every site a Flower node, carried out by Ray workers with the scenario's resources.

Flower's public `run_simulation` takes no run configuration and is deprecated in favour of a daemon that stays behind; this
calls the function under it, which is why Flower is pinned to one minor version (a test runs it).
"""

from __future__ import annotations

import logging
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.server.superlink.linkstate.utils import generate_rand_int_from_bytes
from flwr.serverapp import ServerApp
from flwr.simulation.run_simulation import _run_simulation
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supercore.telemetry import EventType

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import FedprivsegError, RunError
from fedprivseg.runtime.engines.ray_cluster import Cluster

_SERVER_NODE = 1
_ID_BYTES = 8


def run(
    folder: Path, scenario: Scenario, site_app: ClientApp, server_app: ServerApp, cluster: Cluster | None = None
) -> None:
    """Run the scenario prepared in `folder` to its end; every site runs `site_app`.

    cluster: Ray for this run if it was begun already; it is on its way out when this returns, for its owner to `end`. Without
    one, Ray is begun here, and gone when this returns.

    Raises what the server raised, or RunError if Ray itself failed.
    """
    ray = cluster or Cluster(folder, scenario)
    try:
        resources = scenario.resources
        run_id = generate_rand_int_from_bytes(_ID_BYTES)
        flower_run = Run.create_empty(run_id=run_id)
        flower_run.primary_task_id = generate_rand_int_from_bytes(_ID_BYTES)
        flower_run.federation_id = NOOP_FEDERATION_ID
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, _SERVER_NODE
        context = Context(
            run_id=run_id, node_id=0, node_config={}, state=RecordDict(), run_config={"run-folder": str(folder)}
        )
        needs = {"num_cpus": resources.site_threads, "num_gpus": resources.gpus / resources.sites_at_once}
        logging.getLogger("flwr").setLevel(logging.CRITICAL)
        ray.ready()
        _orderly()
        _run_simulation(
            num_supernodes=len(scenario.sites),
            exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
            client_app=site_app,
            server_app=server_app,
            backend_config={"client_resources": needs},  # type: ignore[dict-item]
            server_app_context=context,
            run=flower_run,
        )
    except FedprivsegError:
        raise
    except RuntimeError as fault:
        raise RunError(f"the simulation runtime failed: {fault}") from fault
    finally:
        ray.leave()
        if cluster is None:
            ray.end()


def _orderly() -> None:
    """Give Flower our backend, which it lets nobody choose; only now, since it loads Ray, which the cluster has done by now."""
    from flwr.server.superlink.fleet.vce.backend import raybackend

    from fedprivseg.runtime.engines.ray_backend import OrderlyRayBackend

    raybackend.RayBackend = OrderlyRayBackend  # type: ignore[misc]
