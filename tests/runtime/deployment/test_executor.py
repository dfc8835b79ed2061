"""The warm executor: what it runs, what it refuses, and what it answers to the same order twice."""

from __future__ import annotations

import json
import time

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate import NodeStateFactory

from fedprivseg.runtime.deployment import app_bundle, chunks
from fedprivseg.runtime.deployment.executor import WarmExecutor
from fedprivseg.runtime.wire import MESSAGE_TYPE

RUN, NODE = 5, 9


class Node:
    """A node's memory, and an executor that works on it with a program that answers what came."""

    def __init__(self, folder, scenario, *, approved=True, program=None):
        self.ran = 0
        states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
        self.state, self.store = states.state(), states.objectstore_factory.store()
        self.state.set_node_id(NODE)
        content = app_bundle.build(scenario)
        self.app = app_bundle.read(content)
        run = Run.create_empty(run_id=RUN)
        run.fab_hash, run.series_id = self.app.sha256, 1
        self.state.store_run(run)
        self.state.store_fab(Fab(self.app.sha256, content, {}))
        context = Context(run_id=RUN, node_id=NODE, node_config={"station": "s"}, state=RecordDict(), run_config={})
        self.state.set_run_series_context(1, context)
        if approved:
            (folder / "approved.json").write_text(json.dumps({self.app.sha256: {"by": "a test"}}))
        app = ClientApp()

        @app.train("perform")
        def _perform(message, context):
            self.ran += 1
            if program is not None:
                return program(message, context)
            return Message(RecordDict({"released": message.content["order"]}), reply_to=message)

        WarmExecutor(self.state, self.store, app, folder / "approved.json").start()

    def answer(self, **fields):
        """What comes back to an order of these fields."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, 1, 1
        fields = {"scenario": self.app.scenario_digest, **fields}
        order = Message(chunks.split(RecordDict({"order": ConfigRecord(fields)})), NODE, MESSAGE_TYPE)
        order.metadata.__dict__["_message_id"] = name = order.object_id
        self.store.preregister(RUN, get_object_tree(order))
        self.state.store_message(order)
        for part, value in get_all_nested_objects(order).items():  # as they come: the order first, its parts later
            self.store.put(part, value.deflate())
        end = time.monotonic() + 30
        while not (found := self.state.get_messages_legacy(is_reply=True)):
            assert time.monotonic() < end
            time.sleep(0.01)
        (reply,) = found
        assert reply.metadata.reply_to_message_id == name
        names = [part.object_id for part in _flat(self.store.get_object_tree(reply.metadata.message_id))]
        contents = {part: self.store.get(part) for part in names}
        assert all(contents.values()), "a reply is there only with all of its parts"
        return inflate_object_from_contents(reply.metadata.message_id, contents)


def _flat(tree):
    yield tree
    for child in tree.children:
        yield from _flat(child)


def test_an_order_under_an_approved_app_is_carried_out(tmp_path, tiny_scenario):
    node = Node(tmp_path, tiny_scenario)
    assert node.answer(body=b"one").content["released"]["body"] == b"one"
    assert node.answer(body=b"two").content["released"]["body"] == b"two"
    assert node.ran == 2


def test_an_app_that_nobody_approved_is_not_run(tmp_path, tiny_scenario, caplog):
    node = Node(tmp_path, tiny_scenario, approved=False)
    assert node.answer(body=b"one").error.code == ErrorCode.INVALID_FAB
    assert node.ran == 0
    assert node.app.sha256 in caplog.text, "the hospital is told which it is"
    (tmp_path / "approved.json").write_text(json.dumps({node.app.sha256: {"by": "a test"}}))
    assert node.answer(body=b"one").content["released"]["body"] == b"one", "approved meanwhile, it is run"


def test_an_app_of_other_code_is_not_run(tmp_path, tiny_scenario, monkeypatch):
    node = Node(tmp_path, tiny_scenario)
    monkeypatch.setattr(app_bundle, "code_digest", lambda: "0" * 64)
    assert node.answer(body=b"one").error.code == ErrorCode.INVALID_FAB
    assert node.ran == 0


def test_an_order_under_another_scenario_is_not_carried_out(tmp_path, tiny_scenario):
    node = Node(tmp_path, tiny_scenario)
    assert node.answer(scenario="0" * 64).error.code == ErrorCode.INVALID_FAB
    assert node.ran == 0


def test_a_damaged_list_of_approvals_approves_nothing(tmp_path, tiny_scenario):
    node = Node(tmp_path, tiny_scenario)
    (tmp_path / "approved.json").write_text('{"')
    assert node.answer(body=b"one").has_error()
    assert node.ran == 0


def test_the_same_order_again_has_the_same_answer(tmp_path, tiny_scenario):
    """Its answer was lost on the way; it is neither computed nor released once more."""
    node = Node(tmp_path, tiny_scenario)
    first, second = node.answer(body=b"one"), node.answer(body=b"one")
    assert dict(first.content["released"]) == dict(second.content["released"])
    assert node.ran == 1


def test_an_exception_leaves_as_its_type_alone(tmp_path, tiny_scenario):
    def program(message, context):
        raise ValueError("patient 7 in /data/heart.nii.gz")

    node = Node(tmp_path, tiny_scenario, program=program)
    error = node.answer(body=b"one").error
    assert (error.code, error.reason) == (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "ValueError")


def test_large_values_go_in_pieces(tmp_path, tiny_scenario, monkeypatch):
    monkeypatch.setattr(chunks, "PIECE", 100)
    node = Node(tmp_path, tiny_scenario)
    reply = node.answer(body=bytes(range(250)))
    assert "pieces" in reply.content
    assert chunks.join(reply.content)["released"]["body"] == bytes(range(250))


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_app_is_none(content):
    from fedprivseg.core.errors import RequestError

    with pytest.raises(RequestError, match="no app"):
        app_bundle.read(content)
