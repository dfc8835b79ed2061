"""fedprivseg: simulate, compare and audit the ways in which hospitals can segment images together without sharing them."""

from __future__ import annotations

import os as _os
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

# Flower reads this when it is first imported, and its telemetry is on unless it is "0".
_os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
# Server and sites share a machine. A thread of torch that waits for its neighbours must sleep: when it spins and another
# process has its core, a training step was measured to take up to 40 times as long. OpenMP reads this when torch loads.
_os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

_HOMES = {
    "FedprivsegError": "core.errors",
    "Result": "core.results",
    "Scenario": "core.config",
    "load_scenario": "study.scenarios",
    "simulate": "study.run",
}

__all__ = ["FedprivsegError", "Result", "Scenario", "__version__", "load_scenario", "simulate"]

if _TYPE_CHECKING:
    from fedprivseg.core.config import Scenario
    from fedprivseg.core.errors import FedprivsegError
    from fedprivseg.core.results import Result
    from fedprivseg.study.run import simulate
    from fedprivseg.study.scenarios import load_scenario


def __getattr__(name: str) -> _Any:
    # Imported on use, so that `fedprivseg --help` does not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f"fedprivseg.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    # What is imported on use is there, too.
    return sorted({*globals(), *__all__} - {"annotations"})
