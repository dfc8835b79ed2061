"""The SuperLink of a consortium: Flower's own, on loopback, and what the operator asks of it there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar, final

import httpx
from flwr.common.constant import Status, SubStatus
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control.control_http_client import ControlHttpClient

from fedprivseg.core.errors import RunError
from fedprivseg.runtime.deployment.app_bundle import AppBundle
from fedprivseg.runtime.deployment.certificates import certified_key
from fedprivseg.runtime.deployment.kit import ServerKit

Answer = TypeVar("Answer")


def command(kit: ServerKit) -> list[str]:
    """The command that runs the SuperLink in the foreground. It starts no app itself: the server's task is taken by whoever
    knows the kit's secret."""
    beside = Path(sys.executable).with_name("flower-superlink")
    program = str(beside) if beside.exists() else shutil.which("flower-superlink") or "flower-superlink"
    return [
        program,
        "--host", "127.0.0.1",
        "--port", str(kit.deployment.link_port),
        "--ssl-ca-certfile", str(kit.authority),
        "--ssl-certfile", str(kit.certificate),
        "--ssl-keyfile", str(kit.tls_key),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
        "--isolation", "process",
        "--superexec-auth-secret-file", str(kit.secret),
        "--database", str(kit.database),
    ]  # fmt: skip


@final
class Link:
    """The operator's calls to the SuperLink of `kit`, on the server's own machine."""

    def __init__(self, kit: ServerKit) -> None:
        self.kit = kit
        self.address = f"127.0.0.1:{kit.deployment.link_port}"
        self.authority = kit.authority.read_bytes()
        self._control = ControlHttpClient.from_server_address(self.address, False, self.authority, ())

    def close(self) -> None:
        """Close the connection."""
        self._control.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def answers(self) -> bool:
        """Whether the SuperLink is there."""
        try:
            self._control.ListRuns(ListRunsRequest())
        except httpx.HTTPError:
            return False
        return True

    def nodes(self) -> list[NodeInfo]:
        """The registered nodes."""
        found = self._ask(lambda: self._control.ListNodes(ListNodesRequest())).nodes_info
        return [node for node in found if node.status != NodeStatus.UNREGISTERED]

    def runs(self) -> list[Run]:
        """The runs, the latest first."""
        found = self._ask(lambda: self._control.ListRuns(ListRunsRequest())).run_dict
        return sorted(found.values(), key=lambda run: run.pending_at, reverse=True)

    def register(self) -> None:
        """Have one node registered for each certified hospital, under its name and with the key in its certificate, and no
        other."""
        wanted = {site: certified_key(path) for site, path in self.kit.certified.items()}
        for node in self.nodes():
            if wanted.get(node.name) == node.public_key:
                del wanted[node.name]
            else:
                gone = UnregisterNodeRequest(node_id=node.node_id)
                self._ask(partial(self._control.UnregisterNode, gone))
        for site, key in wanted.items():
            asked = RegisterNodeRequest(public_key=key, name=site)
            self._ask(partial(self._control.RegisterNode, asked))

    def stop_runs(self) -> int:
        """Stop every run that is not over; how many."""
        going = [run.run_id for run in self.runs() if run.status.status != Status.FINISHED]
        for each in going:
            self._ask(partial(self._control.StopRun, StopRunRequest(run_id=each)))
        return len(going)

    def stopped(self, run_id: int) -> bool:
        """Whether somebody stopped the run."""
        return any(run.run_id == run_id and run.status.sub_status == SubStatus.STOPPED for run in self.runs())

    def start_run(self, app: AppBundle, content: bytes) -> int:
        """Submit an app; the run's id at the SuperLink.

        Args:
            app: what it says.
            content: its bytes.
        """
        asked = StartRunRequest(fab=Fab(hash_str=app.sha256, content=content))
        return int(self._ask(lambda: self._control.StartRun(asked)).run_id)

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except httpx.HTTPStatusError as fault:
            raise RunError(
                f"the SuperLink refused ({fault.response.status_code}): {fault.response.text[:300]}"
            ) from None
        except httpx.TransportError as fault:
            raise RunError(
                f"the SuperLink does not answer on {self.address} ({type(fault).__name__}); "
                "start it with `fedprivseg deploy server`"
            ) from None
