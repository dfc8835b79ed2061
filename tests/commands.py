"""Commands called as a user calls them, and what a site's folder holds afterwards."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.core.errors import FedprivsegError
from fedprivseg.governance.ledger import ledger

SITE = "centre2"


def call(*words):
    """What a command prints. Raises what it raises."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words, status=2):
    """The message with which a command is refused, and its exit status."""
    with pytest.raises(FedprivsegError) as caught:
        CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert caught.value.status == status
    return str(caught.value)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def last(home):
    ledger.verify(home / "ledger.jsonl")
    line = ledger.read(home / "ledger.jsonl")[-1]
    return line.event, line.facts
