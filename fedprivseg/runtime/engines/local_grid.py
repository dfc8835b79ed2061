"""Flower's public `Grid` over sites whose folders this process knows: what the engines of a simulation have in common."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID: Final = 1
"""Flower's number of the run: there is one."""

SERVER_NODE: Final = 1


class LocalGrid(Grid, ABC):
    """A grid whose nodes are `sites` (their ``station.json`` files), in order, each with a state of its own."""

    def __init__(self, sites: Iterable[Path]) -> None:
        self._contexts = {
            node: Context(
                run_id=RUN_ID, node_id=node, node_config={"station": str(path)}, state=RecordDict(), run_config={}
            )
            for node, path in enumerate(sites, start=SERVER_NODE + 1)
        }
        # Flower's messages ask who they are from.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SERVER_NODE, 1

    def set_run(self, run: Run) -> None:
        """There is one run, and it is set already."""

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return Run.create_empty(run_id=RUN_ID)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Deprecated in Flower, kept because the interface asks for it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The node of each site."""
        return list(self._contexts)


def named(message: Message) -> str:
    """The id of `message`, which it gets here: what Flower's SuperLink does."""
    message.metadata.__dict__["_message_id"] = name = str(uuid4())
    return name


def server_context(folder: Path) -> Context:
    """Flower's context of the server of the run in `folder`."""
    return Context(
        run_id=RUN_ID, node_id=SERVER_NODE, node_config={}, state=RecordDict(), run_config={"run-folder": str(folder)}
    )
