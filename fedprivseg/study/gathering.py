"""What was measured, put together: the server's accounts and the sites' measures become a `Result`."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fedprivseg.core.compute import arithmetic_name
from fedprivseg.core.config import Scenario
from fedprivseg.core.documents import read_document
from fedprivseg.core.errors import RunError
from fedprivseg.core.records import Budget, CrossSite, CurvePoint, Payload
from fedprivseg.core.results import Result, Row, Scores, SiteResult, failures, metric_rows
from fedprivseg.core.simulated_time import SimulatedTime
from fedprivseg.core.task import SegmentationTask
from fedprivseg.imaging.datasets import DATASETS
from fedprivseg.methods import METHODS, resolve
from fedprivseg.protections import PROTECTIONS
from fedprivseg.study.clock.exchanges import recorded
from fedprivseg.study.clock.timeline import let_pass
from fedprivseg.study.clock.what_if import profiles_of


def gather(
    folder: Path, scenario: Scenario, wall_s: float, resumed: bool, notes: tuple[str, ...], fingerprints: dict[str, Any]
) -> Result:
    """The result of the run in `folder`, whose server has ended.

    Args:
        folder: the run's.
        scenario: what was run.
        wall_s: how long it took, in seconds.
        resumed: whether it went on with an interrupted run.
        notes: what the result says of its data.
        fingerprints: fields that tell whose data it was, where that is known.

    Raises:
        RunError: no site finished.
    """
    accounts = read_document(folder / "server" / "accounts.json")
    sites: dict[str, SiteResult] = {}
    rows: list[Row] = []
    means: list[float] = []
    task = scenario.task
    fold = scenario.data.fold if scenario.data.split == "folds" else None
    for site in scenario.sites:
        account = accounts["sites"][site.name]
        path = folder / "server" / "metrics" / f"{site.name}.safetensors"
        values = _measured(path) if path.exists() else {}
        dice = _scores(values.get("dice"), task)
        rows += metric_rows(site.name, values, len(values["dice"]) if values else 0, task, fold)
        if dice.mean is not None:
            means.append(dice.mean)
        counts = {key: account["facts"].get(key, 0) for key in _COUNTS}
        costs = {key: account[key] for key in ("status", "bytes_up", "bytes_down", "seconds", "peak_rss_mb")}
        sites[site.name] = SiteResult(
            **counts,
            **costs,
            dice=dice,
            hd95_mm=_scores(values.get("hd95_mm"), task),
            assd_mm=_scores(values.get("assd_mm"), task),
            notes=tuple(account["notes"]),
        )
    if all(result.status != "ok" for result in sites.values()):
        raise RunError("no site finished: " + "; ".join(f"{name}: {result.status}" for name, result in sites.items()))
    method = resolve(scenario.method)
    return Result(
        scenario=scenario.model_dump(mode="json"),
        scenario_sha256=scenario.sha256,
        seed=scenario.seed,
        method=method.name,
        variant=method.variant,
        engine=scenario.engine,
        exports=tuple(sorted(method.declared)),
        sites=sites,
        mean_dice={name: _mean([site.dice.structures[name] for site in sites.values()]) for name in task.names},
        overall_dice=_mean(means),
        stages=accounts["stages"],
        wall_s=wall_s,
        resumed=resumed,
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        environment=_environment(scenario),
        notes=(*failures(sites), *notes),
        **fingerprints,
        curve=_entries(accounts, CurvePoint),
        cross_site=_entries(accounts, CrossSite),
        budgets=_entries(accounts, Budget),
        simulated_time=_simulated_time(folder, scenario),
        metrics=tuple(rows),
    )


def _simulated_time(folder: Path, scenario: Scenario) -> SimulatedTime | None:
    """What the run in `folder` would take between its hospitals; None where nobody said what these are like."""
    if all(site.profile is None for site in scenario.sites):
        return None
    return let_pass(recorded(folder), profiles_of(scenario), scenario.seed, scenario.deadline_s)


def _entries(accounts: dict[str, Any], kind: type[Any]) -> tuple[Any, ...]:
    """What the method recorded of one kind, in the order in which it did."""
    return tuple(kind(**fields) for fields in accounts["entries"].get(kind.__name__, {}).values())


_COUNTS = ("subjects_train", "subjects_test", "slices_train", "slices_test")


def _measured(path: Path) -> dict[str, np.ndarray]:
    """The measures of one site's METRIC payload, NaN where it says that they are undefined."""
    arrays = Payload.decode(path.read_bytes()).arrays
    return {
        name: np.where(arrays[f"{name}_known"].astype(bool), value, np.nan)
        for name, value in arrays.items()
        if f"{name}_known" in arrays
    }


def _scores(values: np.ndarray | None, task: SegmentationTask) -> Scores:
    """Means over subjects and time points: (subjects, time points, structures) -> one number a structure, and their mean."""
    if values is None:
        return Scores(structures=dict.fromkeys(task.names), mean=None)
    found = {name: values[:, :, index] for index, name in enumerate(task.names)}
    each = {name: float(np.nanmean(value)) if np.isfinite(value).any() else None for name, value in found.items()}
    return Scores(structures=each, mean=_mean(each.values()), missing=int(np.isnan(values).sum()))


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _environment(scenario: Scenario) -> dict[str, str]:
    half = scenario.method.parameters.get("half", False)
    packages = ("fedprivseg", "flwr", "monai", "nibabel", "numpy", "ray", "safetensors", "torch")
    return {
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": str(os.cpu_count()),
        "arithmetic": arithmetic_name("cuda" if scenario.resources.gpus else "cpu", half),
        **{name: version(name) for name in packages},
        **DATASETS.packages([scenario.data.format]),
        **METHODS.packages([scenario.method.name]),
        **PROTECTIONS.packages(config.name for config in scenario.protections),
    }
