"""A hospital's SuperNode: Flower's own loop, with the hospital's certificate, without its pauses, and with a warm executor.

Flower's SuperNode presents no client certificate and sleeps for 3 s when there is nothing to do; both stand in functions that
it lets nobody choose, which is why Flower is pinned to one minor version (tests run this).
"""

from __future__ import annotations

import argparse
import logging
import os
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any, final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_text
from fedprivseg.runtime.deployment.certificates import public_pem, read_key
from fedprivseg.runtime.deployment.kit import HospitalKit
from fedprivseg.runtime.deployment.processes import PRIVATE, QUIET

PROGRAM = "fedprivseg.runtime.site.client_app:app"
"""The program of a hospital."""

POLL_S, LONGEST_POLL_S, SHARE = 0.1, 1.0, 0.05
"""How often the node asks for an order, in seconds: after a `SHARE` of the time since the last."""

_ADMISSION_S = 1.0
_log = logging.getLogger(__name__)

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
        RequestError: the key or the certificate is missing.
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

    from fedprivseg.runtime.deployment.executor import WarmExecutor

    context = _context(kit)
    _admit(kit, private, context)
    _certify(context)
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


def _context(kit: HospitalKit) -> ssl.SSLContext:
    """TLS as the hospital speaks it: with its own certificate, to a server that the consortium's authority has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(kit.authority)
    context.load_cert_chain(kit.certificate, kit.key)
    return context


def _admit(kit: HospitalKit, private: EllipticCurvePrivateKey, context: ssl.SSLContext) -> None:
    """Wait until the server knows the node. One that was killed counts as online for a minute, and Flower would not let it in
    for so long: it logs the one before it off first.

    Raises:
        RequestError: the server is not the one that the consortium's authority has signed.
    """
    import httpx
    from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
    from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    own: list[Any] = [
        RuntimeVersionHttpInterceptor("SuperNode"),
        NodeAuthHttpInterceptor(private, private.public_key()),
    ]
    asked = ActivateNodeRequest(
        public_key=public_pem(private.public_key()), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
    )
    said = ""
    with FleetHttpClient(f"https://{kit.invitation.server}", interceptors=own, verify=context) as client:
        while True:
            try:
                if kit.number.exists():
                    with suppress(httpx.HTTPStatusError):
                        client.DeactivateNode(DeactivateNodeRequest(node_id=int(kit.number.read_text())))
                number = client.ActivateNode(asked).node_id
                write_text(kit.number, str(number))
                client.DeactivateNode(DeactivateNodeRequest(node_id=number))
                return
            except httpx.HTTPStatusError as fault:
                why = f"the server does not know this node yet ({fault.response.status_code})"
            except httpx.TransportError as fault:
                why = f"the server does not answer on {kit.invitation.server} ({type(fault).__name__})"
                if "CERTIFICATE_VERIFY_FAILED" in str(fault):
                    raise RequestError(
                        f"what answers on {kit.invitation.server} is not the server of this study: its certificate is not "
                        "signed by the authority in this folder. Tell the operator"
                    ) from None
            if why != said:
                _log.warning("%s; tried again until it does", why)
            said = why
            time.sleep(_ADMISSION_S)


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
