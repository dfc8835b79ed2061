"""The grid of a deployment: Flower's `Grid` over a task at the SuperLink, for nodes that are who they should be.

An order has a deadline, which is its message's time to live as well. It is sent again when the node that had it was started
anew, or is back after it was away: a SuperNode keeps its orders in memory. Of several replies to one order the first counts, so
that nothing is counted twice. Replies come one by one, each as soon as it is there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedprivseg.core.errors import PayloadError
from fedprivseg.runtime.deployment.chunks import join, split
from fedprivseg.runtime.deployment.server_task import ServerTask
from fedprivseg.runtime.wire import UNKNOWN, printable

POLL_S, LONGEST_POLL_S, SHARE = 0.1, 0.5, 0.05
"""How often replies are looked for, in seconds: after a `SHARE` of the time for which they were waited for so far. Each look
costs the SuperLink some milliseconds of the one core that it uses, and so delays what it looks for."""

_LOOK_S = 1.0
"""How often it is looked which nodes are there, in seconds."""

_AGAIN = frozenset({ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE})
"""Flower's errors that say that an order or its reply was lost on the way; any other is the node's own answer."""

_LONGEST_S = 366 * 86_400.0
_log = logging.getLogger(__name__)


@dataclass
class _Order:
    """An order that is out. started: when its node was started, as far as was known when it was sent. lost: it has to be sent
    again, once its node is there."""

    message: Message
    expires: float
    copies: set[str] = field(default_factory=set)
    started: str = ""
    lost: bool = False

    @property
    def node(self) -> int:
        return self.message.metadata.dst_node_id


@final
class DeploymentGrid(Grid):
    """Flower's grid for the server's task `task`.

    registered: of each site the public key of its node, as Flower keeps it. A node that has another name or another key is not
    asked, and a reply in which a node names another site than its own is none.
    """

    def __init__(self, task: ServerTask, registered: Mapping[str, bytes]) -> None:
        self._task, self._registered = task, dict(registered)
        self._orders: dict[str, _Order] = {}
        self._names: dict[int, str] = {}
        self._started: dict[int, str] = {}
        self._looked, self._restarts = float("-inf"), task.restarts

    def set_run(self, run: Run) -> None:
        """There is one run, and it is set already."""

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._task.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Deprecated in Flower, kept because the interface asks for it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are online and are the sites' own."""
        self._look(now=True)
        return sorted(self._started)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send each message. The ids say which order it is; replies to it come under them however often it is sent."""
        return [self._push(message, _LONGEST_S) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that are there."""
        return list(self._arrived([name for name in message_ids if name in self._orders]))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send each message and yield the replies as they come, until all are there or `timeout` seconds are over."""
        seconds = _LONGEST_S if timeout is None else timeout
        began = time.monotonic()
        waiting = {self._push(message, seconds) for message in messages}
        try:
            while waiting:
                for reply in self._arrived(sorted(waiting)):
                    waiting.discard(reply.metadata.reply_to_message_id)
                    yield reply
                waited = time.monotonic() - began
                if not waiting or waited > seconds:
                    return
                time.sleep(min(max(POLL_S, SHARE * waited), LONGEST_POLL_S))
        finally:
            for name in waiting:
                self._orders.pop(name, None)

    def _push(self, message: Message, seconds: float) -> str:
        """Send a message for the first time; the id of the order."""
        order = _Order(message, time.monotonic() + seconds)
        self._look()
        name = self._send(order) or f"unsent-{id(order)}"
        self._orders[name] = order
        return name

    def _send(self, order: _Order) -> str | None:
        """Send a copy of an order; the copy's id, None if there can be none now."""
        told, left = order.message.metadata, order.expires - time.monotonic()
        order.lost, order.started = order.node not in self._started, self._started.get(order.node, "")
        if order.lost or left <= 0:
            return None
        copy = Message(split(order.message.content), order.node, told.message_type, ttl=left, group_id=told.group_id)
        name = self._task.push(copy)
        order.lost = name is None
        if name is not None:
            order.copies.add(name)
        return name

    def _arrived(self, names: Iterable[str]) -> Iterator[Message]:
        """The replies to the orders `names` that are there, each under its order's id; what was lost is sent again."""
        self._look()
        orders = {name: self._orders[name] for name in names}
        for order in orders.values():
            began = self._started.get(order.node)
            if began is not None and (order.lost or began != order.started):
                self._send(order)
        copies = {copy: name for name, order in orders.items() for copy in order.copies}
        for copy, reply in self._task.pull(copies):
            name = copies.get(copy)
            if name is None or name not in self._orders:
                continue  # a second reply to an order that was answered
            order = self._orders[name]
            if reply is None or (reply.has_error() and reply.error.code in _AGAIN):
                order.copies.discard(copy)
                order.lost = True
                self._looked = float("-inf")
                continue
            del self._orders[name]
            yield self._genuine(reply, name)

    def _genuine(self, reply: Message, name: str) -> Message:
        """The reply as the server reads it, under its order's id."""
        reply.metadata.__dict__["_reply_to_message_id"] = name
        if reply.has_error():
            return reply
        try:
            content = join(reply.content)
        except PayloadError as fault:
            _log.warning("node of %s: %s", self._names.get(reply.metadata.src_node_id), fault)
            content = RecordDict()
        site = self._names.get(reply.metadata.src_node_id)
        said = {record.get("site", "") for record in content.config_records.values()}
        if not said <= {site, UNKNOWN, ""}:
            _log.warning("the node of %s presents itself as %s", site, printable(str(sorted(map(str, said))), 80))
            content = RecordDict({"refused-by-the-grid": ConfigRecord({})})
        reply.content = content
        return reply

    def _look(self, *, now: bool = False) -> None:
        """See which nodes are there, if that was not done just now."""
        if self._task.restarts != self._restarts:
            # The SuperLink was away: what it said last, and what it was told, may have been lost with it.
            self._restarts = self._task.restarts
            for order in self._orders.values():
                order.lost = True
            now = True
        if not now and time.monotonic() < self._looked + _LOOK_S:
            return
        self._looked = time.monotonic()
        self._started = {}
        for node in self._task.nodes():
            if self._registered.get(node.name) == node.public_key:
                self._names[node.node_id] = node.name
                self._started[node.node_id] = node.last_activated_at
            else:
                _log.warning("a node named %r is not the one of a site, and is not asked", printable(node.name, 48))
