"""All parties in one process, one after the other: for debugging, tests and small machines.

`InlineGrid` implements Flower's public `Grid` interface by calling the ClientApp directly, so the server program cannot tell
it from a real one. Orders and replies are the records of the wire; their bytes are handed over as they are, not copied.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import final

from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedprivseg.core.config import Scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.runtime.engines.local_grid import LocalGrid, named, server_context


@final
class InlineGrid(LocalGrid):
    """A grid whose nodes are calls of `app`, one for each of `sites` (their ``station.json`` files), in order."""

    def __init__(self, app: ClientApp, sites: Iterable[Path]) -> None:
        super().__init__(sites)
        self._app = app
        self._waiting: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take each message; its site carries it out when the reply is asked for."""
        pushed = {named(message): message for message in messages}
        self._waiting |= pushed
        return list(pushed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, one after the other: none is held here."""
        return [*self._carried_out(message_ids)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Carry out each message when its reply is asked for; a call cannot be cut short, so `timeout` has no effect."""
        for message in messages:
            yield from self._carried_out(self.push_messages([message]))

    def _carried_out(self, message_ids: Iterable[str]) -> Iterator[Message]:
        for name in message_ids:
            if (message := self._waiting.pop(name, None)) is not None:
                reply = self._app(message, self._contexts[message.metadata.dst_node_id])
                named(reply)
                yield reply


def run(folder: Path, scenario: Scenario, site_app: ClientApp, server_app: ServerApp) -> None:
    """Run the scenario prepared in `folder` to its end in this process; every site runs `site_app`."""

    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # strategies tell every round; progress is shown elsewhere
    grid = InlineGrid(site_app, [RunFolder(folder).site(site.name).configuration for site in scenario.sites])
    server_app(grid, server_context(folder))
