"""The server's task at the SuperLink: taken with the kit's secret, kept alive by heartbeats; its messages pushed and pulled.

Flower's own `HttpGrid` looks for replies every 3 s, gives up on a restart of the SuperLink by ending its process, and takes
replies only all together. This asks as often as it is told to, tries again while the SuperLink is away, and says `RunLost` when
the SuperLink knows the run no more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar, final

import httpx
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID, SubStatus
from flwr.common.serde import message_from_proto, message_to_proto, run_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.node_pb2 import Node, NodeInfo
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    GetNodesRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
    push_objects,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from fedprivseg.core.errors import RunError
from fedprivseg.runtime.deployment.superlink import Link

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_HEARTBEAT_S = 10.0
_ACQUIRE_S = 30.0
"""For so long the SuperLink may take to offer the task of a run that was submitted."""

_AWAY = frozenset({502, 503, 504})
_REFUSED = frozenset({401, 403, 404})
_LONGEST_PAUSE_S = 2.0
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.02, 0.5
"""How soon an object that is still on its way is looked for again."""

Answer = TypeVar("Answer")


class RunLost(RunError):
    """The SuperLink has ended the run: it was away for longer than it keeps a task, or somebody stopped it."""


@final
class ServerTask:
    """The server's task of one run at the SuperLink."""

    def __init__(self, client: RuntimeHttpClient) -> None:
        """client: speaks with the task's token."""
        self._client = client
        self._node = Node(node_id=SUPERLINK_NODE_ID)
        self._stop = threading.Event()
        self._lost = threading.Event()
        self.restarts = 0
        """How often the SuperLink was away since."""
        given = self._ask(lambda: client.PullTaskInput(PullTaskInputRequest()))
        self.run: Run = run_from_proto(given.run)
        TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
        TaskIdentity.node_id = given.context.node_id
        self._beats = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._beats.start()

    def nodes(self) -> list[NodeInfo]:
        """The nodes that are online."""
        return list(self._ask(lambda: self._client.GetNodes(GetNodesRequest())).nodes)

    def push(self, message: Message) -> str | None:
        """Send a message; the id under which its reply comes, None if it could not be stored."""
        message.metadata.__dict__["_message_id"] = message.object_id
        asked = PushAppMessagesRequest(
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[get_object_tree(message)],
        )
        stored = self._ask(lambda: self._client.PushMessages(asked))
        if not stored.message_ids or not stored.message_ids[0]:
            return None
        send = make_push_object_fn_protobuf(
            lambda request: self._ask(lambda: self._client.PushObject(request)),
            self._node,
            self.run.run_id,
            stored.session_id,
        )
        try:
            push_objects(get_all_nested_objects(message), send, object_ids_to_push=set(stored.objects_to_push))
        except ObjectPushError:
            return None
        return str(stored.message_ids[0])

    def pull(self, names: Collection[str]) -> Iterator[tuple[str, Message | None]]:
        """The replies that are there to the messages of these ids, one by one; None for one that did not come whole."""
        if not names:
            return
        asked = PullAppMessagesRequest(message_ids=sorted(names))
        found = self._ask(lambda: self._client.PullMessages(asked))
        for proto, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            yield proto.metadata.reply_to_message_id, self._whole(message_from_proto(proto), tree)

    def finish(self, ok: bool) -> None:
        """Tell the SuperLink that the run is over. Nobody is told why: that stands in the run's folder."""
        self._stop.set()
        status = SubStatus.COMPLETED if ok else SubStatus.FAILED
        with suppress(httpx.HTTPError):
            self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=""))
        self._beats.join()
        self._client.close()

    def _whole(self, message: Message, tree: ObjectTree) -> Message | None:
        """The message with its content."""
        name, run = message.metadata.message_id, self.run.run_id
        fetch = make_pull_object_fn_protobuf(
            lambda request: self._ask(lambda: self._client.PullObject(request)), self._node, run
        )
        try:
            contents = pull_objects(
                [each.object_id for each in iterate_object_tree(tree)],
                fetch,
                max_tries_per_object=None,
                initial_backoff=_FIRST_LOOK_S,
                backoff_cap=_LONGEST_LOOK_S,
            )
        except ObjectPullError:
            return None
        taken = ConfirmMessageReceivedRequest(node=self._node, run_id=run, message_object_id=name)
        self._ask(lambda: self._client.ConfirmMessageReceived(taken))
        found = inflate_object_from_contents(name, contents)
        if not isinstance(found, Message):
            return None
        found.metadata.__dict__["_message_id"] = name
        return found

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        """What the SuperLink answers; while it is away it is asked again.

        Raises:
            RunLost: it knows the task no more.
        """
        pause = 0.1
        while True:
            if self._lost.is_set():
                raise RunLost("the SuperLink has ended the run")
            try:
                return call()
            except httpx.HTTPStatusError as fault:
                if fault.response.status_code in _REFUSED:
                    raise RunLost(f"the SuperLink has ended the run ({fault.response.status_code})") from None
                if fault.response.status_code not in _AWAY:
                    raise RunError(f"the SuperLink failed ({fault.response.status_code})") from None
            except httpx.TransportError:
                pass
            self.restarts += 1
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _beat(self) -> None:
        while not self._stop.wait(_HEARTBEAT_S):
            try:
                alive = self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
            except httpx.HTTPStatusError as fault:
                alive = fault.response.status_code not in _REFUSED
            except (httpx.HTTPError, RuntimeError):  # away, or closed meanwhile
                continue
            if not alive:
                self._lost.set()
                return


@contextmanager
def server_task(link: Link, run_id: int) -> Iterator[ServerTask]:
    """Take the server's task of the run `run_id`; at the end of the block the run is over.

    Raises:
        RunError: the SuperLink does not offer it.
    """
    token = _acquired(link, run_id)
    client = _client(
        link, [RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"), RuntimeTokenHttpInterceptor(token)]
    )
    task, ok = ServerTask(client), False
    try:
        yield task
        ok = True
    finally:
        task.finish(ok)


def _acquired(link: Link, run_id: int) -> str:
    """The token of the task. Tasks of runs that were stopped may be offered first; nobody carries those out."""
    auth = SuperExecAuthHttpInterceptor(
        master_secret=link.kit.secret.read_bytes().strip(), protected_methods=[_ACQUIRE]
    )
    asked = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
    end = time.monotonic() + _ACQUIRE_S
    client = _client(link, [RuntimeVersionHttpInterceptor(component_name="SuperExec"), auth])
    try:
        while time.monotonic() < end:
            found = client.AcquireTask(asked)
            if found.HasField("task") and found.task.run_id == run_id:
                return str(found.token)
            time.sleep(0.05)
    except httpx.HTTPError as fault:
        raise RunError(f"the SuperLink does not let the server's task be taken ({type(fault).__name__})") from None
    finally:
        client.close()
    raise RunError(f"the SuperLink offered no task within {_ACQUIRE_S:.0f} s")


def _client(link: Link, interceptors: Sequence[object]) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(link.address, False, link.authority, interceptors)  # type: ignore[arg-type]
