"""The page in a browser: it lives, shows text as text, asks nobody else for anything, and fits every width."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browser import WIDTHS, tab
from live_run import HEAD, HOSTILE, LiveRun, serving

from fedprivseg.study.watch import progress_now, web_app

TEXT = "(document.body?.innerText ?? '')"

# As in `browser.laid_out`: what scrolls by itself may hold more than is seen, and nothing else may.
TOO_WIDE = """
[...document.body.querySelectorAll("*")].filter(each => {
  const box = each.getBoundingClientRect();
  return !each.closest(".scroll") && box.width && (box.right > innerWidth + 1 || box.left < -1);
}).map(each => each.tagName + " " + each.className)
"""


@pytest.fixture
def live(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_now, "OFTEN_S", 0.05)
    monkeypatch.setattr(web_app, "OFTEN_S", 0.05)
    return LiveRun(tmp_path / "run", titles={"centre2": HOSTILE})


def test_the_page_of_a_run(tmp_path, live):
    with serving(live.run.path) as served, tab(tmp_path) as page:
        page.open(served.address)
        page.until(f"{TEXT}.includes('live') && {TEXT}.includes('None has begun.') && {TEXT}.includes('not heard yet')")
        assert page.value("document.title") == "running: quickstart"

        live.receipt("centre1", bytes=2_500_000, sent=1000, centiseconds=150)
        live.ended("fit encoders", 95.0)
        live.doing("send codes", 3, 12)
        live.doing("encode", 1, 4, site="centre1")
        page.until(f"{TEXT}.includes('send codes') && {TEXT}.includes('2.5 MB'.replace(' ', '\\u00a0'))")
        shown = page.value(TEXT)
        for words in ("fit encoders", "2\u00a0min", "3 of 12", "encode", "takes part", HEAD, "1 of 3"):
            assert words in shown, words
        assert page.value("document.querySelector('.stages progress').value") == 3

        live.blocked("centre3", "kind.not-allowed", f"blocked by site policy: {HOSTILE}")
        page.until(f"{TEXT}.includes('kind.not-allowed')")
        shown = page.value(TEXT)
        assert shown.count(HOSTILE) == 2, "the title and the status, letter by letter"
        assert page.value("document.querySelectorAll('img').length") == 0
        assert page.value("document.title") == "running: quickstart"
        for width in WIDTHS:
            page.resize(width)
            assert page.value(TOO_WIDE) == [], width

        live.finish()
        page.until("document.title === 'finished: quickstart'")
        assert "completed" in page.value(TEXT)
        assert {address.startswith(served.address) for address in page.loaded} == {True}
        assert page.complaints == []

        served.server.should_exit = True
        page.until(f"{TEXT}.includes('connection lost')")


class _Foreign(BaseHTTPRequestHandler):
    """Another site on the same machine, with an empty page everywhere."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *what):
        pass


@pytest.fixture
def foreign():
    """The address of another site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Foreign) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_another_site_cannot_show_it_in_a_frame_nor_read_it(tmp_path, live, foreign):
    with serving(live.run.path) as served, tab(tmp_path) as page:
        page.open(foreign)
        page.until(f"location.href === '{foreign}' && document.body !== null")
        for address in (f"{foreign}framed", served.address):
            page.value(
                f"new Promise(done => {{ const frame = document.createElement('iframe'); frame.onload = done; "
                f"frame.src = '{address}'; document.body.append(frame); }})"
            )
        shown = [each["frame"]["url"] for each in page.ask("Page.getFrameTree")["frameTree"]["childFrames"]]
        assert shown == [f"{foreign}framed", "chrome-error://chromewebdata/"]
        for address, outcome in ((f"{foreign}asked", "read"), (served.address, "refused")):
            assert page.value(f"fetch('{address}').then(() => 'read', () => 'refused')") == outcome
