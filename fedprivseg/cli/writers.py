"""Commands that write into a run's folder: one at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from fedprivseg.core.lock import alone

_RUN = "scenario.json"
"""By this file a folder is known as a run's; a command says itself what is wrong with another."""

P = ParamSpec("P")
R = TypeVar("R")


def writer(command: Callable[P, R]) -> Callable[P, R]:
    """The command `command`, refused while somebody else works in the run's folder.

    The command is given that as ``run_folder``, or as ``home`` the folder of a site in it; one outside of any run is the
    hospital's own affair.
    """

    @wraps(command)
    def alone_there(*args: P.args, **kwargs: P.kwargs) -> R:
        given = {name: Path(str(kwargs[name])) for name in ("run_folder", "home") if name in kwargs}
        folder = given.get("run_folder") or given["home"].resolve().parent.parent
        if not (folder / _RUN).exists():
            return command(*args, **kwargs)
        with alone(folder):
            return command(*args, **kwargs)

    return alone_there
