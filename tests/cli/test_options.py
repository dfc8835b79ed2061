"""Arguments and options that several groups of commands have are stated in one place."""

from __future__ import annotations

import ast

from conftest import ROOT


def test_no_argument_or_option_is_stated_in_two_files():
    stated = {}
    for path in (ROOT / "fedprivseg/cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Option", "typer.Argument"):
                stated.setdefault(ast.unparse(node), set()).add(path.name)
    assert len(stated) > 50
    assert {call: files for call, files in stated.items() if len(files) > 1} == {}
