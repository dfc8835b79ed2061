"""Engines: the same server and site programs, brought together in different ways. One module each, one line here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from fedprivseg.config import Scenario

ENGINES = ("inline", "ray")


def engine(name: str) -> Callable[[Path, Scenario], None]:
    """The engine's ``run(folder, scenario)``. Imported on use: Ray takes seconds."""
    run: Callable[[Path, Scenario], None] = import_module(f"fedprivseg.engines.{name}").run
    return run
