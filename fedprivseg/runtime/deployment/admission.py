"""How a hospital's node comes in and goes: with its certificate, and at once, also after it was killed.

One that was killed counts as online for a minute, and Flower lets no node in that is online; so a node logs off the one before
it.
"""

from __future__ import annotations

import logging
import ssl
import time
from contextlib import suppress
from typing import Any, final

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_text
from fedprivseg.runtime.deployment.certificates import public_pem
from fedprivseg.runtime.deployment.kit import HospitalKit

_PAUSE_S = 1.0
_GOODBYE_S = 2.0
_log = logging.getLogger(__name__)


@final
class Admission:
    """The coming and going of the node of `kit`, whose key is `private`.

    Attributes:
        context: TLS as the hospital speaks it: with its own certificate, to a server that the authority has signed.
    """

    def __init__(self, kit: HospitalKit, private: EllipticCurvePrivateKey) -> None:
        self._kit, self._private = kit, private
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.load_verify_locations(kit.authority)
        self.context.load_cert_chain(kit.certificate, kit.key)

    def enter(self) -> None:
        """Wait until the server lets the node in, for as long as that takes.

        Raises:
            RequestError: what answers is not the server of this study.
        """
        said = ""
        with self._client() as client:
            while (why := self._tried(client)) is not None:
                if why != said:
                    _log.warning("%s; tried again until it does", why)
                said = why
                time.sleep(_PAUSE_S)

    def leave(self) -> None:
        """Tell the server that the node goes, if it listens."""
        with suppress(Exception), self._client(_GOODBYE_S) as client:
            self._deactivate(client)

    def _tried(self, client: FleetHttpClient) -> str | None:
        """Why the server does not let the node in; None if it does. It is logged off again: Flower's loop logs on itself."""
        server = self._kit.invitation.server
        asked = ActivateNodeRequest(
            public_key=public_pem(self._private.public_key()), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        try:
            with suppress(httpx.HTTPStatusError):
                self._deactivate(client)
            write_text(self._kit.number, str(client.ActivateNode(asked).node_id))
            self._deactivate(client)
        except httpx.HTTPStatusError as fault:
            return f"the server does not know this node yet ({fault.response.status_code})"
        except httpx.TransportError as fault:
            if "CERTIFICATE_VERIFY_FAILED" in str(fault):
                raise RequestError(
                    f"what answers on {server} is not the server of this study: its certificate is not signed by the authority "
                    "in this folder. Tell the operator"
                ) from None
            return f"the server does not answer on {server} ({type(fault).__name__})"
        return None

    def _deactivate(self, client: FleetHttpClient) -> None:
        if self._kit.number.exists():
            client.DeactivateNode(DeactivateNodeRequest(node_id=int(self._kit.number.read_text())))

    def _client(self, timeout: float = 30.0) -> FleetHttpClient:
        own: list[Any] = [
            RuntimeVersionHttpInterceptor("SuperNode"),
            NodeAuthHttpInterceptor(self._private, self._private.public_key()),
        ]
        address = f"https://{self._kit.invitation.server}"
        return FleetHttpClient(address, interceptors=own, verify=self.context, timeout=timeout)
