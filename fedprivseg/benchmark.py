"""Every scenario of a folder with every seed, one run folder each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from fedprivseg.compute import require_gpus
from fedprivseg.errors import RequestError
from fedprivseg.files import is_companion
from fedprivseg.report.page import write_report
from fedprivseg.run import load_scenario, simulate
from fedprivseg.toml_text import Setting

Show = Callable[[Path, list[str]], AbstractContextManager[object]]
"""Given a run folder and its sites, what is entered while the run is under way."""


def run_all(
    folder: Path, out: Path, seeds: Sequence[int], settings: Sequence[Setting] = (), show: Show | None = None
) -> list[Path]:
    """Run each ``*.toml`` of `folder` with each seed into ``out/<name>-<seed>``; returns the run folders.

    All scenarios are read before the first runs, so that a mistake in the last one costs no time. Finished runs are read,
    not repeated. Raises RequestError if the folder has no scenario, and what `simulate` raises.
    """
    files = sorted(path for path in folder.glob("*.toml") if not is_companion(path))
    if not files:
        raise RequestError(f"{folder} holds no scenario (no *.toml); give a folder of scenarios")
    # Seed by seed: a benchmark that is stopped early has all methods with some seeds, not some methods with all.
    scenarios = [load_scenario(file, [*settings, ("seed", seed)]) for seed in seeds for file in files]
    places = [out / f"{scenario.name}-{scenario.seed}" for scenario in scenarios]
    for scenario, place in zip(scenarios, places, strict=True):
        require_gpus(0 if (place / "result.json").exists() else scenario.resources.gpus)
    for scenario, place in zip(scenarios, places, strict=True):
        display = show(place, [site.name for site in scenario.sites]) if show else None
        simulate(scenario, place, display=display)
        write_report(place)
    return places
