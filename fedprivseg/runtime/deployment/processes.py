"""Processes of a deployment: begun with what they may see of Flower's habits switched off, and gone with whoever began them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

from fedprivseg.core.errors import RunError

QUIET: Mapping[str, str] = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""What keeps Flower from calling anybody but the consortium's server."""

PRIVATE = 0o077
"""The umask: Flower writes its database, with messages in it, readable by everybody."""

_PATIENCE_S = 10.0
"""For so long a process may put its things in order."""

_SHOWN = 2_000
"""Characters of a log's end that an error shows."""


def environment(flower: Path) -> dict[str, str]:
    """The environment of a party's processes; `flower` is Flower's folder of that party."""
    return {**os.environ, **QUIET, "FLWR_HOME": str(flower)}


@final
class Child:
    """A process that this one began; it ends with this one, however that ends, where the system can arrange it."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        """Begin it.

        Args:
            name: what it is called in errors.
            command: its words.
            log: where what it prints goes, after what stands there.
            environ: its environment.
        """
        self.name, self._log = name, log
        guard = shutil.which("setpriv")
        words = [guard, "--pdeathsig", "TERM", "--", *command] if guard else [*command]
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environ, umask=PRIVATE,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.poll()

    def said(self) -> str:
        """The end of what it printed."""
        try:
            return self._log.read_text(errors="replace")[-_SHOWN:].strip()
        except OSError:
            return ""

    def ask_to_stop(self) -> None:
        """Tell it to end, and do not wait."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def stop(self) -> None:
        """End it, and whatever it began; a second call does nothing."""
        self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def stop_all(children: Sequence[Child]) -> None:
    """End all of them: each is told before any is waited for."""
    for child in children:
        child.ask_to_stop()
    for child in children:
        child.stop()


def until(ready: Callable[[], bool], children: Sequence[Child], seconds: float, what: str) -> None:
    """Wait for `ready`.

    Args:
        ready: tells whether it is.
        children: which must not end meanwhile.
        seconds: how long at most.
        what: what is waited for.

    Raises:
        RunError: one of them ended, or it took too long.
    """
    end = time.monotonic() + seconds
    while not ready():
        for child in children:
            if child.ended is not None:
                raise RunError(f"{child.name} ended with status {child.ended}: {child.said()}")
        if time.monotonic() > end:
            raise RunError(f"{what} took more than {seconds:.0f} s")
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Whether anybody listens on the port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of loopback on which nobody listens now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return tuple(probe.getsockname()[1] for probe in probes)
    finally:
        for probe in probes:
            probe.close()
