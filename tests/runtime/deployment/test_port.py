"""Attacks on the port that hospitals reach: each is tried as it would be made, and refused."""

from __future__ import annotations

import ssl
from base64 import b64encode
from datetime import UTC, datetime

import httpx
import pytest
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, TaskType
from flwr.supercore.primitives.asymmetric import sign_message
from flwr.supercore.protobuf.client import PROTOBUF_MEDIA_TYPE

from fedprivseg.runtime.deployment import certificates, terminator
from fedprivseg.runtime.deployment.certificates import certified_key, create_key, public_pem, read_key
from fedprivseg.runtime.deployment.superlink import Link

pytestmark = pytest.mark.xdist_group("deployment")

PROTOBUF = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}
CONTROL = {
    "list-runs": ListRunsRequest(),
    "list-nodes": ListNodesRequest(),
    "stop-run": StopRunRequest(run_id=1),
    "start-run": StartRunRequest(fab=Fab(hash_str="0" * 64, content=b"an app of somebody's own")),
}


def _client(consortium, certificate=None, key=None, *, authority=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority or consortium.server.authority)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return httpx.Client(base_url=f"https://127.0.0.1:{consortium.port}", verify=context, headers=PROTOBUF)


def _hospital(consortium, site="centre1"):
    kit = consortium.hospitals[site]
    return _client(consortium, kit.certificate, kit.key)


def _signed(private):
    """The headers with which a node says who it is."""
    timestamp = datetime.now(UTC).isoformat()
    return {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_pem(private.public_key())).decode(),
        TIMESTAMP_HEADER: timestamp,
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(private, timestamp.encode())).decode(),
    }


def _activation(private):
    return ActivateNodeRequest(public_key=public_pem(private.public_key()), heartbeat_interval=30)


def _post(client, path, message, headers=None):
    return client.post(path, content=message.SerializeToString(), headers=headers)


def test_a_hospital_reaches_the_calls_of_its_own_node(consortium):
    """Without which the refusals below would say nothing."""
    private = read_key(consortium.hospitals["centre1"].key)
    with _hospital(consortium) as client:
        found = _post(client, "/v1/fleet/activate-node", _activation(private), _signed(private))
    assert found.status_code == 200, found.text


@pytest.mark.parametrize("call", [*CONTROL, "register-node"])
def test_a_hospital_does_not_reach_the_operators_calls(consortium, call):
    key = public_pem(read_key(consortium.hospitals["centre1"].key).public_key())
    message = CONTROL.get(call) or RegisterNodeRequest(public_key=key, name="centre2")
    with _hospital(consortium) as client:
        assert _post(client, f"/v1/control/{call}", message).status_code == 404
    with Link(consortium.server) as link:
        assert not link.runs()
        assert sorted(node.name for node in link.nodes()) == sorted(consortium.hospitals)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/pull-messages/../../control/list-runs",
        "/v1/fleet/pull-messages%0a",
        "/v1//control/list-runs",
        "//v1/control/list-runs",
        "/V1/FLEET/pull-messages",
        "/docs",
        "/openapi.json",
        "/health",
        "/",
    ],
)
def test_no_other_spelling_leads_there(consortium, path):
    with _hospital(consortium) as client:
        raw = httpx.URL(f"https://127.0.0.1:{consortium.port}").copy_with(raw_path=path.encode())
        found = client.post(raw, content=ListRunsRequest().SerializeToString())
    assert found.status_code in (400, 404), found.text


def test_a_hospital_does_not_take_the_servers_task(consortium):
    asked = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
    with _hospital(consortium) as client:
        assert _post(client, "/v1/runtime/acquire-task", asked).status_code == 404


def test_nobody_without_the_secret_takes_it_on_the_servers_own_machine(consortium):
    context = ssl.create_default_context(cafile=str(consortium.server.authority))
    asked = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
    with httpx.Client(verify=context, headers=PROTOBUF) as client:
        port = consortium.server.deployment.link_port
        found = client.post(f"https://127.0.0.1:{port}/v1/runtime/acquire-task", content=asked.SerializeToString())
    assert found.status_code == 401, found.text


@pytest.mark.parametrize("call", ["register-node", "unregister-node"])
def test_a_hospital_registers_no_node_itself(consortium, tmp_path, call):
    stranger = create_key(tmp_path / "key")
    asked = RegisterNodeFleetRequest(public_key=public_pem(stranger.public_key()))
    with _hospital(consortium) as client:
        assert _post(client, f"/v1/fleet/{call}", asked, _signed(stranger)).status_code == 404


def test_a_hospital_does_not_speak_for_another(consortium):
    """Not even with the other's key: a certificate is for its own node."""
    other = read_key(consortium.hospitals["centre2"].key)
    with _hospital(consortium, "centre1") as client:
        assert _post(client, "/v1/fleet/activate-node", _activation(other), _signed(other)).status_code == 401


def test_a_node_is_not_another_by_its_number(consortium):
    """A hospital that asks, under its own key, for the messages of another's node."""
    private = read_key(consortium.hospitals["centre1"].key)
    with Link(consortium.server) as link:
        (number,) = (node.node_id for node in link.nodes() if node.name == "centre2")
    asked = PullMessagesRequest()
    asked.node.node_id = number
    with _hospital(consortium) as client:
        assert _post(client, "/v1/fleet/pull-messages", asked, _signed(private)).status_code == 401


def test_nobody_gets_in_without_a_certificate(consortium):
    private = read_key(consortium.hospitals["centre1"].key)
    with _client(consortium) as client:
        found = _post(client, "/v1/fleet/activate-node", _activation(private), _signed(private))
    assert found.status_code == 400
    assert "certificate" in found.text


def test_nobody_gets_in_with_a_certificate_of_another_authority(consortium, tmp_path):
    """Not under a hospital's name, nor with its key."""
    certificates.create_authority(tmp_path / "authority.key", tmp_path / "authority.pem", "fedprivseg quickstart")
    private = read_key(consortium.hospitals["centre1"].key)
    own = tmp_path / "centre1.pem"
    certificates.issue_site(
        tmp_path / "authority.key", tmp_path / "authority.pem", own, "centre1", private.public_key()
    )
    with _client(consortium, own, consortium.hospitals["centre1"].key) as client:
        assert _post(client, "/v1/fleet/activate-node", _activation(private), _signed(private)).status_code == 400


def test_the_servers_certificate_is_no_hospitals(consortium):
    private = read_key(consortium.server.tls_key)
    with _client(consortium, consortium.server.certificate, consortium.server.tls_key) as client:
        assert _post(client, "/v1/fleet/activate-node", _activation(private), _signed(private)).status_code == 400


def test_a_hospital_does_not_speak_with_a_server_of_another_authority(consortium, tmp_path):
    certificates.create_authority(tmp_path / "authority.key", tmp_path / "authority.pem", "another")
    kit = consortium.hospitals["centre1"]
    with (
        _client(consortium, kit.certificate, kit.key, authority=tmp_path / "authority.pem") as client,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.post("/v1/fleet/activate-node")


def test_what_is_larger_than_an_object_is_turned_away(consortium):
    private = read_key(consortium.hospitals["centre1"].key)
    with _hospital(consortium) as client:
        found = client.post("/v1/fleet/push-object", content=b"0" * 8_100_000, headers=_signed(private))
    assert found.status_code == 413


def test_a_stranger_under_an_existing_name_is_unregistered_and_never_asked(consortium, tmp_path):
    """Registered on the server's own machine, by whoever got there."""
    stranger = public_pem(create_key(tmp_path / "key").public_key())
    with Link(consortium.server) as link:
        link._control.RegisterNode(RegisterNodeRequest(public_key=stranger, name="centre1"))
        assert len(link.nodes()) == len(consortium.hospitals) + 1
        link.register()
        assert {node.public_key for node in link.nodes()} == {
            certified_key(path) for path in consortium.server.certified.values()
        }


def test_a_hospital_whose_certificate_was_withdrawn_is_turned_away(kits, tmp_path):
    """The terminator's configuration names those who have one now."""
    from fedprivseg.runtime.deployment.kit import ServerKit

    text = kits.server.terminator.read_text()
    assert text.count("CN=centre") == 3
    copy = ServerKit(tmp_path)
    for path in (kits.server.path / "deployment.json", kits.server.site_certificate("centre1")):
        place = tmp_path / path.relative_to(kits.server.path)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(path.read_bytes())
    terminator.write_configuration(copy)
    assert copy.terminator.read_text().count("CN=centre") == 1


def test_flowers_database_is_the_operators_alone(consortium):
    """It holds the bytes of messages. Whatever the umask of whoever starts it."""
    found = [*consortium.server.path.glob("superlink.db*"), *consortium.server.logs.iterdir()]
    assert len(found) > 2
    for path in [*found, consortium.server.tls_key, consortium.server.secret, consortium.server.authority_key]:
        assert not path.stat().st_mode & 0o077, path
