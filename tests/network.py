"""A line between two network namespaces, with a rate, a delay and losses, over which TCP really sends. Skips a test where
none can be made.

Where the kernel has netem, `tc netem` makes the line. Where it has not, and for losses, the two ends are TUN devices, and a
thread here carries the packets from one to the other: at the same rate, with the same delay, in a queue as long. Losses are one
packet in so many, evenly: netem's are drawn, and no formula knows the outcome of a few dozen draws.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

QUEUE = 1000
"""Packets that may wait for the line, as in netem."""

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000
_HERE, _THERE = "10.213.7.1", "10.213.7.2"

_RECEIVE = """
import socket, time
with socket.create_server(("0.0.0.0", 7007)) as server:
    print("ready", flush=True)
    connection, _ = server.accept()
    while connection.recv(1 << 16):
        last = time.monotonic()
print(last, flush=True)
"""
_SEND = """
import socket, sys, time
size, congestion = int(sys.argv[1]), sys.argv[2]
with socket.socket() as sender:
    sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    start = time.monotonic()
    sender.connect(("10.213.7.2", 7007))
    sender.sendall(bytes(size))
print(start, flush=True)
"""


@contextmanager
def line(mbit: float, round_trip_ms: float, loss: float = 0.0) -> Iterator[Line]:
    """A line whose ends are two namespaces, gone after the block; packets are lost on the way there alone."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need iproute2 and root")
    names = [f"fedprivseg-{os.getpid()}-{end}" for end in "ab"]
    with ExitStack() as stack:
        for name in names:
            if _run("ip", "netns", "add", name) is not None:
                pytest.skip("this machine lets nobody make a network namespace")
            stack.callback(_run, "ip", "netns", "del", name)
        if loss or not _by_netem(names, mbit, round_trip_ms):
            stack.enter_context(_by_relay(names, mbit, round_trip_ms, loss))
        yield Line(*names)


class Line:
    """A line between the namespaces `here` and `there`."""

    def __init__(self, here: str, there: str) -> None:
        self._here, self._there = here, there

    def seconds(self, size: int, congestion: str = "reno") -> float:
        """From the opening of a connection to the last of `size` bytes at the other end."""
        python = [sys.executable, "-S", "-c"]
        receiver = subprocess.Popen(
            ["ip", "netns", "exec", self._there, *python, _RECEIVE], stdout=subprocess.PIPE, text=True
        )
        with receiver:
            assert receiver.stdout.readline() == "ready\n"
            sent = subprocess.run(
                ["ip", "netns", "exec", self._here, *python, _SEND, str(size), congestion],
                check=True, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            return float(receiver.stdout.read()) - float(sent.stdout)


def _run(*words: str) -> str | None:
    """None if the command did what it should, otherwise what it said."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr


def _by_netem(names: list[str], mbit: float, round_trip_ms: float) -> bool:
    """Whether the kernel has netem; then the line is there."""
    ends = [f"fp{os.getpid() % 100_000}{end}" for end in "ab"]
    assert (
        _run("ip", "link", "add", ends[0], "netns", names[0], "type", "veth", "peer", ends[1], "netns", names[1])
        is None
    )
    shape = ["root", "netem", "delay", f"{round_trip_ms / 2:g}ms", "rate", f"{mbit:g}mbit", "limit", str(QUEUE)]
    for name, end, address in zip(names, ends, (_HERE, _THERE), strict=True):
        # One packet is one packet: netem would lose, and time, a bundle of them as one.
        for words in (
            ("link", "set", end, "mtu", "1500", "gso_max_segs", "1"),
            ("addr", "add", f"{address}/30", "dev", end),
            ("link", "set", end, "up"),
        ):
            assert _run("ip", "-n", name, *words) is None
        if (said := _run("tc", "-n", name, "qdisc", "add", "dev", end, *shape)) is not None:
            assert "unknown" in said or "not found" in said, said
            _run("ip", "-n", names[0], "link", "del", ends[0])
            return False
    return True


@contextmanager
def _by_relay(names: list[str], mbit: float, round_trip_ms: float, loss: float) -> Iterator[None]:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("the kernel has neither netem nor TUN devices")
    tuns = []
    for name, end, address in zip(names, "ab", (_HERE, _THERE), strict=True):
        device = f"fp{os.getpid() % 100_000}t{end}"
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        tuns.append(tun)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI))
        assert _run("ip", "link", "set", device, "netns", name) is None
        for words in (("addr", "add", f"{address}/30", "dev", device), ("link", "set", device, "up")):
            assert _run("ip", "-n", name, *words) is None
    ended = threading.Event()
    there = _Way(tuns[0], tuns[1], mbit, round_trip_ms, loss)
    back = _Way(tuns[1], tuns[0], mbit, round_trip_ms, 0.0)
    relay = threading.Thread(target=_carry, args=((there, back), ended), daemon=True)
    relay.start()
    try:
        yield
    finally:
        ended.set()
        relay.join()
        for tun in tuns:
            os.close(tun)


class _Way:
    """One direction: what was taken from one device and is due at the other."""

    def __init__(self, source: int, target: int, mbit: float, round_trip_ms: float, loss: float) -> None:
        self.source, self.target = source, target
        self._seconds, self._delay = 8 / (mbit * 1e6), round_trip_ms / 2000
        self._loss, self._carried = loss, 0.0
        self._free = 0.0
        self.due: list[tuple[float, int, bytes]] = []
        self._count = 0

    def take(self) -> None:
        """All packets that wait at the source."""
        while True:
            try:
                packet = os.read(self.source, 2048)
            except BlockingIOError:
                return
            now = time.monotonic()
            waiting = (self._free - now) / (self._seconds * 1500)
            self._carried += self._loss
            if waiting > QUEUE or self._carried >= 1:
                self._carried %= 1
                continue
            self._free = max(now, self._free) + len(packet) * self._seconds
            self._count += 1
            heapq.heappush(self.due, (self._free + self._delay, self._count, packet))

    def give(self) -> None:
        """All packets that are due."""
        while self.due and self.due[0][0] <= time.monotonic():
            os.write(self.target, heapq.heappop(self.due)[2])


def _carry(ways: tuple[_Way, ...], ended: threading.Event) -> None:
    while not ended.is_set():
        soon = min((way.due[0][0] for way in ways if way.due), default=time.monotonic() + 0.05)
        ready, _, _ = select.select([way.source for way in ways], [], [], max(0.0, soon - time.monotonic()))
        for way in ways:
            if way.source in ready:
                way.take()
            way.give()
