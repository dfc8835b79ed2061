"""Pages as a browser lays them out: what of them is cut off at which width; and pages that live, in a tab of their own. Skips a
test where there is no Chromium."""

from __future__ import annotations

import base64
import html
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (400, 768, 1100, 1600)
"""A telephone, a tablet, a small and a large screen, in CSS pixels."""

# Each page stands in a frame of each width; its parent may look into it. What scrolls by itself (.scroll) may hold more than is
# seen; its caption may not, and nothing else may.
_MEASURE = """
const found = {};
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument, width = frame.clientWidth, faults = [];
  if (page.scrollingElement.scrollWidth > width) faults.push("page: " + page.scrollingElement.scrollWidth);
  for (const each of page.body.querySelectorAll("*")) {
    const range = page.createRange(), caption = each.tagName === "CAPTION";
    range.selectNodeContents(each);
    const box = (caption ? range : each).getBoundingClientRect();
    const inside = each.parentElement.closest(".scroll") && !caption;
    if (!inside && box.width && (box.right > width + 1 || box.left < -1)) faults.push(each.tagName + " " + each.className);
    if (!inside && getComputedStyle(each).overflowX === "hidden" && each.scrollWidth > each.clientWidth) faults.push("hidden");
  }
  const scrolling = [...page.querySelectorAll(".scroll")].filter(each => each.scrollWidth > each.clientWidth + 1);
  const headings = scrolling.map(each => (each.closest("section") || page).querySelector("h1, h2")?.textContent ?? "");
  found[width] = {faults: [...new Set(faults)], scrolling: headings};
}
document.body.innerHTML = "<pre></pre>";
document.querySelector("pre").textContent = JSON.stringify(found);
"""


def laid_out(page: str, folder: Path) -> dict[int, dict[str, list[str]]]:
    """How a page comes out, by width.

    Args:
        page: the HTML.
        folder: an empty one, for the browser.

    Returns:
        Width -> ``faults``: the elements that are cut off; ``scrolling``: headings of the sections whose table or chart is
        wider than the page, so that it scrolls.
    """
    frames = "".join(
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(page)}"></iframe>'
        for width in WIDTHS
    )
    sheet = folder / "frames.html"
    sheet.write_text(
        f'<!DOCTYPE html><meta charset="utf-8">{frames}<script>addEventListener("load", () => {{{_MEASURE}}})</script>',
        encoding="utf-8",
    )
    words = [*_browser(folder), "--window-size=1800,1000", "--dump-dom", sheet.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = html.unescape(done.stdout.split("<pre>")[1].split("</pre>")[0])
    return {int(width): measured for width, measured in json.loads(found).items()}


def cut_off(page: str, folder: Path) -> dict[int, list[str]]:
    """Width -> the elements of the page that are cut off there; no width where nothing is."""
    return {width: found["faults"] for width, found in laid_out(page, folder).items() if found["faults"]}


def _browser(folder: Path) -> list[str]:
    """The command that starts a browser which keeps its things in `folder`."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here to lay pages out")
    quiet = ("gpu", "background-networking", "component-update", "sync", "extensions")
    own = f"--user-data-dir={folder / 'browser'}"
    return [browser, "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in quiet), own]


class Tab:
    """A tab of a browser, driven by Chrome's DevTools protocol over a pipe: JSON, a zero byte after each message."""

    def __init__(self, out: int, back: int) -> None:
        self._out, self._back, self._rest, self._count, self._session = out, back, b"", 0, ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.events: list[dict[str, Any]] = []
        for what in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{what}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to a command of the protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        os.write(
            self._out, json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        )
        while (got := self._next()).get("id") != self._count:
            if "method" in got and self._session:
                self.events.append(got)
        assert "error" not in got, got
        return got["result"]

    def open(self, address: str, width: int = 1100, height: int = 1000) -> None:
        """Go to a page."""
        self.resize(width, height)
        self.ask("Page.navigate", url=address)

    def resize(self, width: int, height: int = 1000) -> None:
        """Make the window as wide as that."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def value(self, script: str) -> Any:
        """What an expression of JavaScript comes to in the page."""
        done = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script: str, seconds: float = 20.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(script):
            assert time.monotonic() < end, f"never: {script}; the page says: {self.value('document.body.innerText')}"
            time.sleep(0.05)

    def picture(self, path: Path) -> Path:
        """The whole page as PNG."""
        whole = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(whole["data"]))
        return path

    @property
    def complaints(self) -> list[str]:
        """What went wrong in the page: errors of its script, what its policy forbade, what could not be loaded."""
        self.ask("Runtime.evaluate", expression="0")
        texts = [
            each["params"] for each in self.events if each["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")
        ]
        return [json.dumps(each) for each in texts]

    @property
    def loaded(self) -> set[str]:
        """The addresses of all that was asked for."""
        return {
            each["params"]["request"]["url"] for each in self.events if each["method"] == "Network.requestWillBeSent"
        }

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            got = os.read(self._back, 1 << 20)
            assert got, "the browser ended"
            self._rest += got
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)


# The browser reads commands from its descriptor 3 and writes answers to 4.
_HANDED = """
import os, sys
for given, aside in zip(sys.argv[1:3], (98, 99)):
    os.dup2(int(given), aside)
os.dup2(98, 3)
os.dup2(99, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


@contextmanager
def tab(folder: Path) -> Iterator[Tab]:
    """A tab of a browser that keeps its things in `folder`."""
    words = [*_browser(folder), "--remote-debugging-pipe"]
    to_browser, to_us = os.pipe(), os.pipe()
    theirs = to_browser[0], to_us[1]
    first = [sys.executable, "-S", "-c", _HANDED, *map(str, theirs)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen([*first, *words], pass_fds=theirs, stdout=quiet, stderr=quiet) as browser:
        os.close(to_browser[0])
        os.close(to_us[1])
        try:
            yield Tab(to_browser[1], to_us[0])
        finally:
            browser.terminate()
            browser.wait(timeout=20)
            os.close(to_browser[1])
            os.close(to_us[0])
