"""All parties in one process, one after the other: for debugging, tests and small machines.

`InlineGrid` implements Flower's public `Grid` interface by calling the ClientApp directly, so the server program cannot tell
it from a real one. Orders still pass the wire format: nothing is handed over by reference.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedprivseg.core.config import Scenario
from fedprivseg.core.runfolder import RunFolder

_RUN_ID = 1


class InlineGrid(Grid):
    """A grid whose nodes are calls of `app`, one for each of `sites` (their ``station.json`` files), in order."""

    def __init__(self, app: ClientApp, sites: Iterable[Path]) -> None:
        self._app = app
        self._contexts = {
            node: Context(
                run_id=_RUN_ID, node_id=node, node_config={"station": str(path)}, state=RecordDict(), run_config={}
            )
            for node, path in enumerate(sites, start=2)
        }
        self._replies: dict[str, Message] = {}
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN_ID, 1, 1

    def set_run(self, run: Run) -> None:
        """There is one run, and it is set already."""

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return Run.create_empty(run_id=_RUN_ID)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Deprecated in Flower, kept because the interface asks for it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The node of each site."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Carry out each message at once; its reply waits for `pull_messages`."""
        pushed = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = name = str(uuid4())
            reply = self._app(message, self._contexts[message.metadata.dst_node_id])
            reply.metadata.__dict__["_message_id"] = str(uuid4())
            self._replies[name] = reply
            pushed.append(name)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Carry out each message and return the replies; a call cannot be cut short, so `timeout` has no effect."""
        return self.pull_messages(self.push_messages(messages))


def run(folder: Path, scenario: Scenario, site_app: ClientApp, server_app: ServerApp) -> None:
    """Run the scenario prepared in `folder` to its end in this process; every site runs `site_app`."""

    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # strategies tell every round; progress is shown elsewhere
    grid = InlineGrid(site_app, [RunFolder(folder).site(site.name).configuration for site in scenario.sites])
    context = Context(
        run_id=_RUN_ID, node_id=1, node_config={}, state=RecordDict(), run_config={"run-folder": str(folder)}
    )
    server_app(grid, context)
