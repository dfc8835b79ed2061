"""Who gets to see the page: whoever knows its address, on this machine, and nobody through another site in the browser."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import pytest
from commands import tree
from live_run import LiveRun, serving

from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.study.watch import progress_now, web_app
from fedprivseg.study.watch.serve import watch

PAGES = ("", "watch.js", "watch.css", "sheet.css", "icon.svg", "metrics")


@pytest.fixture
def live(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_now, "OFTEN_S", 0.05)
    monkeypatch.setattr(web_app, "OFTEN_S", 0.05)
    return LiveRun(tmp_path / "run")


@pytest.fixture
def page(live):
    with serving(live.run.path) as served:
        yield served


def answer(page, path=None, method="GET", **headers):
    """(status, headers, body) of a request below the token, or to a whole `path`."""
    place = urlsplit(page.address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        got = connection.getresponse()
        return got.status, dict(got.getheaders()), got.read()
    finally:
        connection.close()


def events(page):
    """The stream of events, open: (connection, function that gives the next one)."""
    place = urlsplit(page.address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    connection.request("GET", f"{place.path}events")
    got = connection.getresponse()

    def following():
        while not (line := got.readline()).startswith(b"data: "):
            assert line, "the stream ended"
        return json.loads(line.removeprefix(b"data: "))

    return got, connection, following


@pytest.mark.parametrize("name", PAGES)
def test_with_the_token_it_is_shown_and_says_how_it_may_be_used(page, name):
    status, headers, body = answer(page, f"/{page.token}/{name}")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers
    assert page.token.encode() not in body


@pytest.mark.parametrize("name", [*PAGES, "events"])
@pytest.mark.parametrize("token", ["x", "x" * 43, "é"])
def test_without_the_token_there_is_nothing(page, token, name):
    status, _, body = answer(page, f"/{token.encode('latin-1').hex() if token == 'é' else token}/{name}")
    assert status == 404
    assert b"quickstart" not in body


ELSEWHERE = (
    "/",
    "/docs",
    "/openapi.json",
    "/metrics",
    "/watch.js",
    "/{token}",
    "/{token}/watch_page.html",
    "/{token}/../run-id",
)


@pytest.mark.parametrize("path", ELSEWHERE)
def test_nothing_else_is_served(page, path):
    status, headers, body = answer(page, path.format(token=page.token))
    assert status in (404, 307)
    assert b"quickstart" not in body
    assert headers.get("location", "").startswith(("", page.address))


def test_prometheus_may_bring_the_token_beside_the_address(page):
    address = urlsplit(page.metrics).path
    assert answer(page, address)[0] == 404
    assert answer(page, address, Authorization="Bearer x")[0] == 404
    status, headers, body = answer(page, address, Authorization=f"Bearer {page.token}")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b'fedprivseg_run_state{state="running"} 1.0' in body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1.evil.example:{port}", ""]
)
def test_a_name_that_leads_here_is_not_this_host(page, host):
    """As after DNS rebinding: the browser asks this machine for the other site's page."""
    port = urlsplit(page.address).port
    status, _, body = answer(page, f"/{page.token}/", Host=host.format(port=port))
    assert status in (400, 421)
    assert b"Sites" not in body
    assert answer(page, f"/{page.token}/", Host=f"LOCALHOST:{port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(page, method):
    assert answer(page, f"/{page.token}/", method)[0] == 405


def test_it_listens_on_this_machine_alone(page):
    assert page.listener.getsockname()[0] == "127.0.0.1"
    assert page.address.startswith("http://127.0.0.1:")


def test_what_happens_is_sent_when_it_happens_and_nothing_is_written(page, live):
    got, connection, following = events(page)
    assert got.getheader("content-type").startswith("text/event-stream")
    assert following()["doing"] is None
    before = tree(live.run.path)
    live.doing("send codes", 3, 9)
    now = following()
    assert now["doing"] == {"stage": "send codes", "done": 3, "total": 9}
    assert set(tree(live.run.path)) - set(before) == {"server/progress.json"}
    connection.close()


def test_so_many_may_watch_and_no_more(page, monkeypatch):
    streams = [events(page) for _ in range(web_app.MOST_WATCHING)]
    for _, _, following in streams:
        following()
    assert answer(page, f"/{page.token}/events")[0] == 503
    for got, connection, _ in streams:
        got.close()
        connection.close()


def test_two_pages_have_two_tokens(live):
    with watch(live.run.path) as one, watch(live.run.path) as other:
        assert one.token != other.token
        assert len(one.token) >= 43, "32 bytes from the system's generator"


def test_what_cannot_be_served_is_refused(live, tmp_path, page):
    with pytest.raises(FolderError, match="neither a run"), watch(tmp_path / "nowhere"):
        pass
    port = urlsplit(page.address).port
    with pytest.raises(RequestError, match=f"--port {port}: Address already in use"), watch(live.run.path, port):
        pass
