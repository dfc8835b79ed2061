"""Every scenario of a folder with every seed and fold, a run folder each; attacked, if asked, and compared.

The work list is known before the first run. It can be cut into parts of about equal cost, always the same ones, that fill one
folder of runs; what is finished is read and not repeated, so that the same command goes on wherever it was killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import deliver, is_companion
from fedprivseg.core.kinds import kind_named
from fedprivseg.core.leakage_record import read_leakage
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.core.toml_text import Setting
from fedprivseg.methods import resolve
from fedprivseg.study import pipeline
from fedprivseg.study.compare.front import FLOOR, shares_nothing
from fedprivseg.study.compare.runs import Comparison, compare
from fedprivseg.study.preflight import refuse
from fedprivseg.study.run import preflight
from fedprivseg.study.scenarios import load_scenario

if TYPE_CHECKING:
    from fedprivseg.attacks.base import Progress

QUICK_S = 3600.0
"""How long a quick cut may take."""

ATTACK_S = {"none": 0.0, "small": 300.0, "full": 3000.0}
"""What attacking one run adds to its cost, in seconds on one core. Rough, and ours: it serves to make parts alike."""

Show = Callable[[Path, list[str]], AbstractContextManager[object]]
Warn = Callable[[Path, Sequence[str]], None]


@final
@dataclass(frozen=True)
class Plan:
    """What of a folder of scenarios is run, and how.

    Attributes:
        seeds: root seeds.
        folds: into how many folds each centre's subjects are dealt; None: as the scenarios say.
        attack: the budget of the attacks on every run.
        part: (k, n): the k-th of n parts.
        quick: the first fold and seed alone, and of these what fits into `QUICK_S`.
    """

    seeds: Sequence[int] = (0, 1, 2)
    folds: int | None = None
    attack: Literal["none", "small", "full"] = "none"
    part: tuple[int, int] = (1, 1)
    quick: bool = False

    @property
    def cuts(self) -> list[str]:
        """What a quick plan leaves out, as a sentence."""
        others = ", ".join(map(str, self.seeds[1:])) or "none"
        cut = f"Quick: seed {self.seeds[0]} and the first fold alone (left out: seeds {others}, all other folds)."
        return [cut] if self.quick else []


@final
@dataclass(frozen=True)
class Job:
    """One run of the work list.

    Attributes:
        scenario: what to run.
        folder: where.
        cost: about how long it takes on one core of any machine, in seconds.
        mine: whether it is in the part that was asked for.
    """

    scenario: Scenario
    folder: Path
    cost: float
    mine: bool

    def finished(self, attack: str) -> bool:
        """Whether its run, and the attack on it, are done."""
        if not RunFolder(self.folder).result.exists():
            return False
        found = read_leakage(self.folder) if attack != "none" and _attackable(self.scenario) else None
        return (
            attack == "none"
            or not _attackable(self.scenario)
            or (found is not None and found.budget in (attack, "full"))
        )


def planned(
    folder: Path, out: Path, plan: Plan, settings: Sequence[Setting] = (), warn: Warn | None = None
) -> list[Job]:
    """The work list: seed by seed and fold by fold, each ``*.toml`` of `folder`, into a folder of `out` each.

    All scenarios are read, and looked ahead of (`preflight`), before the first runs, so that a mistake in the last one costs no
    time. A benchmark that is stopped early has all methods with some seeds, not some methods with all.

    Args:
        folder: of scenarios.
        out: where the run folders go (`Scenario.run_name`).
        plan: what of it.
        settings: changes to every scenario, as after ``--set``.
        warn: given a run folder and what is to be known before it is run.

    Raises:
        RequestError: the folder has no scenario, the part is empty, or a scenario cannot run.
    """
    files = sorted(path for path in folder.glob("*.toml") if not is_companion(path))
    if not files:
        raise RequestError(f"{folder} holds no scenario (no *.toml); give a folder of scenarios")
    dealt: list[Setting] = [] if plan.folds is None else [("data.split", "folds"), ("data.folds", plan.folds)]
    asked = [*settings, *dealt]
    folds = {file: _folds(load_scenario(file, asked)) for file in files}
    seeds = plan.seeds[:1] if plan.quick else plan.seeds
    scenarios = [
        load_scenario(file, [*asked, ("seed", seed), *([] if fold is None else [("data.fold", fold)])])
        for seed in seeds
        for fold in dict.fromkeys(fold for each in folds.values() for fold in each[: 1 if plan.quick else None])
        for file in files
        if fold in folds[file]
    ]
    places = [out / scenario.run_name for scenario in scenarios]
    costs = _costs(scenarios, places, plan, warn)
    if plan.quick:
        order = sorted(range(len(scenarios)), key=lambda place: _first_come(scenarios[place]))
        scenarios, places = [scenarios[place] for place in order], [places[place] for place in order]
        costs = [costs[place] for place in order]
    mine = _dealt(costs, plan.part)
    if not any(mine):
        raise RequestError(
            f"there are {len(costs)} runs, so part {plan.part[0]} of {plan.part[1]} is empty; make fewer parts"
        )
    return [Job(*each) for each in zip(scenarios, places, costs, mine, strict=True)]


def carry_out(
    jobs: Sequence[Job],
    plan: Plan,
    *,
    show: Show | None = None,
    attacking: Callable[[Path], AbstractContextManager[Progress]] | None = None,
    tell: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Run, report and attack the jobs of the part, those that are not finished.

    Args:
        jobs: the work list.
        plan: its part and attacks; a quick one starts nothing that would not end within `QUICK_S`.
        show: given a run folder and its sites, what is entered while the run is under way.
        attacking: given a run folder, what is entered while it is attacked; it gives the progress.
        tell: how far it is and how long it will take, a line a job.
        clock: seconds; tests have their own.

    Returns:
        What was cut, in sentences.

    Raises:
        FedprivsegError: as `pipeline.run`.
    """
    waiting = [job for job in jobs if job.mine and not job.finished(plan.attack)]
    begun, done, cut = clock(), 0.0, []
    for number, job in enumerate(waiting):
        spent = clock() - begun
        rate = spent / done if done else 1.0  # wall seconds for a second on one core, as they were until now
        if plan.quick and done and spent + rate * job.cost > QUICK_S:
            cut.append(job.scenario.name)
            continue
        left = rate * sum(each.cost for each in waiting[number:])
        measured = "as measured until now" if done else "as estimated"
        tell(f"[{number + 1}/{len(waiting)}] {job.folder}: about {_duration(left)} left in all, {measured}")
        names = [site.name for site in job.scenario.sites]
        pipeline.run(job.scenario, job.folder, display=show(job.folder, names) if show else None)
        if plan.attack != "none" and not job.finished(plan.attack):
            with attacking(job.folder) if attacking else nullcontext(_silent) as progress:
                pipeline.attack(job.folder, plan.attack, (), (), progress)
        done += job.cost
    return [f"Quick: not started, since they would not end within 60 minutes: {', '.join(cut)}."] if cut else []


def write_comparison(out: Path, jobs: Sequence[Job], cuts: Sequence[str]) -> tuple[Comparison, list[Path]]:
    """Compare what is finished of the work list, whichever part ran it.

    Args:
        out: where page, tables and pictures go.
        jobs: the whole list.
        cuts: what was left out, in sentences.

    Returns:
        The comparison, and the files: ``compare.html``, ``compare.csv``, ``table.md``, ``compare.png``, and ``front.png`` if a
        run was attacked.

    Raises:
        RequestError: none is finished.
    """
    # Figures load matplotlib: not before the runs, of which each may load torch.
    from fedprivseg.study.compare.compare_charts import bytes_png
    from fedprivseg.study.compare.compare_page import write_page
    from fedprivseg.study.compare.compare_tables import as_csv, as_markdown, attacked
    from fedprivseg.study.compare.front_chart import leakage_png

    finished = [job.folder for job in jobs if RunFolder(job.folder).result.exists()]
    if not finished:
        raise RequestError(f"no run of the {len(jobs)} in {out} is finished; run them first")
    comparison = compare(finished)
    state = [f"{len(finished)} of {len(jobs)} runs are finished.", *cuts]
    written = [write_page(comparison, out / "compare.html")]
    written.append(deliver(out / "compare.csv", as_csv(comparison)))
    written.append(deliver(out / "table.md", as_markdown(comparison) + "".join(f"- {each}\n" for each in state)))
    written.append(deliver(out / "compare.png", bytes_png(comparison)))
    if attacked(comparison):
        written.append(deliver(out / "front.png", leakage_png(comparison)))
    return comparison, written


def _folds(scenario: Scenario) -> list[int | None]:
    """The folds of a scenario: all of its partition, or the one run without."""
    return [*range(scenario.data.folds)] if scenario.data.split == "folds" else [None]


def _costs(scenarios: Sequence[Scenario], places: Sequence[Path], plan: Plan, warn: Warn | None) -> list[float]:
    """What each run costs, the same on every machine. Raises what the pre-flight of one that is not finished refuses.

    Looked at once for all seeds and folds. Where no rate was measured a run counts as the mean of the others.
    """
    works: dict[str, float | None] = {}
    keys = []
    for scenario, place in zip(scenarios, places, strict=True):
        data = scenario.data.model_copy(update={"fold": 0})
        key = scenario.model_copy(update={"seed": 0, "data": data}).sha256
        keys.append(key)
        if key in works:
            continue
        ahead = preflight(scenario, place)
        if not RunFolder(place).result.exists():
            refuse(ahead)
            if warn is not None and ahead.warnings:
                warn(place, ahead.warnings)
        works[key] = ahead.work
    known = [work for work in works.values() if work is not None]
    usual = sum(known) / len(known) if known else 1.0
    each = [usual if (work := works[key]) is None else work for key in keys]
    return [
        work + (ATTACK_S[plan.attack] if _attackable(scenario) else 0.0)
        for work, scenario in zip(each, scenarios, strict=True)
    ]


def _dealt(costs: Sequence[float], part: tuple[int, int]) -> list[bool]:
    """Which runs are in a part: the dearest first, each to the part that has least so far (Graham, SIAM Journal on Applied
    Mathematics 17(2):416, 1969); of equal ones the first."""
    loads, parts = [0.0] * part[1], [0] * len(costs)
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        parts[place] = min(range(part[1]), key=lambda each: (loads[each], each))
        loads[parts[place]] += costs[place]
    return [each == part[0] - 1 for each in parts]


def _first_come(scenario: Scenario) -> int:
    """In a quick cut: the reference first, then floor and ceiling, then the others as they come."""
    if scenario.name == scenario.compare.reference:
        return 0
    raw = any(kind_named(each).raw for each in resolve(scenario.method).declared)
    return 1 if scenario.method.name == FLOOR else 2 if raw else 3


def _attackable(scenario: Scenario) -> bool:
    """Whether attacks could tell more than is known: not where raw data leaves, nor where nothing has to but scores and
    counts."""
    method = resolve(scenario.method)
    return not (shares_nothing(method.name, method.declared) or any(kind_named(each).raw for each in method.declared))


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody wants to hear of."""
