"""How long a payload takes over a line: slow start, then the line's own rate, or less where packets are lost.

The sender opens a connection, starts with ten segments (RFC 6928) and doubles with every round trip until the line is full or
a packet is lost (RFC 5681; Cardwell, Savage and Anderson, "Modeling TCP latency", INFOCOM 2000, section 3.1). With ``1/p``
packets from one loss to the next, each loss halves the window, which grows by a segment a round trip. So it settles at a mean
of ``sqrt(3/2p)`` segments a round trip, in cycles of ``sqrt(2/3p)`` round trips (Mathis, Semke, Mahdavi and Ott, "The
macroscopic behavior of the TCP congestion avoidance algorithm", Computer Communication Review 27(3), 1997, equations 1 to 3).
One more passes in fast recovery (Padhye, Firoiu, Towsley and Kurose, "Modeling TCP throughput", SIGCOMM 1998, section 2.1).

What it leaves out: time-outs, which make losses above two in a hundred worse than said here; senders that do not slow down for
a loss (BBR), which fare better; the server's own line, on which sites may meet; proxies.
"""

from __future__ import annotations

import math
from typing import final

from fedprivseg.core.model import Frozen

SEGMENT = 1448
"""Bytes of a payload in one packet: 1,500 less the headers of IP and TCP (20 each) and TCP's time stamps (12)."""

PACKET = 1500
"""Bytes of that packet, which the rate of a line counts."""

FIRST_WINDOW = 10 * SEGMENT
"""Bytes that a sender sends before it hears anything (RFC 6928)."""

ROUND_TRIPS = 2
"""Before the first byte of a payload: TCP's handshake and that of TLS 1.3 (RFC 8446)."""

RECOVERY = 1
"""Round trips that pass after a loss before the window grows again."""


@final
class Line(Frozen):
    """One direction between a site and the server.

    Attributes:
        mbit: rate, Mbit/s.
        round_trip_s: seconds there and back.
        loss: share of packets that are lost, 0 to below 1.
    """

    mbit: float
    round_trip_s: float
    loss: float

    @property
    def carried(self) -> float:
        """Payload bytes a second that the line carries."""
        return self.mbit * 1e6 / 8 * SEGMENT / PACKET * (1 - self.loss)

    @property
    def settled(self) -> float:
        """Payload bytes a second of a long transfer: what the line carries, or what losses leave of it."""
        if not self.loss or not self.round_trip_s:
            return self.carried
        cycle = math.sqrt(2 / (3 * self.loss)) + RECOVERY  # round trips from one loss to the next
        return min(self.carried, SEGMENT / self.loss / (cycle * self.round_trip_s))

    def seconds(self, size: int, round_trips: int = ROUND_TRIPS) -> float:
        """From the opening of a connection to the last byte at the other end.

        Args:
            size: of the payload, bytes. Nothing to send takes no time.
            round_trips: that pass before its first byte.
        """
        if not size:
            return 0.0
        between = SEGMENT / self.loss if self.loss else math.inf
        window, sent, seconds = float(FIRST_WINDOW), 0.0, (round_trips + 0.5) * self.round_trip_s
        while window < self.carried * self.round_trip_s and sent + window < min(size, between):
            sent, window, seconds = sent + window, 2 * window, seconds + self.round_trip_s
        left, lossless = size - sent, between - sent
        while (rate := min(self.carried, window / (self.round_trip_s or 1))) > self.settled and left > lossless:
            left, seconds = left - lossless, seconds + lossless / rate
            window, lossless = window / 2, between
        return seconds + left / max(rate, self.settled)
