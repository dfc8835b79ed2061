"""The loop of orders and replies, over a grid that does what a script says and by a clock that a test sets."""

from __future__ import annotations

import itertools

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedprivseg.core.errors import PayloadError
from fedprivseg.core.stage_config import Terms
from fedprivseg.runtime.server.exchange import FIRST_PAUSE_S, NODE_UNAVAILABLE, Exchange, Silence
from fedprivseg.runtime.wire import Failed, write_reply

GONE = Error(NODE_UNAVAILABLE, "away")


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Scripted:
    """A grid. script: node -> what becomes of each order that it gets, one after the other: a list of (seconds until it comes,
    content or error), a number of copies of the right reply, or None for an order that cannot be pushed."""

    def __init__(self, clock: Clock, script) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.clock, self.script = clock, {node: iter(steps) for node, steps in script.items()}
        self.count, self.coming, self.pushed, self.most = itertools.count(), [], [], 0

    def push_messages(self, messages):
        names = []
        for message in messages:
            node = message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = name = f"order-{next(self.count)}"
            self.pushed.append((node, round(self.clock.now, 6)))
            step = next(self.script[node], [])
            if step is None:
                return [""]
            step = [(0.0, right(node))] * step if isinstance(step, int) else step
            self.coming += [(self.clock.now + after, name, message, what) for after, what in step]
            names.append(name)
        return names

    def pull_messages(self, message_ids):
        self.most = max(self.most, len(message_ids))
        due = [each for each in self.coming if each[0] <= self.clock.now and each[1] in message_ids]
        self.coming = [each for each in self.coming if each not in due]
        replies = []
        for _, name, message, what in due:
            reply = Message(what, reply_to=message)
            reply.metadata.__dict__["_message_id"] = f"reply-{name}"
            replies.append(reply)
        return replies


def right(node):
    return write_reply(Failed(f"centre{node}", "KeyError", "1f"))


def exchange(script, terms=None, at_once=None):
    """What came of each node, in the order in which it came; and the grid."""
    clock = Clock()
    grid = Scripted(clock, script)
    heard = []
    loop = Exchange(grid, at_once, clock, clock.sleep)
    contents = {node: lambda: RecordDict({"order": ConfigRecord({"action": "fit"})}) for node in script}
    for each in loop.replies(contents, terms or Terms(10.0, 1), lambda: len(heard)):
        heard.append(each)
    return dict(heard), grid, clock


def test_a_reply_that_comes_twice_is_one_and_each_node_is_heard_once():
    heard, grid, _ = exchange({2: [2], 3: [1]})
    assert {node: reply.site for node, reply in heard.items()} == {2: "centre2", 3: "centre3"}
    assert len(grid.pushed) == 2


def test_an_error_is_no_reply_and_the_order_is_sent_again_later_each_time():
    heard, grid, _ = exchange({2: [[(0.0, GONE)], None, 1]})
    assert heard[2].site == "centre2"
    times = [at for _, at in grid.pushed]
    assert times[1] - times[0] == pytest.approx(FIRST_PAUSE_S, abs=0.15)
    assert times[2] - times[1] == pytest.approx(2 * FIRST_PAUSE_S, abs=0.15)


@pytest.mark.parametrize("code", [2, 3, 4, 5, 7, 8])
def test_errors_to_the_end_are_an_error_and_nobody_elses(code):
    heard, grid, _ = exchange({2: [[(0.0, Error(code, "why"))]] * 5, 3: [1]}, Terms(10.0, 1, attempts=3))
    assert heard[2] == code
    assert heard[3].site == "centre3"
    assert [node for node, _ in grid.pushed].count(2) == 3


def test_an_order_that_cannot_be_pushed_is_that_of_a_node_that_is_away():
    assert exchange({2: [None] * 5})[0] == {2: NODE_UNAVAILABLE}


def test_silence_ends_with_the_deadline_and_an_error_before_it_is_told():
    heard, _, clock = exchange({2: [[]], 3: [[(0.0, GONE)], []]})
    assert heard == {2: Silence.DEADLINE, 3: NODE_UNAVAILABLE}
    assert clock.now == pytest.approx(10.0, abs=0.2)


def test_a_lost_order_is_sent_again_if_the_terms_say_so():
    heard, grid, clock = exchange({2: [[], [], 1]}, Terms(10.0, 1, resend_s=2.0))
    assert heard[2].site == "centre2"
    assert clock.now == pytest.approx(4.0, abs=0.5)
    assert len(grid.pushed) == 3
    assert exchange({2: [[], [], 1]})[0] == {2: Silence.DEADLINE}


def test_what_comes_of_either_of_two_orders_counts_and_the_other_is_not_heard():
    heard, _, _ = exchange(
        {2: [[(3.0, right(2))], [(5.0, right(2))]], 3: [[(9.0, right(3))]]}, Terms(10.0, 1, resend_s=2.0)
    )
    assert set(heard) == {2, 3}


@pytest.mark.parametrize(
    ("stragglers", "left", "ends"), [(None, False, 8.0), (0.0, True, 1.0), (3.0, True, 4.0), (9.0, False, 8.0)]
)
def test_stragglers_are_waited_for_or_left_behind_as_the_terms_say(stragglers, left, ends):
    late = {2: [[(0.0, right(2))]], 3: [[(1.0, right(3))]], 4: [[(8.0, right(4))]]}
    heard, _, clock = exchange(late, Terms(10.0, 2, stragglers_s=stragglers))
    assert (heard[4] is Silence.LEFT_BEHIND) == left
    assert clock.now == pytest.approx(ends, abs=0.3)


def test_no_more_nodes_have_an_order_than_may_at_once():
    heard, grid, _ = exchange({node: [[(1.0, right(node))]] for node in range(2, 12)}, Terms(100.0, 1), at_once=3)
    assert len(heard) == 10
    assert grid.most == 3


def test_what_is_no_reply_is_handed_on_as_what_is_wrong_with_it():
    heard, _, _ = exchange({2: [[(0.0, RecordDict())]]})
    assert isinstance(heard[2], PayloadError)
