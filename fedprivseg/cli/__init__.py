"""The command line: `root` puts every command in its place, every other module has a group of them or how they show."""

from fedprivseg.cli.process import main
from fedprivseg.cli.root import app

__all__ = ["app", "main"]
