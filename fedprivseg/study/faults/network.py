"""A grid on which faults happen: between the server and its sites, and to the programs at both ends.

The server cannot tell it from a real one. A site is known by what it says in the roll call, so what is to happen to it there
happens to its reply.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final
from uuid import uuid4

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedprivseg.core.config import Scenario
from fedprivseg.core.fault_config import SERVER, FaultConfig
from fedprivseg.core.records import Order
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.runtime.wire import read_order
from fedprivseg.study.faults.machine import clock_jump, full_disk
from fedprivseg.study.faults.occurrences import Occurrences

if TYPE_CHECKING:
    from flwr.supercore.run import Run

_LOST = ("kill", "error", "drop")
"""Faults after which an order is not carried out, or its reply does not come."""

_CHANGED = ("truncate", "corrupt", "replay", "impersonation")
"""Faults after which another reply comes."""

_LATE = ("delay", "duplicate", "reorder")

Fields = dict[str, Any]


@dataclass
class _Sent:
    """An order under way."""

    order: Order
    message: Message
    site: str = ""


@final
class FaultyGrid(Grid):
    """`inner`, with what the scenario says goes wrong. It holds what is late, and each site's replies to its last two orders.

    Args:
        inner: the engine's grid.
        scenario: of the run.
        run: its folder, in which it is noted what has happened.
        machine: what lasts to the end of the run: a full disk, a clock that jumped.
        kill: ends this process.
    """

    def __init__(
        self,
        inner: Grid,
        scenario: Scenario,
        run: RunFolder,
        machine: ExitStack,
        kill: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL),
    ) -> None:
        self._inner, self._run, self._machine, self._kill = inner, run, machine, kill
        self._occurrences = Occurrences(run.faults, scenario.faults)
        self._names = sorted(site.name for site in scenario.sites)
        self._sites: dict[int, str] = {}
        self._sent: dict[str, _Sent] = {}
        self._late: list[tuple[float, Message]] = []
        self._last: dict[str, tuple[Order, RecordDict]] = {}
        self._before: dict[str, RecordDict] = {}

    def set_run(self, run: Run) -> None:
        """See `Grid`."""
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        """See `Grid`."""
        return self._inner.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See `Grid`."""
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """See `Grid`."""
        return self._inner.get_node_ids()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Nobody asks for it."""
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send orders, but for those that get lost."""
        pushed: list[str] = []
        for message in messages:
            order = read_order(message.content).order
            sent = _Sent(Order(order.action, order.number), message, self._sites.get(message.metadata.dst_node_id, ""))
            self._happens_to_server(sent.order, "before")
            fault = self._occurrences.next(sent.site, sent.order, _LOST, "before")
            if fault is None:
                names = list(self._inner.push_messages([message]))
            else:
                message.metadata.__dict__["_message_id"] = str(uuid4())
                names = [message.metadata.message_id]
                self._instead(fault, message)
            self._sent.update((name, sent) for name in names)
            pushed += names
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that have come, as they come with all that goes wrong."""
        wanted = set(message_ids)
        came = [copy for message in self._inner.pull_messages(list(wanted)) for copy in self._on_its_way(message)]
        now = time.monotonic()
        came += [message for due, message in self._late if due <= now]
        self._late = [each for each in self._late if each[0] > now]
        return [message for message in came if message.metadata.reply_to_message_id in wanted]

    def _on_its_way(self, reply: Message) -> list[Message]:
        """What the server hears of a reply at once."""
        sent = self._sent[reply.metadata.reply_to_message_id]
        fields = _fields(reply)
        site = self._sites.setdefault(reply.metadata.src_node_id, str(fields.get("site", "")))
        if not reply.has_error() and self._last.get(site, (sent.order, None))[0] != sent.order:
            self._before[site] = self._last[site][1]
        if not reply.has_error():
            self._last[site] = sent.order, reply.content
        self._happens_to_server(sent.order, "after")
        told = "" if sent.site else "before"  # a node that was not known yet when it was asked
        for when in filter(None, (told, "after")):
            if (fault := self._occurrences.next(site, sent.order, _LOST, when)) is not None:
                self._instead(fault, sent.message)
                return []
        if (fault := self._occurrences.next(site, sent.order, _CHANGED)) is not None and fields:
            reply = _replaced(reply, sent.message, self._changed(fault, site, fields))
        if (fault := self._occurrences.next(site, sent.order, _LATE)) is None:
            return [reply]
        if fault.kind == "duplicate":
            self._late.append((0.0, reply))
            return [reply, reply]
        self._late.append((time.monotonic() + (fault.seconds if fault.kind == "delay" else 0.0), reply))
        return []

    def _instead(self, fault: FaultConfig, message: Message) -> None:
        """What comes in the place of a reply that does not: Flower's error, or nothing."""
        if fault.kind != "drop":
            error = Message(Error(fault.code, "simulated"), reply_to=message)
            error.metadata.__dict__["_message_id"] = str(uuid4())
            self._late.append((0.0, error))

    def _changed(self, fault: FaultConfig, site: str, fields: Fields) -> Fields:
        """The fields of the reply that comes in the place of the right one."""
        if fault.kind == "replay":
            before = self._before.get(site)
            return dict(next(iter(before.config_records.values()))) if before is not None else fields
        if fault.kind == "impersonation":
            return {**fields, "site": self._names[self._names.index(site) - 1]}
        body = bytes(fields.get("body", b""))
        if not body:
            return fields
        if fault.kind == "truncate":
            return {**fields, "body": body[: len(body) // 2]}
        return {**fields, "body": bytes([*body[:-1], body[-1] ^ 1])}

    def _happens_to_server(self, order: Order, when: str) -> None:
        fault = self._occurrences.next(SERVER, order, ("kill", "full-disk", "clock"), when)
        if fault is None:
            return
        if fault.kind == "kill":
            self._kill()
        elif fault.kind == "full-disk":
            self._machine.enter_context(full_disk(self._run.server.path))
        else:
            self._machine.enter_context(clock_jump(fault.seconds))


def _fields(reply: Message) -> Fields:
    """The fields of a reply that is a release, or of another what says whose it is."""
    if reply.has_error():
        return {}
    return dict(next(iter(reply.content.config_records.values())))


def _replaced(reply: Message, message: Message, fields: Fields) -> Message:
    """`reply` with other fields in it."""
    (name,) = reply.content.config_records
    changed = Message(RecordDict({name: ConfigRecord(fields)}), reply_to=message)
    changed.metadata.__dict__["_message_id"] = str(uuid4())
    return changed
