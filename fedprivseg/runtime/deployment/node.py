"""A hospital's SuperNode: Flower's own loop, with the hospital's certificate, without its pauses, and with a warm executor.

Flower's SuperNode presents no client certificate and sleeps for 3 s when there is nothing to do; both stand in functions that
it lets nobody choose, which is why Flower is pinned to one minor version (tests run this).
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any, final

from fedprivseg.core.errors import RequestError, RunError
from fedprivseg.runtime.deployment.certificates import read_key
from fedprivseg.runtime.deployment.kit import HospitalKit
from fedprivseg.runtime.deployment.processes import PRIVATE, QUIET

if TYPE_CHECKING:  # Flower takes seconds
    from fedprivseg.runtime.deployment.admission import Admission

PROGRAM = "fedprivseg.runtime.site.client_app:app"
"""The program of a hospital."""

POLL_S, LONGEST_POLL_S, SHARE = 0.1, 1.0, 0.05
"""How often the node asks for an order, in seconds: after a `SHARE` of the time since the last."""

_IDLE = 1.0
"""Flower's pause when there was no order is longer than this, that while an order is carried out is shorter."""


@final
@dataclass
class _Pauses:
    """What takes the place of Flower's pauses."""

    last: float = 0.0

    def sleep(self, seconds: float) -> None:
        """Wait for as long as it pays."""
        now = time.monotonic()
        if seconds < _IDLE:
            self.last = now
            time.sleep(POLL_S / 2)
        else:
            time.sleep(min(max(POLL_S, SHARE * (now - self.last)), LONGEST_POLL_S))


def run(kit: HospitalKit, station: Path, program: str = PROGRAM) -> None:
    """Run the node until it is stopped; it does not return.

    Args:
        kit: the hospital's folder.
        station: the site's configuration.
        program: what carries out orders, as ``module:name``.

    Raises:
        RequestError: the key or the certificate is missing, or the server is another.
        RunError: the server turned it away.
    """
    private = read_key(kit.key)
    if not kit.certificate.exists():
        raise RequestError(
            f"{kit.certificate.name} is missing: send {kit.request.name} to the operator, and put here what comes back"
        )
    os.umask(PRIVATE)
    kit.flower.mkdir(exist_ok=True)
    os.environ.update({**QUIET, "FLWR_HOME": str(kit.flower)})
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("fedprivseg").addHandler(handler)  # Flower's logger has one of its own
    app = resolve_name(program)  # torch, once

    from flwr.common.constant import ISOLATION_MODE_PROCESS
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supernode import start_client_internal as flower
    from flwr.supernode.nodestate import NodeStateFactory

    from fedprivseg.runtime.deployment.admission import Admission
    from fedprivseg.runtime.deployment.executor import WarmExecutor

    admission = Admission(kit, private)
    _stop_at_once(admission)
    admission.enter()
    _certify(admission.context)
    # Flower would put its own there, which take ten seconds.
    flower.register_signal_handlers = lambda **_: None
    flower.time = SimpleNamespace(sleep=_Pauses(time.monotonic()).sleep)  # type: ignore[assignment]
    states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    WarmExecutor(states.state(), states.objectstore_factory.store(), app, kit.approved).start()
    flower.start_client_internal(
        state_factory=states,
        server_address=kit.invitation.server,
        node_config={"station": str(station.resolve())},
        root_certificates=kit.authority.read_bytes(),
        insecure=False,
        authentication_keys=(private, private.public_key()),
        isolation=ISOLATION_MODE_PROCESS,
    )
    raise RunError("the node has lost the server; start it again")


def _stop_at_once(admission: Admission) -> None:
    """Have a signal end the process: an order that is under way is sent again when the node is back."""

    def leave(number: int, _: FrameType | None) -> None:
        admission.leave()
        os._exit(128 + number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, leave)


def _certify(context: ssl.SSLContext) -> None:
    """Have Flower's client speak TLS as `context` does."""
    from flwr.supernode import fleet_http_connection
    from flwr.supernode.fleet_http_client import FleetHttpClient

    def from_server_address(
        server_address: str, insecure: bool, root_certificates: Any, interceptors: Sequence[Any]
    ) -> FleetHttpClient:
        return FleetHttpClient(f"https://{server_address}", interceptors=interceptors, verify=context)

    certified: Callable[..., FleetHttpClient] = from_server_address
    fleet_http_connection.FleetHttpClient = SimpleNamespace(from_server_address=certified)  # type: ignore[misc,assignment]


def main() -> None:
    """A node as a process of its own: ``python -m fedprivseg.runtime.deployment.node KIT STATION PROGRAM``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kit", type=Path)
    parser.add_argument("station", type=Path)
    parser.add_argument("program", nargs="?", default=PROGRAM)
    asked = parser.parse_args()
    run(HospitalKit(asked.kit), asked.station, asked.program)


if __name__ == "__main__":
    main()
