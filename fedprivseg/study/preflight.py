"""The pre-flight of a run: what can be known of a request before anything is trained or written.

Subjects per side and site, GPU, disk, memory, how long training will take, and what each site's gate would block. A run that
cannot come to anything is refused; what makes its result less than it seems is warned of.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedprivseg.core.compute import gpus_seen, lacking_gpus
from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import DataError, FolderError, RequestError
from fedprivseg.core.model import Frozen
from fedprivseg.core.records import Subject
from fedprivseg.governance.policy.preview import Parties, preview_policy
from fedprivseg.imaging.splits import Cohort, cohort
from fedprivseg.methods import resolve
from fedprivseg.runtime.site.payload_techniques import techniques_of

ROOM_BYTES = 256 * 2**20
"""Free space without which a run does not start."""

BASIS = (
    "training steps at rates measured on one core of an AMD EPYC with AVX2, beside a start of 15 s; the truth may be three "
    "times as long or as short"
)
"""What the estimate of time rests on."""

_START_S = 15.0
_PROCESS_BYTES = 400 * 2**20  # of a site's or the server's process with torch: 1.4 GB were measured for four of them
_PIXEL_BYTES = 20  # on disk, of a slice: on the grid in the cache, in the vault, as scores and as a prediction
_VIEW_PIXEL_BYTES = 2  # of each view of it that is sent as codes
_SLICES = 10  # of a stack that nobody has looked at yet


class Blocked(Frozen):
    """A payload that a site's gate would block: by which rule, and why."""

    kind: str
    purpose: str
    rule: str
    reason: str


class SiteAhead(Frozen):
    """One site: subjects on either side, slices (of both sides, at all time points), and what its gate would block."""

    name: str
    train: int
    test: int
    slices: int
    blocked: tuple[Blocked, ...]


class Preflight(Frozen):
    """What is known of a run beforehand.

    Attributes:
        folder: where it would go.
        gpus: how many the scenario gives.
        gpus_seen: how many there are, None if none was asked for.
        disk_free: bytes; so are the others. None where the system does not say.
        seconds: wall time, None where no rate was measured; `basis` says why or from what.
        work: seconds of training on one core, whatever machine this is; None as `seconds`.
        refusals: why it cannot run.
        warnings: what to know if it does.
    """

    scenario: str
    method: str
    variant: str
    seed: int
    engine: str
    folder: str
    sites: tuple[SiteAhead, ...]
    remaining: int
    quorum: int
    gpus: float
    gpus_seen: int | None
    disk_free: int
    disk_needed: int
    memory_available: int | None
    memory_needed: int
    seconds: float | None
    work: float | None
    basis: str
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    no_test: tuple[str, ...]
    unserved: tuple[str, ...] = ()


def cohorts_of(scenario: Scenario, subjects: Sequence[Subject]) -> dict[str, Cohort]:
    """Who trains and who tests at each site. Raises DataError if a site has nobody with masks."""
    return {site.name: cohort(subjects, site, scenario.data) for site in scenario.sites}


def examine(
    scenario: Scenario,
    folder: Path,
    cohorts: Mapping[str, Cohort],
    depths: Mapping[str, int],
    parties: Mapping[str, Parties] | None = None,
) -> Preflight:
    """The pre-flight of `scenario` into the run folder `folder`; nothing is written.

    cohorts: by site (`cohorts_of`). depths: slices of a subject's stack, by code; whose stack nobody has looked at counts as
    ten. parties: the agreements that lie in the run folder, by site.
    """
    method, resources = resolve(scenario.method), scenario.resources
    blocked: dict[str, list[Blocked]] = {site.name: [] for site in scenario.sites}
    for each in preview_policy(scenario, method.declared, techniques_of(method, scenario.protections), parties or {}):
        if not each.decision.allowed:
            found = Blocked(kind=each.kind, purpose=each.purpose, rule=each.decision.rule, reason=each.decision.reason)
            blocked[each.site].append(found)
    sites = tuple(
        SiteAhead(
            name=name,
            train=len(each.train),
            test=len(each.test),
            slices=sum(_slices(one, depths) for one in (*each.train, *each.test)),
            blocked=tuple(blocked[name]),
        )
        for name, each in cohorts.items()
    )
    views = int(getattr(method.parameters, "views", 1))
    pixels = scenario.grid.height * scenario.grid.width * sum(site.slices for site in sites)
    processes = 1 + {"ray": resources.sites_at_once, "deployment": len(sites)}.get(scenario.engine, 0)
    work, basis = _work(scenario, cohorts, depths)
    draft = Preflight(
        scenario=scenario.name,
        method=method.name,
        variant=method.variant,
        seed=scenario.seed,
        engine=scenario.engine,
        folder=str(folder),
        sites=sites,
        remaining=sum(not site.blocked for site in sites),
        quorum=scenario.quorum,
        gpus=resources.gpus,
        gpus_seen=gpus_seen() if resources.gpus else None,
        disk_free=shutil.disk_usage(_existing(folder)).free,
        disk_needed=ROOM_BYTES + pixels * (_PIXEL_BYTES + _VIEW_PIXEL_BYTES * views),
        memory_available=_memory_available(),
        memory_needed=processes * _PROCESS_BYTES + 10 * pixels,
        seconds=None if work is None else _START_S + work / _cores(scenario),
        work=work,
        basis=basis,
        refusals=(),
        warnings=(),
        no_test=tuple(site.name for site in sites if not site.test),
        unserved=tuple(site.name for site in sites if not site.train and method.needs_labels),
    )
    return draft.model_copy(update={"refusals": tuple(_refusals(draft)), "warnings": tuple(_warnings(draft))})


def refuse(found: Preflight) -> None:
    """Raises what the pre-flight refuses: FolderError without room, DataError without test subjects, RequestError otherwise."""
    if not found.refusals:
        return
    kind = RequestError
    if found.disk_free < ROOM_BYTES:
        kind = FolderError
    elif len(found.no_test) == len(found.sites):
        kind = DataError
    raise kind("; ".join(found.refusals))


def _refusals(found: Preflight) -> Iterator[str]:
    if found.disk_free < ROOM_BYTES:
        yield (
            f"only {found.disk_free // 2**20} MiB are free at {found.folder}; a run needs at least {ROOM_BYTES // 2**20}"
        )
    if lacking := lacking_gpus(found.gpus):
        yield lacking
    if len(found.no_test) == len(found.sites):
        yield (
            f"no site has a test subject ({', '.join(found.no_test)}), so nothing could be measured; set data.split = "
            '"by-patient" with data.test_fraction above 0, or add subjects for testing to the release'
        )
    if not any(site.train for site in found.sites):
        yield "no site has a training subject with masks, so nothing can be learned; one site at least must have some"
    elif found.unserved:
        yield (
            f"{', '.join(found.unserved)} {'has' if len(found.unserved) == 1 else 'have'} no training subject with masks, and "
            f"under {found.method} with random initial weights such a site has no network of its own; set "
            'method.parameters.start = "phantom", or leave it out'
        )


def _warnings(found: Preflight) -> Iterator[str]:
    if found.no_test and len(found.no_test) < len(found.sites):
        yield no_test_note(found)
    if ROOM_BYTES <= found.disk_free < found.disk_needed:
        yield (
            f"about {found.disk_needed / 1e9:.1f} GB may be needed at {found.folder}, and {found.disk_free / 1e9:.1f} are free"
        )
    if found.memory_available is not None and found.memory_available < found.memory_needed:
        yield (
            f"about {found.memory_needed / 1e9:.1f} GB of memory may be needed, and {found.memory_available / 1e9:.1f} are "
            "available; lower resources.sites_at_once"
        )
    for site in found.sites:
        for rule, reason in dict.fromkeys((each.rule, each.reason) for each in site.blocked):
            kinds = dict.fromkeys(each.kind for each in site.blocked if (each.rule, each.reason) == (rule, reason))
            yield f"the gate of {site.name} would block {', '.join(kinds)} ({rule}): {reason}"
    if found.remaining < found.quorum:
        yield f"{found.remaining} sites would remain, and the quorum is {found.quorum}: the run would end with status 3"


def no_test_note(found: Preflight) -> str:
    """That some sites have nobody to measure on."""
    one = len(found.no_test) == 1
    return (
        f"{', '.join(found.no_test)} {'has' if one else 'have'} no test subject: {'it trains' if one else 'they train'} and "
        'nothing is measured there; data.split = "by-patient" would deal some'
    )


def _work(scenario: Scenario, cohorts: Mapping[str, Cohort], depths: Mapping[str, int]) -> tuple[float | None, str]:
    """Seconds of training on one core, and what they rest on."""
    if scenario.resources.gpus:
        return None, "no rate was measured on a GPU"
    method, grid = resolve(scenario.method), scenario.grid.grid()
    sites = server = 0.0
    for each in cohorts.values():
        effort = method.effort(grid, sum(_slices(one, depths) for one in each.train))
        if effort is None:
            return None, f"no rate was measured for {method.name} with these parameters"
        sites, server = sites + effort.site, effort.server
    return sites + server, BASIS


def _cores(scenario: Scenario) -> int:
    """How many cores compute at once: those that the scenario uses and the machine has."""
    resources = scenario.resources
    used = {"ray": resources.cpus, "deployment": len(scenario.sites) * resources.site_threads}
    at_once = used.get(scenario.engine, resources.site_threads)
    return max(1, min(at_once, os.cpu_count() or 1))


def _slices(subject: Subject, depths: Mapping[str, int]) -> int:
    return depths.get(subject.code, _SLICES) * len(subject.frames)


def _existing(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    return next((place for place in (folder, *folder.absolute().parents) if place.is_dir()), Path())


def _memory_available() -> int | None:
    """Bytes that can be had without swapping, as Linux says; None on a system that does not."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
