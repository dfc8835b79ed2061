"""Pages as a browser lays them out: what of them is cut off at which width. Skips a test where there is no Chromium."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path

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
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here to lay pages out")
    frames = "".join(
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(page)}"></iframe>'
        for width in WIDTHS
    )
    sheet = folder / "frames.html"
    sheet.write_text(
        f'<!DOCTYPE html><meta charset="utf-8">{frames}<script>addEventListener("load", () => {{{_MEASURE}}})</script>',
        encoding="utf-8",
    )
    quiet = ("gpu", "background-networking", "component-update", "sync", "extensions")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in quiet),
            f"--user-data-dir={folder / 'browser'}", "--window-size=1800,1000", "--dump-dom", sheet.as_uri(),
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = html.unescape(done.stdout.split("<pre>")[1].split("</pre>")[0])
    return {int(width): measured for width, measured in json.loads(found).items()}


def cut_off(page: str, folder: Path) -> dict[int, list[str]]:
    """Width -> the elements of the page that are cut off there; no width where nothing is."""
    return {width: found["faults"] for width, found in laid_out(page, folder).items() if found["faults"]}
