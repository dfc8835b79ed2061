"""Runs side by side: one row a method, over its seeds, with intervals, paired differences and what it cost.

Only runs on the same subjects, split and grid may stand in one table. Runs that differ in nothing but their seed are one
method. The subject is the unit of every statistic: its Dice is the mean over time points, structures and seeds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.core.kinds import kind_named
from fedprivseg.core.leakage_result import Leakage, read_leakage
from fedprivseg.core.measures import bootstrap_interval
from fedprivseg.core.records import Budget
from fedprivseg.core.results import Result, read_result
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.study.compare.names import names_of

Interval = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A learning curve, mean over sites and seeds: one value for each round in which nets were scored."""

    rounds: tuple[int, ...]
    megabytes: tuple[float, ...]
    dice: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """Subjects paired with those of the reference.

    Attributes:
        median: of Dice minus the reference's.
        p: Wilcoxon's, two-sided; None where all differences are 0.
        p_holm: the same after Holm's correction for the number of methods compared.
        subjects: how many pairs.
    """

    median: float
    p: float | None
    p_holm: float | None
    subjects: int


@dataclass(frozen=True)
class Entry:
    """One method in the table.

    Attributes:
        label: what tells it from the others, the same everywhere.
        scenario: the name of its (first) scenario.
        sites: site -> mean Dice over seeds.
        dice: over sites, a value a seed.
        dice_interval: 95 % bootstrap over subjects, seeds averaged.
        hd95_mm: mean over sites and seeds where it is defined.
        undefined: how many of the (subject, time point, structure) cells of all seeds have no distance.
        up: MB that a site sent.
        down: MB that a site received.
        minutes: wall time.
        compute_minutes: the sites' own clocks, summed.
        peak_mb: memory of the largest process.
        forbidden: whether raw data left, which policy forbids.
        leakage: normalised leakage of images under the worst attack, mean over the seeds that were attacked; 0 where no attack
            reconstructed more than the floor, 1 where raw data left.
        control_failed: whether the attacks failed where they have to succeed, so that the leakage is not known.
    """

    label: str
    scenario: str
    method: str
    variant: str
    seeds: tuple[int, ...]
    sites: Mapping[str, float | None]
    dice: tuple[float, ...]
    dice_interval: Interval
    hd95_mm: float | None
    hd95_interval: Interval
    undefined: int
    up: float
    down: float
    rounds: int | None
    local_steps: int | None
    minutes: float
    compute_minutes: float
    peak_mb: float
    forbidden: bool
    budget: Budget | None
    curve: Curve | None
    cross_site: Mapping[tuple[str, str], float]
    leakage: float | None
    control_failed: bool
    difference: Difference | None = None

    @property
    def mean(self) -> float:
        """Mean Dice over sites and seeds."""
        return float(np.mean(self.dice))

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (n - 1); None for one seed."""
        return float(np.std(self.dice, ddof=1)) if len(self.dice) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """The table.

    Attributes:
        entries: best mean Dice first, what policy forbids last.
        sites: their names, in order.
        reference: the label that differences are against.
        facts: (name, value) of what all runs share, in words.
    """

    entries: tuple[Entry, ...]
    sites: tuple[str, ...]
    reference: str
    facts: tuple[tuple[str, str], ...]


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """The run folders among `folders` and in them. Raises FolderError for a folder without any finished run."""
    found: list[Path] = []
    for folder in folders:
        inside = sorted(path.parent for path in folder.glob("*/result.json"))
        if RunFolder(folder).result.exists():
            found.append(folder)
        elif inside:
            found += inside
        else:
            raise FolderError(f"{folder} holds no finished run (no result.json); run a scenario into it first")
    return found


def compare(folders: Sequence[Path], reference: str | None = None) -> Comparison:
    """Read finished runs and put them side by side.

    Args:
        folders: of runs, or folders that hold some.
        reference: a label, or the name of a scenario that one entry alone has; None for the first entry that policy allows.

    Raises:
        FolderError: a folder holds no finished run.
        RequestError: runs on different subjects, splits, sites or grids (naming what differs), or an unknown reference.
    """
    runs = [(folder, read_result(folder)) for folder in run_folders(folders)]
    _check_alike(runs)
    labels = _labels(runs)
    leaks = {id(result): read_leakage(folder) for folder, result in runs}
    entries = [
        _entry(label, sorted(group, key=lambda r: r.seed), [leaks[id(result)] for result in group])
        for label, group in labels.items()
    ]
    entries.sort(key=lambda entry: (entry.forbidden, -entry.mean))
    names = [entry.label for entry in entries]
    chosen = _chosen(reference, entries) if reference is not None else names[0]
    base = _subject_dice(labels[chosen])
    differences = {name: _difference(_subject_dice(labels[name]), base) for name in names if name != chosen}
    corrected = _holm({name: d.p for name, d in differences.items() if d.p is not None})
    finished = tuple(
        replace(entry, difference=replace(differences[entry.label], p_holm=corrected.get(entry.label)))
        if entry.label in differences
        else entry
        for entry in entries
    )
    first = runs[0][1]
    return Comparison(finished, tuple(first.sites), chosen, _facts(first))


# --- one entry -------------------------------------------------------------------------------------------------------


def _entry(label: str, group: Sequence[Result], leaks: Sequence[Leakage | None]) -> Entry:
    first = group[0]
    sites = {name: _mean([run.sites[name].dice.mean for run in group]) for name in first.sites}
    distances = _subject_values(group, "hd95_mm")
    parameters = first.scenario["method"]["parameters"]
    # Not from the label: that depends on what else is compared, and an interval must not.
    draws = numpy_generator(0, "comparison", str(first.scenario["name"]))
    raw = any(kind_named(each).raw for each in first.exports)
    return Entry(
        label=label,
        scenario=str(first.scenario["name"]),
        method=first.method,
        variant=first.variant,
        seeds=tuple(run.seed for run in group),
        sites=sites,
        dice=tuple(run.overall_dice if run.overall_dice is not None else float("nan") for run in group),
        dice_interval=bootstrap_interval(np.array(list(_subject_dice(group).values())), draws),
        hd95_mm=_mean([site.hd95_mm.mean for run in group for site in run.sites.values()]),
        hd95_interval=bootstrap_interval(np.array(list(distances.values())), draws),
        undefined=sum(row.hd95_mm is None for run in group for row in run.metrics),
        up=_megabytes(group, "bytes_up"),
        down=_megabytes(group, "bytes_down"),
        rounds=parameters.get("rounds"),
        local_steps=parameters.get("local_steps"),
        minutes=float(np.mean([run.wall_s for run in group])) / 60,
        compute_minutes=float(np.mean([sum(site.seconds for site in run.sites.values()) for run in group])) / 60,
        peak_mb=max(max(run.peak_rss_mb, *(site.peak_rss_mb for site in run.sites.values())) for run in group),
        forbidden=raw,
        budget=max(first.budgets, key=promise, default=None),
        curve=_curve(group),
        cross_site=_cross_site(group),
        leakage=1.0 if raw else _leakage(leaks),
        control_failed=any(found is not None and found.control_failed for found in leaks),
    )


def _leakage(leaks: Sequence[Leakage | None]) -> float | None:
    worst = [found.worst("images") for found in leaks if found is not None]
    return _mean([None if one is None else max(one.leakage, 0.0) for one in worst])


def _subject_dice(group: Sequence[Result]) -> dict[tuple[str, str], float]:
    return _subject_values(group, "dice")


def _subject_values(group: Sequence[Result], measure: str) -> dict[tuple[str, str], float]:
    """(site, subject) -> mean over time points, structures and seeds of what is defined; subjects without any are left out."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in group:
        for row in run.metrics:
            value = getattr(row, measure)
            if value is not None:
                found.setdefault((row.site, row.subject), []).append(value)
    return {subject: float(np.mean(values)) for subject, values in sorted(found.items())}


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
    """(trained at, measured at) -> Dice, mean over seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in group:
        for cell in run.cross_site:
            found.setdefault((cell.trained_at, cell.measured_at), []).append(cell.dice)
    return {pair: float(np.mean(values)) for pair, values in found.items()}


def promise(budget: Budget) -> float:
    """Its epsilon, infinite where nothing is promised."""
    return math.inf if budget.epsilon is None else budget.epsilon


def _megabytes(group: Sequence[Result], field: str) -> float:
    return float(np.mean([getattr(site, field) for run in group for site in run.sites.values()])) / 1e6


# --- statistics ------------------------------------------------------------------------------------------------------


def _difference(own: Mapping[tuple[str, str], float], base: Mapping[tuple[str, str], float]) -> Difference:
    """Wilcoxon's signed-rank test over subjects that both have (Wilcoxon, Biometrics Bulletin 1(6):80, 1945)."""
    from scipy.stats import wilcoxon

    pairs = np.array([own[subject] - base[subject] for subject in sorted(set(own) & set(base))])
    if not len(pairs):
        return Difference(float("nan"), None, None, 0)
    p = float(wilcoxon(pairs).pvalue) if np.any(pairs != 0) else None
    return Difference(float(np.median(pairs)), p, None, len(pairs))


def _holm(values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6(2):65, 1979)."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(values) - rank)))
        corrected[name] = largest
    return corrected


# --- which runs belong together --------------------------------------------------------------------------------------


def _check_alike(runs: Sequence[tuple[Path, Result]]) -> None:
    (first_folder, first), *others = runs
    for folder, result in others:
        differing = [name for name, value in _common(result).items() if value != _common(first)[name]]
        if differing:
            raise RequestError(
                f"{folder} and {first_folder} cannot stand in one table: they differ in {', '.join(differing)}. "
                "Run both with the same data, split, sites and grid."
            )


def _common(result: Result) -> dict[str, object]:
    """What runs in one table must share. A folder of data may move; the fingerprint says whose subjects they are."""
    scenario = result.scenario
    return {
        "subjects or split (split_sha256)": result.split_sha256,
        "structures": sorted(result.mean_dice),
        "grid": scenario["grid"],
        "sites": sorted(site["name"] for site in scenario["sites"]),
        "data.split": scenario["data"]["split"],
    }


def _identity(result: Result) -> str:
    """What makes a run a run of the same method: the whole scenario but seed, engine, name, question, data folder and task."""
    content = {
        k: v for k, v in result.scenario.items() if k not in ("seed", "engine", "name", "question", "data", "task")
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _labels(runs: Sequence[tuple[Path, Result]]) -> dict[str, list[Result]]:
    """The runs by what they are called; those that differ in their seed alone stand together."""
    groups: dict[str, list[tuple[Path, Result]]] = {}
    for folder, result in runs:
        groups.setdefault(_identity(result), []).append((folder, result))
    labels = names_of([(group[0][1].scenario, group[0][0]) for group in groups.values()])
    for label, group in zip(labels, groups.values(), strict=True):
        first: dict[int, Path] = {}
        for folder, result in group:
            if result.seed in first:
                raise RequestError(
                    f"{first[result.seed]} and {folder} are the same run ({label}) with the same seed, {result.seed}; "
                    "give one of them"
                )
            first[result.seed] = folder
    return {label: [result for _, result in group] for label, group in zip(labels, groups.values(), strict=True)}


def _chosen(reference: str, entries: Sequence[Entry]) -> str:
    """The label of the entry that is called `reference`, or of the only one whose scenario is. Raises RequestError."""
    found = [entry.label for entry in entries if entry.label == reference]
    found = found or [entry.label for entry in entries if entry.scenario == reference]
    if len(found) != 1:
        names = ", ".join(entry.label for entry in entries)
        what = f"there are {len(found)} runs" if found else "there is no run"
        raise RequestError(f"{what} {reference!r} to compare with; there are: {names}")
    return found[0]


def _facts(result: Result) -> tuple[tuple[str, str], ...]:
    grid, sites = result.scenario["grid"], result.sites.values()
    return (
        ("Data", "phantom" if str(result.scenario["data"]["source"]).startswith("phantom") else "a release of images"),
        ("Split", str(result.scenario["data"]["split"])),
        ("Training subjects", str(sum(site.subjects_train for site in sites))),
        ("Test subjects", str(sum(site.subjects_test for site in sites))),
        ("Grid", f"{grid['height']} x {grid['width']} pixels of {grid['spacing']} mm"),
        ("Split fingerprint", result.split_sha256[:16]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
