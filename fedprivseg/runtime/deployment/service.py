"""The server's side of a consortium, running: the SuperLink and the TLS terminator before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from fedprivseg.runtime.deployment import superlink, terminator
from fedprivseg.runtime.deployment.kit import ServerKit
from fedprivseg.runtime.deployment.processes import Child, environment, listens, until

_START_S = 120.0


@contextmanager
def service(kit: ServerKit, address: str = "0.0.0.0") -> Iterator[list[Child]]:
    """Run the server's processes, gone at the end of the block.

    Args:
        kit: the operator's folder.
        address: on which the terminator listens.

    Raises:
        RequestError: nginx is not installed.
        RunError: one of them does not start.
    """
    kit.path.chmod(0o700)
    terminator.write_configuration(kit, address)
    words = terminator.command(kit)
    with ExitStack() as stack:
        link = start_superlink(kit)
        stack.callback(link.stop)
        with superlink.Link(kit) as calls:
            until(lambda: calls.answers, [link], _START_S, "the SuperLink")
            calls.register()
        front = Child("the TLS terminator", words, kit.logs / "terminator.log", environment(kit.flower))
        stack.callback(front.stop)
        port = kit.deployment.port
        until(lambda: listens(port), [link, front], _START_S, "the TLS terminator")
        yield [link, front]


def start_superlink(kit: ServerKit) -> Child:
    """Begin the SuperLink; it goes on with the database that is there."""
    kit.flower.mkdir(exist_ok=True)
    return Child("the SuperLink", superlink.command(kit), kit.logs / "superlink.log", environment(kit.flower))


def attend(children: list[Child]) -> None:
    """Wait until one of the server's processes ends, which it should not.

    Raises:
        RunError: always, and says which ended.
    """
    until(lambda: False, children, float("inf"), "the server")
