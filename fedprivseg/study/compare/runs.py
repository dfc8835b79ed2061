"""Runs side by side: one row a method, over its seeds and folds, with intervals, paired differences, fronts and what it cost.

Only runs on the same subjects and split may stand in one table; of a cross-validation, the folds of one partition. Networks may
work on different grids, for measures are on the images' own. Runs that differ in nothing but seed and fold are one method. What
methods are tested against is fixed before they run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedprivseg.core.comparison_config import ShiftConfig
from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.core.leakage_record import read_leakage
from fedprivseg.core.results import Result, read_result
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.study.compare.entries import Entry, entry_of, fold_of, grid_of, subject_dice
from fedprivseg.study.compare.front import FLOOR, REFERENCE, Front, dominated, fronts
from fedprivseg.study.compare.names import names_of
from fedprivseg.study.compare.paired import differences, smallest_p


@dataclass(frozen=True)
class Comparison:
    """The table.

    Attributes:
        entries: best mean Dice first, what policy forbids (the ceiling) last.
        sites: their names, in order.
        reference: the label that differences are against; None: nothing is tested, and the first of `notes` says why.
        floor: the label of what every way of sharing has to beat; None if it is not here.
        facts: (name, value) of what all runs share, in words.
        notes: what has to be known to read the table, in sentences.
        fronts: of Dice against leakage: of all methods that share something, then of each group; empty if none was attacked.
    """

    entries: tuple[Entry, ...]
    sites: tuple[str, ...]
    reference: str | None
    floor: str | None
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    fronts: tuple[Front, ...] = ()

    @property
    def ceilings(self) -> tuple[Entry, ...]:
        """What raw data would reach."""
        return tuple(entry for entry in self.entries if entry.forbidden)

    def entry(self, label: str) -> Entry:
        """The entry that is called `label`."""
        return next(entry for entry in self.entries if entry.label == label)

    def dominated(self, entry: Entry) -> bool:
        """Whether another one, the floor among them, leaks no more and segments no worse; False where nothing is known."""
        others = [one.point for one in self.entries if one.point is not None and not one.forbidden]
        return entry.point is not None and not entry.forbidden and dominated(entry.point, others)


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
        reference: a label, or the name of a scenario that one entry alone has; None for what the runs' scenarios state
            (``[compare] reference``). Without either nothing is tested: never is it the best on the test data.

    Raises:
        FolderError: a folder holds no finished run.
        RequestError: runs on different subjects, splits or sites (naming what differs), or an unknown reference.
    """
    runs = [(folder, read_result(folder)) for folder in run_folders(folders)]
    _check_alike(runs)
    groups, first = _groups(runs), runs[0][1]
    leaks = {id(result): read_leakage(folder) for folder, result in runs}
    penalty = max(_diagonal(result) for _, result in runs)
    entries = [
        entry_of(label, group, [leaks[id(result)] for result in group], penalty) for label, group in groups.items()
    ]
    entries.sort(key=lambda entry: (entry.forbidden, -entry.mean))
    chosen, why = _reference(reference, entries, [result for _, result in runs])
    floor, floor_why = _floor(entries, [result for _, result in runs])
    subjects = {entry.label: subject_dice(groups[entry.label]) for entry in entries}
    against = differences(subjects, chosen) if chosen else {}
    above = differences(subjects, floor) if floor else {}
    entries = [
        replace(entry, difference=against.get(entry.label), above_floor=above.get(entry.label)) for entry in entries
    ]
    measured = any(entry.point is not None and not (entry.forbidden or entry.silent) for entry in entries)
    sharing = [(entry.label, entry.group, entry.point) for entry in entries if not (entry.forbidden or entry.silent)]
    found = fronts(sharing) if measured else ()
    profiles = {_profiles(result) for _, result in runs if result.simulated_time is not None}
    tested = [each.subjects for each in (*against.values(), *above.values())]
    notes = [why, floor_why, *_cautions(entries, tested, penalty, profiles), *_hypervolumes(found, entries, floor)]
    return Comparison(
        entries=tuple(entries),
        sites=tuple(first.sites),
        reference=chosen,
        floor=floor,
        facts=_facts([result for _, result in runs]),
        notes=tuple(note for note in notes if note),
        fronts=found,
    )


# --- what is tested, and against what ---------------------------------------------------------------------------------


def _reference(asked: str | None, entries: Sequence[Entry], runs: Sequence[Result]) -> tuple[str | None, str]:
    """The label of the reference, or None, and a sentence on it. Raises RequestError if it was asked for and is not there."""
    if asked is not None:
        found = _called(asked, entries)
        if len(found) != 1:
            names = ", ".join(entry.label for entry in entries)
            what = f"there are {len(found)} runs" if found else "there is no run"
            raise RequestError(f"{what} {asked!r} to compare with; there are: {names}")
        return found[0], f"Differences are against {found[0]}, which was asked for when the runs were compared."
    if len(entries) < 2:
        return None, ""
    stated = _stated("reference", runs)
    if not stated:
        return None, (
            "No reference was fixed before the runs ([compare] reference in their scenarios), and none was asked for "
            "(--reference), so nothing is tested against one."
        )
    found = _stated_as(stated[0], entries)
    if len(stated) > 1 or len(found) != 1:
        named = " and ".join(stated)
        return (
            None,
            f"The runs state the reference {named}, and no one run here is that, so nothing is tested against it.",
        )
    return found[0], f"Differences are against {found[0]}, fixed before the runs in their scenarios."


def _floor(entries: Sequence[Entry], runs: Sequence[Result]) -> tuple[str | None, str]:
    """The label of the floor, or None, and a sentence on it."""
    stated = _stated("floor", runs)
    found = _stated_as(stated[0], entries) if len(stated) == 1 else [e.label for e in entries if e.method == FLOOR]
    if len(found) != 1:
        several = f"there are {len(found)} runs of {FLOOR}; state which in [compare] floor" if found else ""
        return None, f"No floor: {several}." if several else ""
    return found[0], f"The floor that every way of sharing has to beat is {found[0]}."


def _stated(what: str, runs: Sequence[Result]) -> list[str]:
    return sorted({name for run in runs if (name := str(run.scenario.get("compare", {}).get(what, "")))})


def _stated_as(name: str, entries: Sequence[Entry]) -> list[str]:
    """The labels of the entries whose scenario is called `name`, or else of those that are: a scenario knows its neighbours by
    their own names, and a label depends on what else is compared."""
    found = [entry.label for entry in entries if entry.scenario == name]
    return found or [entry.label for entry in entries if entry.label == name]


def _called(name: str, entries: Sequence[Entry]) -> list[str]:
    """The labels of the entries that are called `name`, or else of those whose scenario is."""
    found = [entry.label for entry in entries if entry.label == name]
    return found or [entry.label for entry in entries if entry.scenario == name]


def _cautions(entries: Sequence[Entry], tested: Sequence[int], penalty: float, profiles: set[str]) -> Iterable[str]:
    """What has to be known of the numbers."""
    yield (
        "Intervals are 95 % t intervals over subjects within sites, seeds averaged; ± is the standard deviation over seeds. "
        "Differences are medians over subjects."
    )
    if tested:
        yield (
            f"With {max(tested)} subjects no exact two-sided p is below {smallest_p(max(tested)):.2g} (2^(1-n)), before any "
            "correction for the number of methods."
        )
    if any(entry.hd95.undefined for entry in entries):
        yield (
            "A distance is undefined where a structure is absent from truth or prediction. The penalised HD95 counts a "
            f"structure that only one of them has as {penalty:.0f} mm, the diagonal of the grid."
        )
    if len(profiles) > 1:
        yield "The times between hospitals are of runs whose sites state different profiles: they cannot be compared."
    if len({entry.folds for entry in entries}) > 1:
        covered = "; ".join(f"{entry.label}: {', '.join(map(str, entry.folds))}" for entry in entries)
        yield f"Not all methods ran on the same folds ({covered}); differences are over subjects that both tested."


def _hypervolumes(found: Sequence[Front], entries: Sequence[Entry], floor: str | None) -> Iterable[str]:
    if not found:
        return
    each = "; ".join(f"{front.group} {front.hypervolume:.3f} ({_count(front)})" for front in found)
    alone = [f"the floor alone {entry.mean:.3f}" for entry in entries if entry.label == floor]
    yield (
        f"Hypervolume of Dice against headline leakage, from leakage {REFERENCE[0]:g} and Dice {REFERENCE[1]:g}: "
        f"{'; '.join([each, *alone])}."
    )


def _count(front: Front) -> str:
    unknown = f", {len(front.unknown)} not known" if front.unknown else ""
    return f"{front.of} method{'s' if front.of != 1 else ''}{unknown}"


# --- what may stand together ------------------------------------------------------------------------------------------


def _check_alike(runs: Sequence[tuple[Path, Result]]) -> None:
    (first_folder, first), *others = runs
    tested: dict[int | None, tuple[Path, str]] = {fold_of(first): (first_folder, first.split_sha256)}
    for folder, result in others:
        differing = [name for name, value in _common(result).items() if value != _common(first)[name]]
        beside, split = tested.setdefault(fold_of(result), (folder, result.split_sha256))
        if not differing and split != result.split_sha256:
            first_folder, differing = beside, ["subjects or split (split_sha256)"]
        if differing:
            raise RequestError(
                f"{folder} and {first_folder} cannot stand in one table: they differ in {', '.join(differing)}. "
                "Run both with the same data, split and sites."
            )


def _common(result: Result) -> dict[str, object]:
    """What runs in one table must share. A folder of data may move; the fingerprint says whose subjects they are.

    Folds of one partition test other subjects, so that none is counted twice: the same subjects, dealt with the same seed into
    as many folds.
    """
    scenario, data = result.scenario, result.scenario["data"]
    found: dict[str, object] = {
        "structures": sorted(result.mean_dice),
        "sites": sorted(site["name"] for site in scenario["sites"]),
        "data.split": data["split"],
        "shift": _shift(result),
        **{f"data.{name}": data.get(name) or None for name in ("unlabelled", "most_training")},
    }
    if fold_of(result) is not None:
        return found | {
            "subjects (subjects_sha256)": result.subjects_sha256,
            "data.folds": data["folds"],
            "data.seed": data["seed"],
        }
    return found


def _shift(result: Result) -> dict[str, object]:
    """The simulated differences between scanners; runs of earlier releases have none."""
    return dict(result.scenario.get("shift") or ShiftConfig().model_dump(mode="json"))


def _identity(result: Result) -> str:
    """What makes a run a run of the same method: the whole scenario but seed, engine, name, question, data folder, task and the
    sites' profiles."""
    unseen = ("seed", "engine", "name", "question", "data", "task", "compare")
    content = {k: v for k, v in result.scenario.items() if k not in unseen}
    content["sites"] = [{k: v for k, v in site.items() if k != "profile"} for site in content["sites"]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _profiles(result: Result) -> str:
    """What the virtual clock supposed of the sites."""
    return json.dumps([site.get("profile") for site in result.scenario["sites"]], sort_keys=True)


def _groups(runs: Sequence[tuple[Path, Result]]) -> dict[str, list[Result]]:
    """The runs by what they are called; those that differ in seed and fold alone stand together, in that order."""
    groups: dict[str, list[tuple[Path, Result]]] = {}
    for folder, result in runs:
        groups.setdefault(_identity(result), []).append((folder, result))
    labels = names_of([(group[0][1].scenario, group[0][0]) for group in groups.values()])
    for label, group in zip(labels, groups.values(), strict=True):
        first: dict[tuple[int, int | None], Path] = {}
        for folder, result in group:
            one = result.seed, fold_of(result)
            if one in first:
                fold = "" if one[1] is None else f" and the same fold, {one[1]}"
                raise RequestError(
                    f"{first[one]} and {folder} are the same run ({label}) with the same seed, {result.seed}{fold}; "
                    "give one of them"
                )
            first[one] = folder
    return {
        label: sorted((result for _, result in group), key=lambda run: (run.seed, fold_of(run) or 0))
        for label, group in zip(labels, groups.values(), strict=True)
    }


def _diagonal(result: Result) -> float:
    """mm from corner to corner of the grid: no distance in the plane of a slice is longer."""
    grid: Mapping[str, float] = result.scenario["grid"]
    return math.hypot(grid["height"], grid["width"]) * grid["spacing"]


def _facts(runs: Sequence[Result]) -> tuple[tuple[str, str], ...]:
    result = runs[0]
    data, grids = result.scenario["data"], sorted({grid_of(run) for run in runs})
    training = sorted({sum(site.subjects_train for site in run.sites.values()) for run in runs})
    tested = {(row.site, row.subject) for run in runs for row in run.metrics}
    folds = sorted({fold for run in runs if (fold := fold_of(run)) is not None})
    split = f"{data['folds']} folds by patient, here {', '.join(map(str, folds))}" if folds else str(data["split"])
    shift = str(_shift(result)["strength"])
    fingerprint = (
        ("Subjects' fingerprint", result.subjects_sha256) if folds else ("Split fingerprint", result.split_sha256)
    )
    return (
        ("Data", "phantom" if str(data["source"]).startswith("phantom") else "a release of images"),
        ("Split", split),
        ("Training subjects", " to ".join(map(str, dict.fromkeys((training[0], training[-1]))))),
        ("Test subjects", str(len(tested))),
        # Where grids differ each row says its own.
        *([("Grid", grids[0])] if len(grids) == 1 else []),
        *([("Simulated acquisition shift", shift)] if shift != "none" else []),
        (fingerprint[0], fingerprint[1][:16]),
    )
