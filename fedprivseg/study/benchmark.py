"""Every scenario of a folder with every seed, one run folder each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import is_companion
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.core.toml_text import Setting
from fedprivseg.study import pipeline
from fedprivseg.study.preflight import refuse
from fedprivseg.study.run import preflight
from fedprivseg.study.scenarios import load_scenario

Show = Callable[[Path, list[str]], AbstractContextManager[object]]
Warn = Callable[[Path, Sequence[str]], None]


def run_all(
    folder: Path,
    out: Path,
    seeds: Sequence[int],
    settings: Sequence[Setting] = (),
    show: Show | None = None,
    warn: Warn | None = None,
) -> list[Path]:
    """Run and report each ``*.toml`` of `folder` with each seed, in a folder of `out` each (`Scenario.run_name`).

    All scenarios are read, and looked ahead of (`preflight`), before the first runs, so that a mistake in the last one costs no
    time. Finished runs are read, not repeated.

    Args:
        folder: of scenarios.
        out: where the run folders go.
        seeds: root seeds.
        settings: changes to every scenario, as after ``--set``.
        show: given a run folder and its sites, what is entered while the run is under way.
        warn: given a run folder and what is to be known before it is run.

    Returns:
        The run folders.

    Raises:
        RequestError: the folder has no scenario.
        FedprivsegError: as `pipeline.run`.
    """
    files = sorted(path for path in folder.glob("*.toml") if not is_companion(path))
    if not files:
        raise RequestError(f"{folder} holds no scenario (no *.toml); give a folder of scenarios")
    # Seed by seed: a benchmark that is stopped early has all methods with some seeds, not some methods with all.
    scenarios = [load_scenario(file, [*settings, ("seed", seed)]) for seed in seeds for file in files]
    places = [out / scenario.run_name for scenario in scenarios]
    _look_ahead(scenarios, places, warn)
    for scenario, place in zip(scenarios, places, strict=True):
        display = show(place, [site.name for site in scenario.sites]) if show else None
        pipeline.run(scenario, place, display=display)
    return places


def _look_ahead(scenarios: Sequence[Scenario], places: Sequence[Path], warn: Warn | None) -> None:
    """The pre-flight of every run that is not finished, once for all seeds. Raises what is refused."""
    seen = set()
    for scenario, place in zip(scenarios, places, strict=True):
        whatever_seed = scenario.model_copy(update={"seed": 0}).sha256
        if whatever_seed in seen or RunFolder(place).result.exists():
            continue
        seen.add(whatever_seed)
        ahead = preflight(scenario, place)
        refuse(ahead)
        if warn is not None and ahead.warnings:
            warn(place, ahead.warnings)
