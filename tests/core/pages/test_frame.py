"""The frame of all pages: every template is in it, and what is wide scrolls by itself."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
from browser import WIDTHS, cut_off, laid_out
from jinja2 import Environment, PackageLoader, UndefinedError

from fedprivseg.core.pages.frame import render

TEMPLATES = (
    "governance/lineage/lineage_page.html",
    "study/compare/compare_page.html",
    "study/report/report_page.html",
)
SHEET = files("fedprivseg").joinpath("core/pages/sheet.css").read_text(encoding="utf-8")


def source(template: str) -> str:
    return files("fedprivseg").joinpath(template).read_text(encoding="utf-8")


def page(body: str) -> str:
    """A page in the frame with this body."""
    environment = Environment(loader=PackageLoader("fedprivseg", "."), autoescape=True)
    return environment.from_string(
        '{% extends "core/pages/frame.html" %}{% block body %}' + body + "{% endblock %}"
    ).render()


def test_these_are_all_pages():
    package = Path(str(files("fedprivseg")))
    every = {path.relative_to(package).as_posix() for path in package.rglob("*.html")}
    assert every == {*TEMPLATES, "core/pages/frame.html"}


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_table_scrolls_by_itself_and_its_caption_stays(template):
    text = source(template)
    assert text.startswith('{% extends "core/pages/frame.html" %}')
    loose = re.findall(r'(?<!">)<table', re.sub(r'<div class="columns">.*?\n</div>', "", text, flags=re.DOTALL))
    assert not loose
    assert len(re.findall(r'class="scroll[^"]*"', text)) == len(re.findall(r'tabindex="0" class="scroll', text))
    assert text.count("<caption>") == text.count("<caption><span>")


@pytest.mark.parametrize("template", TEMPLATES)
def test_colours_come_from_the_sheet_so_that_a_dark_page_is_whole(template):
    style = source(template).split("{% block style %}")[1].split("{% endblock %}")[0]
    # Slices are on black, codes on white, whatever the page is on.
    assert set(re.findall(r"#[0-9a-fA-F]{3,6}\b", style)) <= {"#000", "#fff", "#9fb3c8"}
    assert set(re.findall(r"var\((--[\w-]+)\)", style)) <= set(re.findall(r"(--[\w-]+):", SHEET))


def test_text_is_escaped_and_a_missing_value_is_an_error():
    with pytest.raises(UndefinedError):
        render("governance/lineage/lineage_page.html", title="x")


def test_a_wide_table_scrolls_and_its_caption_does_not(tmp_path):
    """A word of 100 characters, a table of 30 columns and a caption of many words fit every width."""
    cells = "".join(f"<td class='n'>{number}.000</td>" for number in range(30))
    body = (
        f"<main><h1>{'x' * 100}</h1><section><h2>Wide</h2><div class='scroll'><table><caption><span>{'many words ' * 30}</span>"
        f"</caption><tbody><tr><th scope='row'>a</th>{cells}</tr></tbody></table></div></section></main>"
    )
    found = laid_out(page(body), tmp_path)
    assert [found[width]["faults"] for width in WIDTHS] == [[], [], [], []]
    assert found[1100]["scrolling"] == ["Wide"]


def test_the_measure_finds_what_is_cut_off(tmp_path):
    """The control: a caption as wide as its table, and a picture that is too wide, are found."""
    body = "<div class='scroll'><table><caption>{}</caption><td style='min-width:900px'>1</td></table></div><img width=500>"
    found = cut_off(page(body.format("many words " * 30)), tmp_path)
    assert found == {400: ["page: 520", "CAPTION ", "IMG "], 768: ["CAPTION "]}
