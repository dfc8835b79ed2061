"""A cluster of two Ray nodes on this machine, the sites of a run on it, and what becomes of them: a script, since Ray leaves
threads behind in the process that used it.

    python tests/two_ray_nodes.py OUT

Writes what happened to the file OUT as JSON. The sites' program says on which node it runs, and does what its order names.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

import ray
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from ray.cluster_utils import Cluster as Nodes

from fedprivseg.core.config import ResourceConfig
from fedprivseg.core.errors import RunError
from fedprivseg.runtime.engines.ray_cluster import Cluster
from fedprivseg.runtime.engines.ray_grid import RayGrid
from fedprivseg.runtime.engines.ray_workers import Workers

SITES = ("centre1", "centre2", "centre3", "centre4")
PINNED = "centre2"
"""The site whose folder lies with the second node."""

LARGE = 300_000

app = ClientApp()


@app.train("perform")
def perform(message: Message, context: Context) -> Message:
    """Say where this is, and send back what came."""
    order = message.content["order"]
    if order["does"] == "dies":
        os._exit(1)
    if order["does"] == "waits":
        time.sleep(float(order["seconds"]))
    count = int(context.state["count"]["n"]) + 1 if "count" in context.state else 1
    context.state["count"] = ConfigRecord({"n": count})
    said = {
        "node": ray.get_runtime_context().get_node_id(),
        "pid": os.getpid(),
        "body": order["body"],
        "count": count,
        "station": str(context.node_config["station"]),
    }
    return Message(RecordDict({"said": ConfigRecord(said)}), reply_to=message)


def ask(grid: RayGrid, sites, *, timeout: float = 300.0, does: str = "", seconds: float = 0.0) -> dict[str, object]:
    """What each of `sites` said, or the error's code; nothing of one that is silent."""
    bodies = {site: site.encode() * LARGE for site in sites}
    nodes = {node: name for name, node in zip(SITES, grid.get_node_ids(), strict=True)}
    orders = [
        Message(
            RecordDict({"order": ConfigRecord({"does": does, "seconds": seconds, "body": bodies[name]})}),
            node,
            "train.perform",
        )
        for node, name in nodes.items()
        if name in sites
    ]
    found: dict[str, object] = {}
    for reply in grid.send_and_receive(orders, timeout=timeout):
        name = nodes[reply.metadata.src_node_id]
        if reply.has_error():
            found[name] = reply.error.code
            continue
        said = dict(reply.content["said"])
        assert said.pop("body") == bodies[name]
        found[name] = said
    return found


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody uses now."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]


def node_arguments(**more: object) -> dict[str, object]:
    """Of one node, each port stated: what looks for one itself gives up on a busy machine."""
    names = ("node_manager_port", "object_manager_port", "metrics_export_port", "dashboard_agent_listen_port")
    ports = dict(zip((*names, "runtime_env_agent_port"), free_ports(5), strict=True))
    return {"num_cpus": 2, "object_store_memory": 100 * 2**20, "include_dashboard": False, **ports, **more}


def main() -> None:
    """Begins the cluster, lets the sites work, takes a node away."""
    nodes = Nodes(initialize_head=True, head_node_args=node_arguments(gcs_server_port=free_ports(1)[0]))
    second = nodes.add_node(**node_arguments(resources={f"site-{PINNED}": 1}))
    nodes.wait_for_nodes(timeout=120)
    resources = ResourceConfig(cpus=4, sites_at_once=4, ray_address=nodes.address)
    cluster, told = Cluster(resources), {}
    try:
        cluster.ready()
        told["pinned to"] = second.node_id
        try:
            Workers(app, ResourceConfig(cpus=64, sites_at_once=1), SITES)
        except RunError as fault:
            told["too large"] = str(fault)
        workers = Workers(app, resources, SITES)
        grid = RayGrid([Path("/sites") / name / "station.json" for name in SITES], workers, memory_gib=64)
        told["first"] = ask(grid, SITES)
        told["second"] = ask(grid, SITES)
        told["alone"] = ask(grid, ["centre1"])
        told["dead"] = ask(grid, ["centre1"], does="dies")
        told["after a death"] = ask(grid, SITES)
        told["late"] = ask(grid, ["centre3"], timeout=0.5, does="waits", seconds=5.0)
        told["after a late one"] = ask(grid, ["centre3"])
        Timer(3.0, lambda: nodes.remove_node(second, allow_graceful=False)).start()
        told["node lost"] = ask(grid, SITES, does="waits", seconds=8.0)
        told["after the loss"] = ask(grid, SITES)
        workers.end()
    finally:
        cluster.end()
        nodes.shutdown()
    Path(sys.argv[1]).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
