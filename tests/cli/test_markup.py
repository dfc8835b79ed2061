"""What is printed is text: brackets in a path or a name are no markup, on a terminal and in a pipe."""

from __future__ import annotations

import ast
import time

import pytest
from conftest import ROOT

from fedprivseg.cli.display import Display
from fedprivseg.cli.terminal import bar, open_console, print_table
from fedprivseg.core.progress import ProgressFile

NAMES = ["[/red]", "[bold]x", "[link=http://x]y[/link]", ":smile:", "[[a]]", "a\\[b", "[red", "[@click=x]"]


@pytest.fixture(params=["terminal", "pipe"])
def where(request, monkeypatch):
    """Printing goes to a terminal of 200 columns, or to a pipe."""
    if request.param == "terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "200")
    return request.param


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_printed_as_it_is(where, name, capfd):
    open_console().print(f"run: /data/{name} -> x", highlight=False)
    print_table(name, ["site", name], [[name, "1"]])
    with bar(name, open_console()) as step:
        step(1, 2, name)
    out, errors = capfd.readouterr()
    assert f"/data/{name} -> x" in out
    table = out.split("-> x", 1)[1]
    assert table.count(name) >= (3 if where == "terminal" else 2)
    assert name in (out if where == "terminal" else errors)


@pytest.mark.parametrize("name", NAMES)
def test_progress_is_shown_as_it_is(where, name, tmp_path, capfd):
    (tmp_path / "server").mkdir()
    ProgressFile(tmp_path / "server" / "progress.json")(name, 1, 2)
    out, end = "", time.monotonic() + 30
    with Display(tmp_path, [], open_console()):
        while where == "terminal" and name not in out and time.monotonic() < end:
            time.sleep(0.05)
            out += capfd.readouterr().out
    assert name in out + capfd.readouterr().out


def test_nothing_in_the_command_line_reads_markup():
    """Every console is `open_console`'s, and every column of text says that it takes none."""
    for path in (ROOT / "fedprivseg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            options = {each.arg: ast.unparse(each.value) for each in node.keywords}
            if node.func.id in ("Console", "TextColumn"):
                assert options.get("markup") == "False", f"{path.name} line {node.lineno}"
            assert node.func.id != "print" or path.parent.name == "cli", f"{path.name} line {node.lineno}"
            assert not (node.func.id == "Progress" and not node.args), (
                f"{path.name} line {node.lineno}: default columns"
            )
