"""The warm executor of a SuperNode: the site's program is loaded once, and carries out one order at a time.

Flower's own begins a Python process for every order, which loads torch anew. This is a thread of the SuperNode's process: it
ends with it, and nothing listens at the hospital. It runs what is installed there, never code that came over the wire; an order
is carried out only if its app is one that the data manager has approved, was made of this very code, and names the scenario in
it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import traceback
from pathlib import Path
from typing import final

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode, SubStatus
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import NoObjectInStoreError, ObjectStore
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate import NodeState

from fedprivseg.core.errors import FedprivsegError, RequestError, named
from fedprivseg.runtime.deployment import app_bundle
from fedprivseg.runtime.deployment.app_bundle import AppBundle
from fedprivseg.runtime.deployment.approval import approved
from fedprivseg.runtime.deployment.chunks import join, split

POLL_S = 0.02
"""How often an order is looked for in the node's memory, in seconds."""

_log = logging.getLogger(__name__)


@final
class WarmExecutor:
    """Carries out the orders in `state` with the program `app`, under the apps that the file `approved` lists."""

    def __init__(self, state: NodeState, store: ObjectStore, app: ClientApp, approved: Path) -> None:
        self._state, self._store, self._app, self._approved = state, store, app, approved
        self._done: tuple[str, Message] | None = None

    def start(self) -> None:
        """Begin, in a thread that ends with the process."""
        threading.Thread(target=self._carry_on, name="executor", daemon=True).start()

    def _carry_on(self) -> None:
        try:
            while True:
                found = self._state.get_messages_legacy(is_reply=False, limit=1)
                if not found or (order := self._whole(found[0])) is None:
                    time.sleep(POLL_S)
                    continue
                name = found[0].metadata.message_id
                self._state.record_message_processing_start(name)
                self._answer(self._reply(order))
                for task in self._state.get_tasks(run_ids=[order.metadata.run_id], statuses=["pending"]):
                    # The node notes a task for each order, for executors of their own; this one is done with it.
                    self._state.finish_task(task.task_id, SubStatus.STOPPED, "")
        except BaseException:  # without its executor a node would take an order and never answer
            _log.error("the executor ended:\n%s", traceback.format_exc())
            os.kill(os.getpid(), signal.SIGTERM)

    def _whole(self, order: Message) -> Message | None:
        """The order with its content, once all of it has come; None if it never does."""
        name = order.metadata.message_id
        try:
            names = [tree.object_id for tree in iterate_object_tree(self._store.get_object_tree(name))]
            contents: dict[str, bytes] = {}
            while lacking := [each for each in names if each not in contents]:
                for each in lacking:
                    content = self._store.get(each)
                    if content is None:
                        return None
                    if content:
                        contents[each] = content
                if len(contents) < len(set(names)):
                    time.sleep(POLL_S)
        except NoObjectInStoreError:
            return None
        self._store.delete(name)
        found = inflate_object_from_contents(name, contents)
        assert isinstance(found, Message)
        found.metadata.__dict__["_message_id"] = name
        return found

    def _reply(self, order: Message) -> Message:
        """What the site answers. The same order again, because its answer was lost, has the same answer."""
        asked = order.content.object_id
        if self._done is not None and self._done[0] == asked:
            return _again(self._done[1], order)
        try:
            reply = self._carried_out(order)
        except RequestError as fault:
            _log.error("order refused: %s", fault)
            return Message(Error(ErrorCode.INVALID_FAB, "the app is not approved at this site"), reply_to=order)
        except Exception as fault:  # the wall: its text may hold a path or a patient
            _log.error("order failed:\n%s", traceback.format_exc())
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, named(type(fault))), reply_to=order)
        if reply.has_content():
            reply.content = split(reply.content)
        self._done = asked, reply
        return reply

    def _carried_out(self, order: Message) -> Message:
        run = self._state.get_run(order.metadata.run_id)
        fab = None if run is None else self._state.get_fab(run.fab_hash)
        context = None if run is None else self._state.get_run_series_context(run.series_id)
        if run is None or fab is None or context is None:
            raise FedprivsegError("the node has no app for this run")
        self._require_approved(app_bundle.read(fab.content), order)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run.run_id, context.node_id, 1
        order.content = join(order.content)
        return self._app(order, Context(**vars(context)))

    def _require_approved(self, app: AppBundle, order: Message) -> None:
        """Raises RequestError unless the data manager has approved this app, and the order is under its scenario."""
        if app.sha256 not in approved(self._approved):
            raise RequestError(
                f"the app {app.sha256} is not approved here. Read its scenario, then: fedprivseg deploy approve "
                f"{self._approved.parent} {app.sha256}"
            )
        if fault := app.fault():
            raise RequestError(fault)
        records = order.content.config_records
        if "order" not in records or records["order"].get("scenario") != app.scenario_digest:
            raise RequestError("the order is under another scenario than the one in the approved app")

    def _answer(self, reply: Message) -> None:
        """Put the reply where the node finds it: all of its parts first, so that the node never meets half of it."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        self._store.preregister(reply.metadata.run_id, get_object_tree(reply))
        for name, part in get_all_nested_objects(reply).items():
            self._store.put(name, part.deflate())
        self._state.record_message_processing_end(reply.metadata.reply_to_message_id)
        self._state.store_message(reply)


def _again(reply: Message, order: Message) -> Message:
    if reply.has_error():
        return Message(reply.error, reply_to=order)
    return Message(reply.content, reply_to=order)
