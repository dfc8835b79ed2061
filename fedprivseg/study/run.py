"""Scenario -> Result: prepare the run folder, let an engine run it, gather what was measured."""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from fedprivseg.core.cache import cache_folder, require_cache
from fedprivseg.core.compute import require_gpus
from fedprivseg.core.config import Scenario
from fedprivseg.core.documents import damaged
from fedprivseg.core.errors import DataError, FolderError, RequestError
from fedprivseg.core.files import write_text
from fedprivseg.core.lock import LOCK, alone
from fedprivseg.core.results import (
    SCENARIO,
    Result,
    read_result,
    read_run_id,
    write_scenario,
)
from fedprivseg.core.results import read_scenario as read_resolved
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.lifecycle.withdrawal import read_withdrawals
from fedprivseg.governance.sitefolder.notes import PARTICIPANTS, Notes
from fedprivseg.imaging.dataset import Dataset, Fault, Release
from fedprivseg.imaging.datasets import dataset_of
from fedprivseg.imaging.sources import drawn_release, phantom_named, release_place
from fedprivseg.imaging.splits import COHORT, Cohort
from fedprivseg.methods import resolve
from fedprivseg.runtime.engines import Engine, engine
from fedprivseg.study.acquisition_shift import shift_notes, shifted_release
from fedprivseg.study.faults.occurrences import fault_notes
from fedprivseg.study.gathering import gather
from fedprivseg.study.preflight import Preflight, cohorts_of, examine, no_test_note, refuse
from fedprivseg.study.scenarios import load_scenario, resolved, what_differs
from fedprivseg.study.simulated_sites import parties_in, provision_sites

__all__ = ["cache_folder", "check_folder", "load_scenario", "preflight", "release_folder", "simulate"]

_BEFORE = {LOCK, f".{SCENARIO}.draft"}
"""What whoever was killed before the scenario was written leaves in an empty folder."""


def simulate(
    scenario: Scenario,
    out: Path | str | None = None,
    *,
    display: AbstractContextManager[object] | None = None,
    carry_out: Engine | None = None,
) -> Result:
    """Run `scenario` into the folder `out` (default ``runs/<name>-<method>-<variant>-<seed>``) and return what was measured.

    A finished run of the same scenario is read, not repeated; an interrupted one goes on after its last finished step and
    ends with the same numbers. `display`: entered while the run is under way (the command line's progress). `carry_out`:
    the scenario's engine, if it was begun already (`engines.begun`).

    One process at a time works in a folder. Raises RequestError (folder, data or scenario wrong; nothing written), RunError,
    QuorumError.
    """
    if not scenario.study.data:  # put together by hand, and not by `load_scenario`
        scenario = resolved(scenario)
    folder = Path(out) if out is not None else scenario.folder
    resolve(scenario.method)
    check_folder(folder, scenario)
    run = RunFolder(folder)
    if run.result.exists():
        if not run.method_card.exists():  # a run of an earlier release
            resolve(scenario.method).card.write(folder)
        return read_result(folder)
    require_gpus(scenario.resources.gpus)
    require_cache()
    release = release_folder(scenario)
    dataset = dataset_of(scenario.data, release)
    found = _read(dataset, release)
    cohorts = cohorts_of(scenario, found.subjects)
    ahead = examine(scenario, folder, cohorts, _depths(found), parties_in(folder, scenario))
    refuse(ahead)
    notes = (
        *shift_notes(scenario),
        *_left_out(found.faults),
        *_warned(dataset, found, cohorts),
        *([no_test_note(ahead)] if ahead.no_test else []),
    )
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise FolderError(f"{folder} cannot be written ({fault.strerror}); choose another with --out") from None
    with alone(folder):
        resumed = check_folder(folder, scenario) and run.run_id.exists()  # somebody may have worked there until now
        if run.result.exists():
            return read_result(folder)
        try:
            _prepare(folder, scenario, release, cohorts)
        except RequestError:
            if new:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return _carried_out(folder, scenario, cohorts, notes, resumed, display, carry_out)


def _carried_out(
    folder: Path,
    scenario: Scenario,
    cohorts: dict[str, Cohort],
    notes: tuple[str, ...],
    resumed: bool,
    display: AbstractContextManager[object] | None,
    carry_out: Engine | None,
) -> Result:
    """What an engine makes of the run that was prepared in `folder`. notes: what the result says of its data."""
    start = time.perf_counter()
    try:
        with display or nullcontext():
            # These load Flower and torch, while the engine begins.
            from fedprivseg.study.prepare_start import prepare_start
            from fedprivseg.study.simulated_client import app, faulty_app
            from fedprivseg.study.simulated_images import keep_images
            from fedprivseg.study.simulated_server import app as server_app

            prepare_start(scenario, RunFolder(folder).server)
            (carry_out or engine(scenario.engine))(folder, scenario, faulty_app if scenario.faults else app, server_app)
            if scenario.engine != "deployment":  # there the server's process opens no image
                keep_images(RunFolder(folder), scenario)
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise FolderError(
                f"no room left while writing {folder}; make room and run the same command again"
            ) from fault
        raise
    result = gather(
        folder,
        scenario,
        time.perf_counter() - start,
        resumed,
        (*notes, *_withdrawn(folder), *fault_notes(RunFolder(folder), scenario.faults)),
        _fingerprints(folder, cohorts),
    )
    result.write(folder, [RunFolder(folder).run_id, *_participants(folder, scenario)])
    return result


def preflight(scenario: Scenario, out: Path | str | None = None) -> Preflight:
    """What can be known of a run of `scenario` into the folder `out` before it begins; writes nothing, not even the phantom.

    Raises RequestError if the folder holds something else, or the data are no release.
    """
    folder = Path(out) if out is not None else scenario.folder
    check_folder(folder, scenario)
    release, phantom = release_place(scenario.data, scenario.sites), phantom_named(scenario.data.source)
    if phantom is not None and not release.exists():
        places = [site.place for site in scenario.sites]
        subjects = phantom.announced(scenario.data.subjects, scenario.data.seed, places)
        depths: dict[str, int] = {}
    else:
        found = _read(dataset_of(scenario.data, release), release)
        subjects, depths = found.subjects, _depths(found)
    parties = parties_in(folder, scenario)
    return examine(scenario, folder, cohorts_of(scenario, subjects), depths, parties)


def release_folder(scenario: Scenario, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of the scenario's images; a phantom, and a copy with the scenario's shift, are made on first use."""
    release = drawn_release(scenario.data, scenario.sites, progress)
    if scenario.shift.strength == "none":
        return release
    dataset = dataset_of(scenario.data, release)
    return shifted_release(release, scenario, _read(dataset, release).subjects, dataset.limits)


def _read(dataset: Dataset, release: Path) -> Release:
    try:
        return dataset.read(release)
    except DataError as fault:
        raise DataError(f"{release}: {fault}") from None


def _depths(release: Release) -> dict[str, int]:
    """How many slices the stack of each subject has."""
    return {code: scan.shape[2] for code, scan in release.scans.items()}


def _fingerprints(folder: Path, cohorts: dict[str, Cohort]) -> dict[str, str]:
    """Fields of a result: SHA-256 over which subjects train and which test at each site, and over all of them on either side or
    set aside, who are the same for all folds. They are those whom the site enrolled, or, of a site that was blocked before it
    said so, those of the release."""
    sides, people = {}, {}
    for name, each in cohorts.items():
        notes = Notes(RunFolder(folder).site(name).path)
        found = COHORT.validate_json(notes.read(PARTICIPANTS)) if notes.has(PARTICIPANTS) else each
        sides[name] = [[s.code for s in found.train], [s.code for s in found.test]]
        people[name] = sorted(s.code for s in (*found.train, *found.test, *each.aside))

    def sha256(content: object) -> str:
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    return {"split_sha256": sha256(sides), "subjects_sha256": sha256(people)}


def check_folder(folder: Path, scenario: Scenario) -> bool:
    """Whether `folder` holds an attempt at this scenario. Raises FolderError if it holds anything else."""
    if not folder.exists() or (folder.is_dir() and {path.name for path in folder.iterdir()} <= _BEFORE):
        return False
    if not folder.is_dir() or not (folder / SCENARIO).exists():
        raise FolderError(f"{folder} is no run folder and not empty (it has no {SCENARIO}); choose another with --out")
    other = read_resolved(folder)
    if other.sha256 != scenario.sha256:
        raise FolderError(
            f"{folder} holds a run of another scenario: {what_differs(other, scenario)}; choose another with --out"
        )
    return True


def _prepare(folder: Path, scenario: Scenario, release: Path, cohorts: dict[str, Cohort]) -> None:
    """Write the scenario, the run's id and each simulated hospital's folder, as far as they are not there.

    The scenario comes first: by it the same command knows its folder again, whenever it was killed.
    """
    run = RunFolder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not run.scenario.exists():
            write_scenario(folder, scenario)
        if not run.method_card.exists():
            resolve(scenario.method).card.write(folder)
        if not run.run_id.exists():
            if run.server.ledger.exists():  # what was signed in this run was signed under its id
                raise damaged(run.run_id, "is missing")
            write_text(run.run_id, secrets.token_hex(8))
        read_run_id(folder)
        provision_sites(
            folder, scenario, resolve(scenario.method).declared, release, cache_folder().resolve() / "grid", cohorts
        )
    except OSError as fault:
        raise FolderError(f"{folder} cannot be written ({fault.strerror}); choose another with --out") from None


def _participants(folder: Path, scenario: Scenario) -> list[Path]:
    """Each site's own record of who takes part, where it has one."""
    paths = [Notes(RunFolder(folder).site(site.name).path).path(PARTICIPANTS) for site in scenario.sites]
    return [path for path in paths if path.exists()]


def _left_out(faults: Sequence[Fault]) -> tuple[str, ...]:
    """What the release lacks, without any subject's code: `fedprivseg data check` names them, at the site."""
    return _listed("faults found in the release, faulty subjects left out", (fault.code for fault in faults))


def _warned(dataset: Dataset, release: Release, cohorts: dict[str, Cohort]) -> tuple[str, ...]:
    """What looks wrong in the release and in the masks of those who take part, by kind and without any subject's code."""
    people = {subject.mask: subject for each in cohorts.values() for subject in (*each.train, *each.test)}
    found = (*release.warnings, *dataset.doubts(release.folder, [*people.values()]))
    return _listed("warnings about the release, nobody left out for them", (each.code for each in found))


def _listed(what: str, codes: Iterable[str]) -> tuple[str, ...]:
    """A sentence on how often each code was found; nothing if none was."""
    counts = sorted(Counter(codes).items())
    listed = ", ".join(f"{code} ({count})" for code, count in counts)
    return (f"{what}: {listed}; `fedprivseg data check` lists them",) if counts else ()


def _withdrawn(folder: Path) -> tuple[str, ...]:
    """That the run was made again without subjects who withdrew, in numbers."""
    counts = Counter(site for site, _ in {(each.site, each.pseudonym) for each in read_withdrawals(folder)})
    return tuple(
        f"{site}: consent of {count} subject{'s' if count > 1 else ''} was withdrawn; trained again without"
        for site, count in sorted(counts.items())
    )
