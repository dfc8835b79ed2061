"""Standard input, output and errors that never stop a command: a run does not train for hours for the reader of its words.

A shell may start a command with a stream closed (``>&-``), a reader may leave (``| head``), a log's disk may fill up. Ray's
workers and the display write from threads and processes of their own, where no handler around the command would see it.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO, final


@final
class Outlet(io.FileIO):
    """The standard stream `descriptor`, for writing. The first write that fails is kept as ``fault``; that one and all
    later ones go nowhere, also those of C code."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.fault: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write `data` (bytes); returns how many bytes were taken, which is all of them once the stream has failed."""
        try:
            return super().write(data)
        except OSError as fault:
            self.fault = fault
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes

    @property
    def lost(self) -> str:
        """Why somebody did not get what was written; empty if nothing failed, or if it was the reader who left."""
        return "" if self.fault is None or self.fault.errno == errno.EPIPE else str(self.fault.strerror)


def open_streams() -> Outlet:
    """Put ``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` in order; returns the outlet under ``sys.stdout``.

    Streams that are closed lead nowhere afterwards, so that no file of a run is opened under their numbers and written to by
    whoever prints. What an encoding cannot express is printed as escapes, such as ``\\u6570``.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest free number: this one
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    out, sys.stdout = _outlet(1, sys.stdout)
    _, sys.stderr = _outlet(2, sys.stderr)
    return out


def _outlet(descriptor: int, before: TextIO | None) -> tuple[Outlet, TextIO]:
    outlet = Outlet(descriptor)
    if before is not None:
        before.flush()
    text = io.TextIOWrapper(
        io.BufferedWriter(outlet),
        encoding=before.encoding if before is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or outlet.isatty(),
    )
    return outlet, text
