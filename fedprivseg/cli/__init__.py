"""The command line: `commands` has those of a run, every other module a group of commands or how they show what they do."""

from fedprivseg.cli.commands import app
from fedprivseg.cli.process import main

__all__ = ["app", "main"]
