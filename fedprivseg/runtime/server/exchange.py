"""Orders out, replies in, one by one: the loop between a server and its nodes, over any Flower `Grid`.

A reply is handed on as it comes and not kept, so that memory does not grow with the number of nodes. An error of Flower's (a
node that is away, a program that crashed) is no reply: the order is sent again, later each time. Nor is one that its site did
not sign: it may have been changed or put there on its way, so the site is asked again before it is blamed. The first reply that
counts is the only one; whatever comes twice, or late, or from a node that was not asked, is not heard.

Waiting goes by a clock that never jumps. (Flower's own loop goes by the time of day, and collects all replies first.)
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import final

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedprivseg.core.errors import PayloadError
from fedprivseg.core.stage_config import Terms
from fedprivseg.runtime.wire import MESSAGE_TYPE, Reply, read_reply

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 60.0
"""How long a server waits before it sends an order again, in seconds: twice as long each time, up to the longest."""

POLL_S, LONGEST_POLL_S = 0.02, 0.1
"""How often a server looks for replies, in seconds: less often while none comes."""

LEAST_TTL_S = 43_200.0
"""Flower keeps a message at least so long, which is its own default: a reply after the deadline harms nobody."""

NODE_UNAVAILABLE = 5
"""Flower's error code of a node that is away."""


class Silence(StrEnum):
    """Why nothing came of a node; the values say it to people."""

    DEADLINE = "gave no answer to {action!r} within {terms.deadline_s:g} s"
    LEFT_BEHIND = (
        "was left behind in {action!r}: no answer {terms.stragglers_s:g} s after the quorum of {terms.quorum} had one"
    )


Heard = Reply | PayloadError | Silence | int
"""What came of a node: its reply, why that is none, why there is nothing, or Flower's error code."""

Content = Callable[[], RecordDict]
"""Makes an order for one node, when it is sent."""


@dataclass
class _Asked:
    """A node that was sent an order and has not answered yet. ids: its messages under way. due: when it is sent the order
    again, None for never. fault: Flower's last error code, or the last reply that is from somebody else."""

    content: Content
    until: float
    ids: set[str] = field(default_factory=set)
    sent: int = 0
    due: float | None = None
    fault: Reply | PayloadError | int | None = None


@final
class Exchange:
    """Exchanges over one grid.

    Args:
        grid: the grid.
        at_once: most nodes that have an order at a time; None: all. A simulation carries out a few at once, and what waits
            for it would lie in memory.
        clock: seconds; it never goes back.
        sleep: waits so many seconds.

    Attributes:
        waited_s: seconds spent on waiting for nodes so far, and on sending to them.
    """

    def __init__(
        self,
        grid: Grid,
        at_once: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._grid, self._at_once, self._clock, self._sleep = grid, at_once, clock, sleep
        self.waited_s = 0.0

    def replies(
        self,
        contents: Mapping[int, Content],
        terms: Terms,
        answered: Callable[[], int],
        credible: Callable[[int, Reply | PayloadError], bool] = lambda node, reply: True,
    ) -> Iterator[tuple[int, Heard]]:
        """What comes of each node that is asked, as it comes: of every one once.

        Args:
            contents: what goes to each node.
            terms: how long the server waits, and how often it asks.
            answered: how many sites have answered well so far.
            credible: whether a reply is from whom it should be; for one that is not the order is sent again, as after an error,
                and the last one is handed out as it is.
        """
        found = self._replies(contents, terms, answered, credible)
        while True:
            start = self._clock()
            one = next(found, None)
            self.waited_s += self._clock() - start
            if one is None:
                return
            yield one

    def _replies(
        self,
        contents: Mapping[int, Content],
        terms: Terms,
        answered: Callable[[], int],
        credible: Callable[[int, Reply | PayloadError], bool],
    ) -> Iterator[tuple[int, Heard]]:
        fresh, busy, patience, pause = deque(contents.items()), dict[int, _Asked](), None, POLL_S
        while fresh or busy:
            self._push(fresh, busy, terms)
            came, looked = False, self._clock()
            for node, message in self._pull(busy):
                if message.has_error():
                    self._erred(busy[node], message.error.code, terms)
                    continue
                reply = _read(message)
                if busy[node].sent < terms.attempts and not credible(node, reply):
                    self._erred(busy[node], reply, terms)
                    continue
                del busy[node]
                came = True
                yield node, reply
            now = self._clock()
            if patience is None and terms.stragglers_s is not None and answered() >= terms.quorum:
                patience = now + terms.stragglers_s
            for node, one in list(busy.items()):
                if (end := _ended(one, now, patience)) is not None:
                    del busy[node]
                    came = True
                    yield node, end
            if came:
                pause = POLL_S
            else:
                self._sleep(max(0.0, pause - (self._clock() - looked)))  # some grids wait themselves
                pause = min(1.2 * pause, LONGEST_POLL_S)

    def _push(self, fresh: deque[tuple[int, Content]], busy: dict[int, _Asked], terms: Terms) -> None:
        """Send what is due: orders again, then new ones as far as there is room."""
        now = self._clock()
        for node, one in busy.items():
            if one.due is not None and now >= one.due:
                self._send(node, one, terms)
        while fresh and (self._at_once is None or len(busy) < self._at_once):
            node, content = fresh.popleft()
            busy[node] = _Asked(content, self._clock() + terms.deadline_s)
            self._send(node, busy[node], terms)

    def _send(self, node: int, one: _Asked, terms: Terms) -> None:
        message = Message(one.content(), node, MESSAGE_TYPE, ttl=max(terms.deadline_s, LEAST_TTL_S))
        ids = [name for name in self._grid.push_messages([message]) if name]
        one.sent += 1
        one.ids.update(ids)
        if not ids:
            self._erred(one, NODE_UNAVAILABLE, terms)
        else:
            again = terms.resend_s is not None and one.sent < terms.attempts
            one.due = self._clock() + terms.resend_s if again and terms.resend_s is not None else None

    def _pull(self, busy: Mapping[int, _Asked]) -> Iterator[tuple[int, Message]]:
        """The first reply of each node for which one has come; errors as they are."""
        whose = {name: node for node, one in busy.items() for name in one.ids}
        if not whose:
            return
        came = deque(self._grid.pull_messages(list(whose)))
        while came:
            message = came.popleft()
            node = whose.get(message.metadata.reply_to_message_id)
            if node is None or node not in busy or message.metadata.src_node_id != node:
                continue
            busy[node].ids.discard(message.metadata.reply_to_message_id)
            yield node, message

    def _erred(self, one: _Asked, fault: Reply | PayloadError | int, terms: Terms) -> None:
        """Note what is no reply, and when the order is sent again, if it is."""
        pause = min(FIRST_PAUSE_S * 2 ** (one.sent - 1), LONGEST_PAUSE_S)
        one.fault = fault
        one.due = self._clock() + pause if one.sent < terms.attempts else None


def _ended(one: _Asked, now: float, patience: float | None) -> Heard | None:
    """What is heard of a node of which nothing more is to be waited for; None while something may come."""
    if one.fault is not None and one.due is None and not one.ids:
        return one.fault
    if now >= one.until:
        return Silence.DEADLINE if one.fault is None else one.fault
    return Silence.LEFT_BEHIND if patience is not None and now >= patience else None


def _read(message: Message) -> Reply | PayloadError:
    try:
        return read_reply(message.content)
    except PayloadError as fault:
        return fault
