"""The grid of a deployment, over a SuperLink that loses, repeats, restarts and lets strangers in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.task_identity import TaskIdentity

from fedprivseg.runtime.deployment import grid as module
from fedprivseg.runtime.deployment.grid import DeploymentGrid
from fedprivseg.runtime.wire import MESSAGE_TYPE

KEYS = {"centre1": b"key one", "centre2": b"key two"}


class FakeTask:
    """A SuperLink of which a test says what happens to each message: `fate` is asked, and returns its replies."""

    def __init__(self, fate):
        self.fate, self.pushed, self.replies, self.restarts = fate, [], {}, 0
        self.there = [
            NodeInfo(node_id=number, name=name, public_key=key, last_activated_at="first", status="online")
            for number, (name, key) in enumerate(KEYS.items(), start=2)
        ]

    def nodes(self):
        return self.there

    def push(self, message):
        message.metadata.__dict__["_message_id"] = name = f"copy-{len(self.pushed)}"
        self.pushed.append(message)
        self.replies[name] = list(self.fate(self, message, len(self.pushed)))
        return name

    def pull(self, names):
        for name in list(names):
            if self.replies.get(name):
                yield name, self.replies[name].pop(0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    monkeypatch.setattr(module, "POLL_S", 0.001)
    monkeypatch.setattr(module, "LONGEST_POLL_S", 0.001)
    monkeypatch.setattr(module, "_LOOK_S", 0.0)


def _reply(message, **fields):
    reply = Message(RecordDict({"released": ConfigRecord({"site": "", **fields})}), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
    return reply


def _error(message, code):
    return Message(Error(code, "why"), reply_to=message)


def _asked(fate, nodes=(2,), timeout=5.0, body=b"order"):
    task = FakeTask(fate)
    grid = DeploymentGrid(task, KEYS)
    orders = [Message(RecordDict({"order": ConfigRecord({"body": body})}), node, MESSAGE_TYPE) for node in nodes]
    return list(grid.send_and_receive(orders, timeout=timeout)), task


def test_replies_come_one_by_one_and_by_node():
    replies, task = _asked(lambda task, message, count: [_reply(message, count=count)], nodes=(2, 3))
    assert sorted(reply.metadata.src_node_id for reply in replies) == [2, 3]
    assert len(task.pushed) == 2


def test_of_two_replies_to_one_order_the_first_counts():
    replies, _ = _asked(lambda task, message, count: [_reply(message, body=b"one"), _reply(message, body=b"two")])
    assert [reply.content["released"]["body"] for reply in replies] == [b"one"]


@pytest.mark.parametrize("code", [ErrorCode.NODE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE])
def test_an_order_that_was_lost_is_sent_again(code):
    replies, task = _asked(
        lambda task, message, count: [_error(message, code) if count < 3 else _reply(message, count=count)]
    )
    assert [reply.content["released"]["count"] for reply in replies] == [3]
    assert len(task.pushed) == 3


def test_a_reply_that_did_not_come_whole_is_asked_for_again():
    replies, task = _asked(lambda task, message, count: [None if count == 1 else _reply(message)])
    assert len(replies) == 1
    assert len(task.pushed) == 2


def test_an_error_of_the_nodes_own_is_its_answer():
    replies, task = _asked(lambda task, message, count: [_error(message, ErrorCode.INVALID_FAB)])
    assert [reply.error.code for reply in replies] == [ErrorCode.INVALID_FAB]
    assert len(task.pushed) == 1


def test_a_node_that_was_started_anew_gets_its_order_again():
    """It keeps its orders in memory, and has lost this one."""

    def fate(task, message, count):
        if count == 1:
            task.there[0].last_activated_at = "again"
            return []
        return [_reply(message)]

    replies, task = _asked(fate)
    assert len(replies) == 1
    assert len(task.pushed) == 2


def test_a_node_that_is_away_gets_its_order_when_it_is_back():
    def fate(task, message, count):
        return [_reply(message)]

    task = FakeTask(fate)
    away = task.there.pop(0)
    grid = DeploymentGrid(task, KEYS)
    order = Message(RecordDict({"order": ConfigRecord({"body": b"order"})}), 2, MESSAGE_TYPE)
    replies = grid.send_and_receive([order], timeout=5)
    nodes = task.nodes
    looks = iter(range(100))
    task.nodes = lambda: nodes() if next(looks) < 5 else [*nodes(), away]
    assert len(list(replies)) == 1
    assert len(task.pushed) == 1


def test_what_is_out_when_the_superlink_was_away_is_sent_again():
    def fate(task, message, count):
        if count == 1:
            task.restarts += 1
            return []
        return [_reply(message)]

    replies, task = _asked(fate)
    assert len(replies) == 1
    assert len(task.pushed) == 2


def test_a_silent_node_is_waited_for_no_longer_than_the_deadline():
    replies, task = _asked(lambda task, message, count: [], timeout=0.05)
    assert replies == []
    assert 0 < task.pushed[0].metadata.ttl <= 0.05


@pytest.mark.parametrize(
    "stranger", [{"name": "centre1", "public_key": b"own"}, {"name": "c9", "public_key": b"key one"}]
)
def test_a_node_that_is_not_a_sites_own_is_not_asked(stranger):
    task = FakeTask(lambda task, message, count: [])
    task.there.append(NodeInfo(node_id=9, **stranger))
    assert list(DeploymentGrid(task, KEYS).get_node_ids()) == [2, 3]


def test_a_node_that_presents_itself_as_another_site_has_said_nothing():
    replies, _ = _asked(lambda task, message, count: [_reply(message, site="centre2", body=b"mine")])
    assert list(replies[0].content) == ["refused-by-the-grid"]
    replies, _ = _asked(lambda task, message, count: [_reply(message, site="centre1", body=b"mine")])
    assert replies[0].content["released"]["body"] == b"mine"


def test_a_large_order_goes_in_pieces_and_a_large_reply_is_put_together(monkeypatch):
    from fedprivseg.runtime.deployment import chunks

    monkeypatch.setattr(chunks, "PIECE", 100)

    def fate(task, message, count):
        body = chunks.join(message.content)["order"]["body"]
        reply = _reply(message, body=body)
        reply.content = chunks.split(reply.content)
        return [reply]

    replies, task = _asked(fate, body=bytes(range(250)))
    assert replies[0].content["released"]["body"] == bytes(range(250))
    assert len(task.pushed[0].content) == 5


def test_pushed_and_pulled_apart_it_is_the_same():
    """As a program does that lets nobody wait for anybody."""
    task = FakeTask(lambda task, message, count: [_reply(message)] if count > 1 else [_error(message, 5)])
    grid = DeploymentGrid(task, KEYS)
    (name,) = grid.push_messages([Message(RecordDict({"order": ConfigRecord({"n": 1})}), 2, MESSAGE_TYPE)])
    assert grid.pull_messages([name]) == []
    (reply,) = grid.pull_messages([name])
    assert reply.metadata.reply_to_message_id == name
    assert grid.pull_messages([name]) == []


def test_the_interface_is_flowers(tiny_scenario):
    """Whatever runs over another grid runs over this one."""
    run = SimpleNamespace(run_id=7)
    task = FakeTask(lambda task, message, count: [])
    task.run = run
    assert DeploymentGrid(task, KEYS).run is run
