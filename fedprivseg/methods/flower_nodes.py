"""What a strategy of Flower is shown of the sites of a round: nodes 1, 2, 3... in the order of the sites' names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from flwr.app import Message
from flwr.serverapp import Grid


@final
class Nodes(Grid):
    """As much of a grid as a strategy asks for while it configures a round: how many nodes there are."""

    def __init__(self, count: int) -> None:
        self._count = count

    def get_node_ids(self) -> Iterable[int]:
        """Numbers from 1 on."""
        return list(range(1, self._count + 1))

    def set_run(self, run: Any) -> None:
        """No strategy does."""
        raise NotImplementedError("a strategy does not set runs")

    @property
    def run(self) -> Any:
        """No strategy asks."""
        raise NotImplementedError("a strategy does not ask for the run")

    def create_message(self, *_: Any, **__: Any) -> Message:
        """No strategy does."""
        raise NotImplementedError("a strategy does not create messages by the grid")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """No strategy does."""
        raise NotImplementedError("the federation sends, not the strategy")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """No strategy does."""
        raise NotImplementedError("the federation receives, not the strategy")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """No strategy does."""
        raise NotImplementedError("the federation sends and receives, not the strategy")
