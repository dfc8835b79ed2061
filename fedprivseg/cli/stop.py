"""Signals that end a command as Ctrl-C does: SIGTERM (``kill``, ``timeout``, a batch system), SIGHUP (a closed terminal)."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import final

_AGAIN_S = 10.0
"""For so long a signal that comes again is taken for the same: ``timeout`` and systemd send it more than once, and the second
must not cut short what the first one began."""


@final
class Stop:
    """From `listen` on a signal raises KeyboardInterrupt in the main thread, so that every block is left in order: Ray is taken
    down, drafts are removed.

    Attributes:
        signal: which came, None if none did or it was Ctrl-C.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at = float("-inf")

    def listen(self) -> None:
        """Begin to listen, except to what this process was started to ignore (``nohup``). Ctrl-C stays as Python has it."""
        for each in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() < self._at + _AGAIN_S:
            return
        self.signal, self._at = number, time.monotonic()
        raise KeyboardInterrupt
