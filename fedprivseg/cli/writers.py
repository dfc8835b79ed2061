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
    """The command `command`, refused while somebody else works in the run's folder, its argument ``run_folder``.

    A site's folder outside of any run is the hospital's own affair.
    """

    @wraps(command)
    def alone_there(*args: P.args, **kwargs: P.kwargs) -> R:
        folder = Path(str(kwargs["run_folder"]))
        if not (folder / _RUN).exists():
            return command(*args, **kwargs)
        with alone(folder):
            return command(*args, **kwargs)

    return alone_there
