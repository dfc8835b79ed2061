"""Flower's public `Grid` over Ray's workers: orders go to whoever is idle, replies come as they are ready.

Flower's own simulation asks every 0.1 s whether there is something to do, keeps every message in a database and gives any order
to any worker of the cluster. This one waits for Ray itself, knows where a site's folder lies, and outlives the loss of a node.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, final

import ray
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from fedprivseg.core.errors import RunError
from fedprivseg.runtime.engines.local_grid import LocalGrid, named
from fedprivseg.runtime.engines.parcels import packed, unpacked
from fedprivseg.runtime.engines.ray_workers import Done, Worker, Workers, alive_nodes

_AHEAD = 4
"""How many orders a worker wait in this process: the others are made when their turn comes."""

_MOMENT_S = 0.1
"""How long a server that looks for replies waits here for the first, in seconds: Ray wakes it up."""

_VERDICT_S = 60.0
"""How long Ray may take to say whether a node is lost of whose workers nothing is heard, in seconds."""

_START_S = 180.0
"""How long the first worker may take to begin, in seconds."""


@final
class RayGrid(LocalGrid):
    """A grid whose nodes are `sites` (their ``station.json`` files), in order, carried out by `workers`."""

    def __init__(self, sites: Iterable[Path], workers: Workers, memory_gib: float) -> None:
        sites = [*sites]
        super().__init__(sites)
        self._workers, self._memory_mb = workers, memory_gib * 1024
        self._names = dict(zip(self._contexts, (path.parent.name for path in sites), strict=True))
        self._idle: list[Worker] = []
        self._waiting: dict[str, Message] = {}
        self._running: dict[Any, tuple[Worker, str | None, Message | None]] = {}
        self._replies: dict[str, Message] = {}
        self._again: set[str] = set()
        self._unheard: set[str] = set()  # orders whose answers came too late
        self._seconds: dict[int, float] = {}
        self._peak_mb, self._begun = 0.0, time.monotonic()
        for worker in workers.all:
            self._running[worker.actor.ready.remote()] = worker, None, None

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Give each message to a worker as soon as one may take it."""
        pushed = {named(message): message for message in messages}
        self._waiting |= pushed
        self._hand_out()
        return list(pushed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that are there; if there is none yet, what comes within a moment."""
        wanted = [*message_ids]
        self._settle(0.0 if self._replies.keys() & {*wanted} else _MOMENT_S)
        return [self._replies.pop(name) for name in wanted if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Have each message carried out, and return the replies as they come. timeout: longest wait for all, in seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        coming, mine = iter(messages), set[str]()
        while True:
            while len(self._waiting) < _AHEAD * len(self._workers.all) and (one := next(coming, None)) is not None:
                mine.update(self.push_messages([one]))
            left = 1.0 if end is None else end - time.monotonic()
            if not mine or left <= 0:
                for name in mine:
                    self._waiting.pop(name, None)
                self._unheard |= mine
                return
            self._settle(min(left, 1.0))
            for name in mine & self._replies.keys():
                mine.discard(name)
                yield self._replies.pop(name)

    def _settle(self, timeout: float) -> None:
        """Take what came, waiting `timeout` seconds for the first."""
        ready, _ = ray.wait([*self._running], num_returns=1, timeout=timeout) if self._running else ([], [])
        if ready:
            ready, _ = ray.wait([*self._running], num_returns=len(self._running), timeout=0)
        for future in ready:
            worker, name, message = self._running.pop(future)
            try:
                done: Done | None = ray.get(future)
            except RayTaskError:
                self._fail(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
                self._idle.append(worker)
            except RayError as fault:
                self._lose(worker, name, message, fault)
            else:
                self._idle.append(worker)
                if done is not None and message is not None:
                    self._take(worker, message, done)
        if not self._idle and not self._seconds and time.monotonic() - self._begun > _START_S:
            raise RunError(f"no worker of Ray began within {_START_S:.0f} s; is the cluster busy with other jobs?")
        self._hand_out()

    def _take(self, worker: Worker, message: Message, done: Done) -> None:
        node = message.metadata.dst_node_id
        worker.served.add(node)
        self._contexts[node] = done.context
        self._seconds[node] = done.seconds
        self._peak_mb = max(self._peak_mb, done.peak_rss_mb)
        self._answer(message, unpacked(done.parcel))

    def _fail(self, message: Message | None, code: int) -> None:
        if message is not None:
            self._answer(message, Message(Error(code=code), reply_to=message))

    def _answer(self, message: Message, reply: Message) -> None:
        named(reply)
        if message.metadata.message_id not in self._unheard:
            self._replies[message.metadata.message_id] = reply

    def _lose(self, worker: Worker, name: str | None, message: Message | None, fault: RayError) -> None:
        """The worker is gone. With its node: what it did is given to another once, since every step can be done again. Alone:
        it is the site that ended it, and would end the next one too."""
        self._workers.all.remove(worker)
        gone = _is_lost(worker.node, patient=isinstance(fault, ActorUnavailableError))
        if not gone and isinstance(fault, RayActorError):
            self._begin(worker.node)
        elif gone and not self._workers.all and (nodes := sorted(alive_nodes())):
            self._begin(nodes[0])
        if gone and message is not None and name is not None and name not in self._again and self._may_go(message):
            self._again.add(name)
            self._waiting = {name: message, **self._waiting}
        else:
            self._fail(message, ErrorCode.NODE_UNAVAILABLE if gone else ErrorCode.CLIENT_APP_CRASHED)

    def _begin(self, node: str) -> None:
        worker = self._workers.begin(node)
        self._workers.all.append(worker)
        self._running[worker.actor.ready.remote()] = worker, None, None

    def _may_go(self, message: Message) -> bool:
        """Whether any worker may carry out `message`."""
        return any(self._allowed(worker, message) for worker in self._workers.all)

    def _allowed(self, worker: Worker, message: Message) -> bool:
        home = self._workers.homes.get(self._names[message.metadata.dst_node_id])
        return home is None or worker.node in home

    def _hand_out(self) -> None:
        """Give orders to idle workers, a site one at a time: to who served it, then those first that took longest the last
        time. A site whose nodes are all gone has nobody."""
        for name, message in [*self._waiting.items()]:
            if not self._may_go(message):
                self._fail(self._waiting.pop(name), ErrorCode.NODE_UNAVAILABLE)
        while self._has_room():
            at_work = {message.metadata.dst_node_id for _, _, message in self._running.values() if message is not None}
            pairs = [
                (self._rank(worker, message), place, name)
                for place, worker in enumerate(self._idle)
                for name, message in self._waiting.items()
                if self._allowed(worker, message) and message.metadata.dst_node_id not in at_work
            ]
            if not pairs:
                return
            _, place, name = min(pairs)
            worker, message = self._idle.pop(place), self._waiting.pop(name)
            context = self._contexts[message.metadata.dst_node_id]
            self._running[worker.actor.carry_out.remote(packed(message), context)] = worker, name, message

    def _rank(self, worker: Worker, message: Message) -> tuple[bool, float]:
        node = message.metadata.dst_node_id
        return node not in worker.served, -self._seconds.get(node, 0.0)

    def _has_room(self) -> bool:
        """Whether one more may work, by the most memory that any took; one always may."""
        busy = sum(message is not None for _, _, message in self._running.values())
        return busy == 0 or (busy + 1) * self._peak_mb <= self._memory_mb


def _is_lost(node: str, *, patient: bool) -> bool:
    """Whether the cluster has lost that node. patient: Ray may not know yet."""
    end = time.monotonic() + (_VERDICT_S if patient else 0.0)
    while node in alive_nodes():
        if time.monotonic() >= end:
            return False
        time.sleep(0.2)
    return True
