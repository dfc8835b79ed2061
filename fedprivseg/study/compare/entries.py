"""One method of a comparison: what its runs over seeds and folds say together.

The subject is the unit of every statistic: its Dice is the mean over time points, structures and seeds. A mean Dice is the mean
over sites of the mean over a site's subjects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedprivseg.core.kinds import kind_named
from fedprivseg.core.leakage_result import Interval, Leakage
from fedprivseg.core.measures import mean_interval
from fedprivseg.core.records import Budget
from fedprivseg.core.results import Result, Row
from fedprivseg.study.compare.front import Point, group_of, shares_nothing
from fedprivseg.study.compare.paired import Difference, Subjects
from fedprivseg.study.compare.pooled_leakage import pooled_leakage

_Measure = Callable[[Row], float | None]


@dataclass(frozen=True)
class Curve:
    """A learning curve, mean over sites, seeds and folds: one value for each round in which nets were scored."""

    rounds: tuple[int, ...]
    megabytes: tuple[float, ...]
    dice: tuple[float, ...]


@dataclass(frozen=True)
class Distances:
    """HD95 in mm.

    Attributes:
        mean: over sites and subjects, of the distances that are defined; None if none is.
        interval: 95 % over subjects; NaN where there is none.
        penalised: the mean with `penalty` for each structure that only the truth or only the prediction has.
        undefined: how many of the cells have no distance.
        cells: (subject, time point, structure) of all seeds.
    """

    mean: float | None
    interval: Interval
    penalised: float | None
    undefined: int
    cells: int


@dataclass(frozen=True)
class Entry:
    """One method in the table.

    Attributes:
        label: what tells it from the others, the same everywhere.
        scenario: the name of its (first) scenario.
        grid: of its networks, in words.
        group: with which others its front is drawn.
        folds: of a cross-validation; empty without one.
        subjects: how many were tested.
        sites: site -> mean Dice over subjects and seeds.
        mean: Dice over sites.
        dice: the same of each seed.
        dice_interval: 95 %, a t interval over subjects within sites, seeds averaged (`measures.mean_interval`).
        up: MB that a site sent.
        down: MB that a site received.
        minutes: wall time of a run.
        compute_minutes: the sites' own clocks, summed.
        simulated_s: what a run would take between its hospitals; None where no profile of theirs was stated.
        peak_mb: memory of the largest process.
        forbidden: whether raw data left, which policy forbids.
        silent: whether nothing has to leave but scores and counts.
        leakage: the headline over the runs that were attacked (`pooled_leakage`): 0 also where nothing has to leave, 1 where
            raw data left; None where it is not known, or was not measured.
        leakage_interval: its 95 % interval; None for none.
        leakage_by: which attack reached it; why it is not known.
        unknown: whether it was attacked and of some stream no attack passed its control.
        at_least: the same of what is known of a leakage that is not; None where nothing is.
        difference: against the reference.
        above_floor: against the floor.
    """

    label: str
    scenario: str
    grid: str
    method: str
    variant: str
    group: str
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    subjects: int
    sites: Mapping[str, float | None]
    mean: float
    dice: tuple[float, ...]
    dice_interval: Interval
    hd95: Distances
    up: float
    down: float
    rounds: int | None
    local_steps: int | None
    minutes: float
    compute_minutes: float
    simulated_s: float | None
    peak_mb: float
    forbidden: bool
    silent: bool
    budget: Budget | None
    curve: Curve | None
    cross_site: Mapping[tuple[str, str], float]
    leakage: float | None
    leakage_interval: Interval | None
    leakage_by: str
    unknown: bool
    at_least: float | None
    difference: Difference | None = None
    above_floor: Difference | None = None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (n - 1); None for one seed, and where seeds are not of the same folds."""
        return float(np.std(self.dice, ddof=1)) if len(self.dice) > 1 else None

    @property
    def point(self) -> Point | None:
        """Its place on the front; None where its leakage is not known."""
        return None if self.leakage is None else (self.leakage, self.mean)


def promise(budget: Budget) -> float:
    """Its epsilon, infinite where nothing is promised."""
    return math.inf if budget.epsilon is None else budget.epsilon


def grid_of(result: Result) -> str:
    """The grid of a run's networks, in words."""
    grid = result.scenario["grid"]
    return f"{grid['height']} x {grid['width']} pixels of {grid['spacing']} mm"


def fold_of(result: Result) -> int | None:
    """Which fold of a cross-validation a run tested; None if it is none."""
    data = result.scenario["data"]
    return int(data["fold"]) if data["split"] == "folds" else None


def entry_of(label: str, group: Sequence[Result], leaks: Sequence[Leakage | None], penalty: float) -> Entry:
    """What the runs of one method say together.

    Args:
        label: what it is called.
        group: its runs.
        leaks: what attacks on each of them found; None for a run that was not attacked.
        penalty: mm that a missed structure counts.
    """
    first, dice = group[0], subject_dice(group)
    parameters = first.scenario["method"]["parameters"]
    by_seed = {seed: [run for run in group if run.seed == seed] for seed in sorted({run.seed for run in group})}
    same = len({frozenset(map(fold_of, runs)) for runs in by_seed.values()}) == 1
    raw = any(kind_named(each).raw for each in first.exports)
    silent = shares_nothing(first.method, first.exports)
    return Entry(
        label=label,
        scenario=str(first.scenario["name"]),
        grid=grid_of(first),
        method=first.method,
        variant=first.variant,
        group=str(first.scenario.get("compare", {}).get("group") or group_of(first.exports)),
        seeds=tuple(by_seed),
        folds=tuple(sorted({fold for run in group if (fold := fold_of(run)) is not None})),
        subjects=len(dice),
        sites={name: _mean([value for (site, _), value in dice.items() if site == name]) for name in first.sites},
        mean=_over_sites(dice),
        dice=tuple(_over_sites(subject_dice(runs)) for runs in by_seed.values()) if same else (_over_sites(dice),),
        dice_interval=_interval(dice, 1.0),
        hd95=_distances(group, penalty),
        up=_megabytes(group, "bytes_up"),
        down=_megabytes(group, "bytes_down"),
        rounds=parameters.get("rounds"),
        local_steps=parameters.get("local_steps"),
        minutes=float(np.mean([run.wall_s for run in group])) / 60,
        compute_minutes=float(np.mean([sum(site.seconds for site in run.sites.values()) for run in group])) / 60,
        simulated_s=_mean([run.simulated_time.total_s for run in group if run.simulated_time is not None]),
        peak_mb=max(max(run.peak_rss_mb, *(site.peak_rss_mb for site in run.sites.values())) for run in group),
        forbidden=raw,
        silent=silent,
        budget=max(first.budgets, key=promise, default=None),
        curve=_curve(group),
        cross_site=_cross_site(group),
        **_leakage(leaks, raw, silent),
    )


def subject_dice(group: Sequence[Result]) -> Subjects:
    """(site, subject) -> Dice, mean over time points, structures and seeds."""
    return _subjects(group, lambda row: row.dice)


def _subjects(group: Sequence[Result], measure: _Measure) -> Subjects:
    """(site, subject) -> mean over time points, structures and seeds of what is defined; subjects without any are left out."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in group:
        for row in run.metrics:
            value = measure(row)
            if value is not None:
                found.setdefault((row.site, row.subject), []).append(value)
    return {subject: float(np.mean(values)) for subject, values in sorted(found.items())}


def _by_site(subjects: Subjects) -> list[np.ndarray]:
    names = sorted({site for site, _ in subjects})
    return [np.array([value for (site, _), value in subjects.items() if site == name]) for name in names]


def _over_sites(subjects: Subjects) -> float:
    return float(np.mean([values.mean() for values in _by_site(subjects)])) if subjects else float("nan")


def _interval(subjects: Subjects, most: float) -> Interval:
    """The interval of `_over_sites`, inside of 0 to `most`."""
    low, high = mean_interval(_by_site(subjects))
    return (max(low, 0.0), min(high, most)) if low == low else (low, high)


def _distances(group: Sequence[Result], penalty: float) -> Distances:
    def counted(row: Row) -> float | None:
        # A Dice without a distance: only one of truth and prediction has the structure.
        return penalty if row.hd95_mm is None and row.dice is not None else row.hd95_mm

    known, all_cells = _subjects(group, lambda row: row.hd95_mm), _subjects(group, counted)
    return Distances(
        mean=_over_sites(known) if known else None,
        interval=_interval(known, float("inf")),
        penalised=_over_sites(all_cells) if all_cells else None,
        undefined=sum(row.hd95_mm is None for run in group for row in run.metrics),
        cells=sum(len(run.metrics) for run in group),
    )


def _leakage(leaks: Sequence[Leakage | None], raw: bool, silent: bool) -> dict[str, Any]:
    """The fields of an `Entry` on leakage."""
    attacked = [leak for leak in leaks if leak is not None]
    worst = pooled_leakage(attacked)
    unknown = bool(attacked) and (worst is None or any(leak.unknown for leak in attacked))
    fields = {"leakage": None, "leakage_interval": None, "leakage_by": "", "unknown": unknown, "at_least": None}
    if raw or silent:
        why = "raw data left" if raw else "nothing has to leave but scores and counts"
        return {**fields, "unknown": False, "leakage": float(raw), "leakage_by": why}
    if unknown:
        by = f"; of the others {worst.by}" if worst is not None else ""
        return {
            **fields,
            "at_least": None if worst is None else worst.value,
            "leakage_by": f"of a stream no attack passed its control{by}",
        }
    if worst is None:
        return fields
    return {**fields, "leakage": worst.value, "leakage_interval": worst.interval, "leakage_by": worst.by}


def _curve(group: Sequence[Result]) -> Curve | None:
    """Rounds that every run of the group scored."""
    each = []
    for run in group:
        scored: dict[int, list[tuple[float, int]]] = {}
        for point in run.curve:
            if point.dice is not None:
                scored.setdefault(point.round, []).append((point.dice, point.sent))
        each.append(scored)
    rounds = sorted(set.intersection(*(set(scored) for scored in each)))
    if not rounds:
        return None
    pooled = {number: [pair for scored in each for pair in scored[number]] for number in rounds}
    return Curve(
        tuple(rounds),
        tuple(float(np.mean([sent for _, sent in pooled[number]])) / 1e6 for number in rounds),
        tuple(float(np.mean([dice for dice, _ in pooled[number]])) for number in rounds),
    )


def _cross_site(group: Sequence[Result]) -> dict[tuple[str, str], float]:
    """(trained at, measured at) -> Dice, mean over seeds and folds."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in group:
        for cell in run.cross_site:
            found.setdefault((cell.trained_at, cell.measured_at), []).append(cell.dice)
    return {pair: float(np.mean(values)) for pair, values in found.items()}


def _megabytes(group: Sequence[Result], field: str) -> float:
    return float(np.mean([getattr(site, field) for run in group for site in run.sites.values()])) / 1e6


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
