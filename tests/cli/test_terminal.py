"""How commands print: what a site said is text, whatever it looks like."""

from __future__ import annotations

from io import StringIO
from types import SimpleNamespace

from rich.console import Console

from fedprivseg.cli import terminal

MARKUP = "blocked by site policy [/red] [bold]x[/bold] :boom:"


def test_why_a_site_left_is_no_markup():
    shown = StringIO()
    result = SimpleNamespace(sites={"a": SimpleNamespace(status=MARKUP), "b": SimpleNamespace(status="ok")})
    terminal.print_missing(result, Console(file=shown, soft_wrap=True))
    assert shown.getvalue() == f"MISSING: site a {MARKUP}\n"


def test_a_cell_of_a_table_is_no_markup(monkeypatch):
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, color_system=None, width=200)
    monkeypatch.setattr(terminal, "open_console", lambda: console)
    terminal.print_table("", ["site", "status"], [["a", MARKUP]])
    assert MARKUP in shown.getvalue()
