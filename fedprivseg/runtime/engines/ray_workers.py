"""Ray's workers that carry out what sites are asked: actors, as many as there is room for, each on a node of the cluster.

A site's orders go to any worker, unless nodes of the cluster say by a resource ``site-<name>`` that the site's folder lies with
them (``ray start --resources '{"site-centre1": 1}'``): then to workers there and nowhere else, so that its vault stays where
it is. All other folders have to lie where every node finds them under the same path.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice, zip_longest
from typing import Any, NamedTuple, final

import ray
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fedprivseg.core.config import ResourceConfig
from fedprivseg.core.errors import RunError
from fedprivseg.runtime.engines.parcels import Parcel, packed, unpacked
from fedprivseg.runtime.site.memory import Memory

SITE = "site-"
"""Begins the name of the resource by which a node says that the folder of a site lies with it."""


class Done(NamedTuple):
    """What a worker made of an order.

    Attributes:
        parcel: the reply.
        context: of the site's node, with the state that the order left.
        seconds: of wall clock.
        peak_rss_mb: the most memory that the worker ever used, MiB.
    """

    parcel: Parcel
    context: Context
    seconds: float
    peak_rss_mb: float


class SiteWorker:
    """The process behind an actor. It carries out one order at a time, of any site."""

    def __init__(self, app: ClientApp) -> None:
        self._app = app
        self._memories: dict[int, Memory] = {}  # of each node its own; what travels with a context is empty

    def ready(self) -> None:
        """It has begun."""

    def carry_out(self, parcel: Parcel, context: Context) -> Done:
        """What the site's program makes of the order in `parcel`."""
        start = time.perf_counter()
        if (memory := self._memories.get(context.node_id)) is not None:
            memory.put(context)
        reply: Message = self._app(unpacked(parcel), context)
        self._memories[context.node_id] = Memory.of(context)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return Done(packed(reply), context, time.perf_counter() - start, peak)


@final
@dataclass(eq=False)
class Worker:
    """An actor.

    Attributes:
        actor: as Ray knows it.
        node: the id of the cluster's node on which it runs.
        served: the nodes of Flower whose orders it has carried out.
    """

    actor: Any
    node: str
    served: set[int] = field(default_factory=set)


@final
class Workers:
    """The workers of one run, on a cluster that is there.

    Attributes:
        homes: for each site whose folder lies with some nodes of the cluster, these nodes.
    """

    def __init__(self, app: ClientApp, resources: ResourceConfig, sites: Iterable[str]) -> None:
        """Begin as many as may work at once and find room. Raises RunError if the cluster has room for none."""
        self._needs = {
            "num_cpus": resources.site_threads,
            "num_gpus": resources.gpus / resources.sites_at_once,
        }
        self._app = ray.put(app)
        self._kind = ray.remote(SiteWorker)
        nodes = alive_nodes()
        self.homes = {
            site: frozenset(node for node, has in nodes.items() if f"{SITE}{site}" in has)
            for site in sites
            if any(f"{SITE}{site}" in has for has in nodes.values())
        }
        places = self._places(nodes, resources.sites_at_once)
        if not places:
            raise RunError(
                f"the Ray cluster has room for no site: one takes {self._needs['num_cpus']} CPUs and "
                f"{self._needs['num_gpus']:g} GPUs of one node, and the nodes have: "
                f"{'; '.join(_in_words(has) for has in nodes.values())}. Change [resources], or begin larger nodes"
            )
        self.all = [self.begin(node) for node in places]

    def begin(self, node: str) -> Worker:
        """A further worker on that node of the cluster."""
        where = NodeAffinitySchedulingStrategy(node, soft=False)
        actor = self._kind.options(scheduling_strategy=where, **self._needs).remote(self._app)
        return Worker(actor, node)

    def end(self) -> None:
        """End them all, whatever they do."""
        for worker in self.all:
            ray.kill(worker.actor)

    def _places(self, nodes: Mapping[str, Mapping[str, float]], most: int) -> list[str]:
        """The node of each worker, as evenly as there is room; on every node with a site's folder there is one."""
        slots = [[node] * self._room(has) for node, has in sorted(nodes.items())]
        spread = [node for node in chain.from_iterable(zip_longest(*slots)) if node is not None]
        found = [*islice(spread, most)]
        needed = {node for home in self.homes.values() for node in home if self._room(nodes[node])}
        return found + sorted(needed - set(found))

    def _room(self, has: Mapping[str, float]) -> int:
        room = int(has.get("CPU", 0) / self._needs["num_cpus"])
        gpus = self._needs["num_gpus"]
        return min(room, int(has.get("GPU", 0) / gpus + 1e-9)) if gpus else room


def alive_nodes() -> dict[str, dict[str, float]]:
    """The nodes of the cluster that are there, by id, and what each has in all."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _in_words(has: Mapping[str, float]) -> str:
    return f"{has.get('CPU', 0):g} CPUs, {has.get('GPU', 0):g} GPUs"
