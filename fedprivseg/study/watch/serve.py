"""Listening on this machine alone, until stopped."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from fedprivseg.core.errors import RequestError
from fedprivseg.study.watch.progress_now import Watcher, run_folder
from fedprivseg.study.watch.web_app import web_app

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Watch:
    """A page that is about to be served.

    Attributes:
        address: of the page.
        metrics: of the metrics for Prometheus, which asks for the token as a bearer token.
        token: that the page's address holds.
        server: serves it when it is run.
        listener: where.
    """

    address: str
    metrics: str
    token: str
    server: uvicorn.Server
    listener: socket.socket

    def run(self) -> None:
        """Serve it until the process is stopped."""
        self.server.run(sockets=[self.listener])


@contextmanager
def watch(folder: Path, port: int = 0) -> Iterator[Watch]:
    """The page of the run in `folder`.

    Args:
        folder: of a run, or of a deployment's operator.
        port: on loopback; 0 for any that is free.

    Raises:
        FolderError: there is no run.
        RequestError: the port is taken.
    """
    run = run_folder(folder)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen()  # so that whoever is told the address may ask at once
        except OSError as fault:
            raise RequestError(
                f"--port {port}: {fault.strerror}; choose another, or none for any that is free"
            ) from None
        port, token = listener.getsockname()[1], secrets.token_urlsafe(32)
        app = web_app(Watcher(run), token, frozenset(f"{host}:{port}" for host in (LOOPBACK, "localhost")))
        # Its log of requests would hold the token.
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=1
        )
        place = f"http://{LOOPBACK}:{port}"
        yield Watch(f"{place}/{token}/", f"{place}/metrics", token, uvicorn.Server(config), listener)
