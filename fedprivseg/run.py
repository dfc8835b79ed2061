"""Scenario -> Result: prepare the run folder, let an engine run it, gather what was measured."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import resource
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fedprivseg.config import Scenario, read_scenario
from fedprivseg.data.mnms import Fault, read_release
from fedprivseg.data.phantom import CENTRES, write_phantom
from fedprivseg.data.splits import COHORT, Cohort, cohort
from fedprivseg.documents import damaged, read_document
from fedprivseg.engines import Engine, engine
from fedprivseg.errors import DataError, FolderError, RequestError, RunError, ScenarioError
from fedprivseg.files import write_text
from fedprivseg.hospitals import settle
from fedprivseg.lock import LOCK, alone
from fedprivseg.methods import resolve
from fedprivseg.methods.method import CodedMethod
from fedprivseg.policy.foresight import effective
from fedprivseg.protections import resolve as resolve_protection
from fedprivseg.records import STRUCTURES, Budget, CrossSite, CurvePoint, Payload
from fedprivseg.results import (
    RUN_ID,
    SCENARIO,
    Result,
    Row,
    Scores,
    SiteResult,
    metric_rows,
    read_result,
    read_run_id,
    write_scenario,
)
from fedprivseg.results import read_scenario as read_resolved
from fedprivseg.site.notes import PARTICIPANTS, Notes
from fedprivseg.withdrawal import read_withdrawals

_ROOM_BYTES = 256 * 2**20
"""Free space without which a run does not start."""

_BEFORE = {LOCK, f".{SCENARIO}.draft"}
"""What whoever was killed before the scenario was written leaves in an empty folder."""


def load_scenario(path: Path | str, settings: Sequence[str] = (), *, sites_folder: Path | None = None) -> Scenario:
    """The scenario of a file, completely resolved: sites read, method known, its variant's parameters written out.

    settings: ``key=value`` texts as after ``--set``. Raises ScenarioError.
    """
    scenario = read_scenario(Path(path), settings, sites_folder=sites_folder)
    method = resolve(scenario.method)
    parameters = method.parameters.model_dump(mode="json")
    resolved = scenario.method.model_copy(update={"variant": method.variant, "parameters": parameters})
    protections = tuple(
        config.model_copy(update={"parameters": resolve_protection(config).parameters.model_dump(mode="json")})
        for config in scenario.protections
    )
    for site in scenario.sites:
        effective(
            scenario, site
        )  # a policy that cannot be read is a fault of the request, found here and not at a gate
    for at in scenario.study.consent.withdraws.values() if scenario.study.consent else ():
        if at not in method.actions:
            raise ScenarioError(
                f"study.consent.withdraws: {at!r}; the orders of {method.name} are: {', '.join(sorted(method.actions))}"
            )
    if protections and not issubclass(type(method), CodedMethod):
        raise ScenarioError(
            f"protections are for codes, and method {method.name!r} sends none; take them out, or see its own parameters "
            "(dp, summation)"
        )
    return scenario.model_copy(update={"method": resolved, "protections": protections})


def simulate(
    scenario: Scenario,
    out: Path | str | None = None,
    *,
    display: AbstractContextManager[object] | None = None,
    carry_out: Engine | None = None,
) -> Result:
    """Run `scenario` into the folder `out` (default ``runs/<name>-<seed>``) and return what was measured.

    A finished run of the same scenario is read, not repeated; an interrupted one goes on after its last finished step and
    ends with the same numbers. `display`: entered while the run is under way (the command line's progress). `carry_out`:
    the scenario's engine, if it was begun already (`engines.begun`).

    One process at a time works in a folder. Raises RequestError (folder, data or scenario wrong; nothing written), RunError,
    QuorumError.
    """
    folder = Path(out) if out is not None else scenario.folder
    resolve(scenario.method)
    _check_folder(folder, scenario)
    if (folder / "result.json").exists():
        return read_result(folder)
    release = release_folder(scenario)
    try:
        found = read_release(release)
    except DataError as fault:
        raise DataError(f"{release}: {fault}") from None
    cohorts = {site.name: cohort(found.subjects, site.centre, scenario.data) for site in scenario.sites}
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise FolderError(f"{folder} cannot be written ({fault.strerror}); choose another with --out") from None
    with alone(folder):
        resumed = _check_folder(folder, scenario)  # somebody may have worked there until now
        if (folder / "result.json").exists():
            return read_result(folder)
        try:
            _prepare(folder, scenario, release, cohorts)
        except RequestError:
            if new:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return _carried_out(folder, scenario, cohorts, found.faults, resumed, display, carry_out)


def _carried_out(
    folder: Path,
    scenario: Scenario,
    cohorts: dict[str, Cohort],
    faults: Sequence[Fault],
    resumed: bool,
    display: AbstractContextManager[object] | None,
    carry_out: Engine | None,
) -> Result:
    """What an engine makes of the run that was prepared in `folder`."""
    start = time.perf_counter()
    try:
        with display or nullcontext():
            (carry_out or engine(scenario.engine))(folder, scenario)
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise FolderError(
                f"no room left while writing {folder}; make room and run the same command again"
            ) from fault
        raise
    result = _gather(
        folder,
        scenario,
        time.perf_counter() - start,
        resumed,
        (*_left_out(faults), *_withdrawn(folder)),
        _fingerprint(folder, cohorts),
    )
    result.write(folder, [folder / RUN_ID, *_participants(folder, scenario)])
    return result


def cache_folder() -> Path:
    """Where phantoms and gridded images are kept between runs: ``$FEDPRIVSEG_CACHE`` or ``~/.cache/fedprivseg``."""
    return Path(os.environ.get("FEDPRIVSEG_CACHE") or Path.home() / ".cache" / "fedprivseg")


def release_folder(scenario: Scenario, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of the scenario's images; the phantom is drawn on first use, half a second a subject."""
    data = scenario.data
    if data.source != "phantom":
        return Path(data.source).resolve()
    centres = sorted({site.centre for site in scenario.sites})
    if unknown := sorted(set(centres) - set(CENTRES)):
        raise DataError(f"the phantom has no centre {unknown[0]}; it has {', '.join(map(str, CENTRES))}")
    name = f"phantom-{version('fedprivseg')}-{data.subjects}-{data.seed}-{'-'.join(map(str, centres))}"
    folder = cache_folder() / name
    if not folder.exists():
        try:
            write_phantom(folder, data.subjects, data.seed, centres=centres, progress=progress)
        except FolderError:
            if not folder.exists():  # otherwise another process has drawn the same meanwhile
                raise
    return folder.resolve()


def _fingerprint(folder: Path, cohorts: dict[str, Cohort]) -> str:
    """SHA-256 over which subjects train and which test at each site: those whom the site took in, or, of a site that was
    withheld before it said so, those of the release."""
    sides = {}
    for name, each in cohorts.items():
        notes = Notes(folder / "sites" / name)
        found = COHORT.validate_json(notes.read(PARTICIPANTS)) if notes.has(PARTICIPANTS) else each
        sides[name] = [[s.code for s in found.train], [s.code for s in found.test]]
    return hashlib.sha256(json.dumps(sides, sort_keys=True).encode()).hexdigest()


def _check_folder(folder: Path, scenario: Scenario) -> bool:
    """Whether `folder` holds an attempt at this scenario. Raises FolderError if it holds anything else."""
    if not folder.exists() or (folder.is_dir() and {path.name for path in folder.iterdir()} <= _BEFORE):
        return False
    if not folder.is_dir() or not (folder / SCENARIO).exists():
        raise FolderError(f"{folder} is no run folder and not empty (it has no {SCENARIO}); choose another with --out")
    other = read_resolved(folder)
    if other.sha256 != scenario.sha256:
        changed = ", ".join(_differences(other.model_dump(mode="json"), scenario.model_dump(mode="json")))
        raise FolderError(
            f"{folder} holds a run of another scenario (they differ in: {changed}); choose another with --out"
        )
    return True


def _differences(one: object, other: object, place: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(set(one) | set(other))
        return [d for key in keys for d in _differences(one.get(key), other.get(key), f"{place}.{key}".lstrip("."))]
    return [] if one == other or place == "engine" else [place]


def _prepare(folder: Path, scenario: Scenario, release: Path, cohorts: dict[str, Cohort]) -> None:
    """Write the scenario, the run's id and each simulated hospital's folder, as far as they are not there.

    The scenario comes first: by it the same command knows its folder again, whenever it was killed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder).free) < _ROOM_BYTES:
            raise FolderError(
                f"only {free // 2**20} MiB are free at {folder}; a run needs at least {_ROOM_BYTES // 2**20}"
            )
        if not (folder / SCENARIO).exists():
            write_scenario(folder, scenario)
        if not (folder / RUN_ID).exists():
            if (folder / "server").exists():  # what was signed in this run was signed under its id
                raise damaged(folder / RUN_ID, "is missing")
            write_text(folder / RUN_ID, secrets.token_hex(8))
        read_run_id(folder)
        settle(folder, scenario, resolve(scenario.method).declared, release, cache_folder().resolve() / "grid", cohorts)
    except OSError as fault:
        raise FolderError(f"{folder} cannot be written ({fault.strerror}); choose another with --out") from None


def _participants(folder: Path, scenario: Scenario) -> list[Path]:
    """Each site's own record of who takes part, where it has one."""
    paths = [Notes(folder / "sites" / site.name).path(PARTICIPANTS) for site in scenario.sites]
    return [path for path in paths if path.exists()]


def _left_out(faults: Sequence[Fault]) -> tuple[str, ...]:
    """What the release lacks, without any subject's code: `fedprivseg data check` names them, at the site."""
    if not faults:
        return ()
    kinds = Counter(fault.code for fault in faults)
    listed = ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items()))
    return (f"faults found in the release, faulty subjects left out: {listed}; `fedprivseg data check` lists them",)


def _withdrawn(folder: Path) -> tuple[str, ...]:
    """That the run was made anew without subjects who withdrew, in numbers."""
    counts = Counter(site for site, _ in {(each.site, each.pseudonym) for each in read_withdrawals(folder)})
    return tuple(
        f"{site}: consent of {count} subject{'s' if count > 1 else ''} was withdrawn; trained anew without"
        for site, count in sorted(counts.items())
    )


def _gather(
    folder: Path, scenario: Scenario, wall_s: float, resumed: bool, notes: tuple[str, ...], split_sha256: str
) -> Result:
    accounts = read_document(folder / "server" / "accounts.json")
    sites: dict[str, SiteResult] = {}
    rows: list[Row] = []
    means: list[float] = []
    for site in scenario.sites:
        account = accounts["sites"][site.name]
        path = folder / "server" / "metrics" / f"{site.name}.safetensors"
        values = _measured(path) if path.exists() else {}
        dice = _scores(values.get("dice"))
        rows += metric_rows(site.name, values, len(values["dice"]) if values else 0)
        if dice.mean is not None:
            means.append(dice.mean)
        counts = {key: account["facts"].get(key, 0) for key in _COUNTS}
        costs = {key: account[key] for key in ("status", "bytes_up", "bytes_down", "seconds", "peak_rss_mb")}
        sites[site.name] = SiteResult(
            **counts,
            **costs,
            dice=dice,
            hd95_mm=_scores(values.get("hd95_mm")),
            assd_mm=_scores(values.get("assd_mm")),
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
        mean_dice=float(np.mean(means)) if means else None,
        stages=accounts["stages"],
        wall_s=wall_s,
        resumed=resumed,
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        environment=_environment(),
        notes=notes,
        split_sha256=split_sha256,
        curve=_entries(accounts, CurvePoint),
        cross_site=_entries(accounts, CrossSite),
        budgets=_entries(accounts, Budget),
        metrics=tuple(rows),
    )


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


def _scores(values: np.ndarray | None) -> Scores:
    """Means over subjects and phases: (subjects, 2, 3) -> one number a structure, and the mean of the three."""
    if values is None or not np.isfinite(values).any():
        return Scores(LV=None, MYO=None, RV=None, mean=None, missing=0 if values is None else int(values.size))
    found = [values[:, :, index] for index in range(len(STRUCTURES))]
    each = [float(np.nanmean(value)) if np.isfinite(value).any() else None for value in found]
    known = [value for value in each if value is not None]
    missing = int(np.isnan(values).sum())
    return Scores(LV=each[0], MYO=each[1], RV=each[2], mean=float(np.mean(known)), missing=missing)


def _environment() -> dict[str, str]:
    packages = ("fedprivseg", "flwr", "monai", "nibabel", "numpy", "ray", "safetensors", "torch")
    return {
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": str(os.cpu_count()),
        **{name: version(name) for name in packages},
    }
