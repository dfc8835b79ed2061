"""What a run measured: `result.json` as a typed, schema-versioned model, and the same as rows for a table."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError

from fedprivseg.core.config import Scenario
from fedprivseg.core.documents import content_of, damaged, read_document, write_document
from fedprivseg.core.errors import FolderError
from fedprivseg.core.files import write_text
from fedprivseg.core.format1 import result_of_format_1
from fedprivseg.core.model import Frozen
from fedprivseg.core.records import Budget, CrossSite, CurvePoint
from fedprivseg.core.simulated_time import SimulatedTime
from fedprivseg.core.task import SegmentationTask

SCHEMA_VERSION = 2

DIGESTS = "digests"
"""Under this key of ``result.json`` stands the SHA-256 of files of the run's folder, by their paths in it: the table of
measures, and what tells whose they are. Results of earlier releases have none."""

SCENARIO, RUN_ID = "scenario.json", "run-id"
"""Files of a run's folder: what is run, and the id that its signatures carry."""

_TABLE = "metrics.csv"
_AGAIN = "Put back a copy of it, or run the scenario again into another folder"
NO_DICE = 0.05
"""A mean Dice below it counts as none: a structure that was not learned."""


class _Read(Frozen):
    # What a later release adds is passed over.
    model_config = ConfigDict(extra="ignore")


class Scores(_Read):
    """A measure over a site's test subjects and all time points; None where nothing was defined.

    Attributes:
        structures: structure -> its mean.
        mean: the mean of these.
        missing: in how many of the (subject, time point, structure) cells the measure is undefined.
    """

    structures: dict[str, float | None]
    mean: float | None
    missing: int = 0


class SiteResult(_Read):
    """One site: ``status`` is "ok" or why it left; bytes are those of encoded payloads, seconds the site's own clock."""

    status: str
    subjects_train: int
    subjects_test: int
    slices_train: int
    slices_test: int
    dice: Scores
    hd95_mm: Scores
    assd_mm: Scores
    bytes_up: int
    bytes_down: int
    seconds: float
    peak_rss_mb: float
    notes: tuple[str, ...] = ()


class Row(_Read):
    """One test subject at one time point (``phase``): what lies in ``metrics.csv``, one line a structure. ``subject`` is a
    pseudonym."""

    site: str
    subject: str
    phase: str
    structure: str
    dice: float | None
    hd95_mm: float | None
    assd_mm: float | None


class Result(_Read):
    """A finished run.

    Attributes:
        mean_dice: structure -> its mean Dice over the sites that measured it.
        overall_dice: mean over sites of the mean over structures; None where nothing was measured.
        split_sha256: of all training and test subjects' codes together, so that runs on other subjects can be told apart and
            nobody is named.
        subjects_sha256: of all subjects' codes at each site, on whichever side: it is the same for all folds of one partition.
            Empty in results of earlier releases.
        curve, cross_site, budgets: empty for methods to which they mean nothing.
        simulated_time: what the run would take between hospitals of the sites' profiles; None where no site states one.
    """

    schema_version: int = SCHEMA_VERSION
    scenario: dict[str, Any]
    scenario_sha256: str
    seed: int
    method: str
    variant: str
    engine: str
    exports: tuple[str, ...]
    sites: dict[str, SiteResult]
    mean_dice: dict[str, float | None]
    overall_dice: float | None
    stages: dict[str, float]
    wall_s: float
    resumed: bool
    peak_rss_mb: float
    environment: dict[str, str]
    notes: tuple[str, ...] = ()
    split_sha256: str = ""
    subjects_sha256: str = ""
    curve: tuple[CurvePoint, ...] = ()
    cross_site: tuple[CrossSite, ...] = ()
    budgets: tuple[Budget, ...] = ()
    simulated_time: SimulatedTime | None = None
    metrics: tuple[Row, ...] = ()

    @property
    def finished(self) -> tuple[str, ...]:
        """The names of the sites that took part to the end."""
        return tuple(name for name, site in self.sites.items() if site.status == "ok")

    @property
    def failures(self) -> tuple[str, ...]:
        """What makes the run of no use for segmenting, in sentences; also the first of its `notes`."""
        return failures(self.sites)

    def rows(self) -> list[dict[str, Any]]:
        """Per-subject, per-time-point, per-structure metrics as flat dictionaries: ``pandas.DataFrame(result.rows())``."""
        return [row.model_dump() for row in self.metrics]

    def write(self, folder: Path, beside: Sequence[Path] = ()) -> None:
        """Write ``metrics.csv`` and then ``result.json``, each whole or not at all.

        beside: files of the run's folder `folder` whose digests are kept too. Raises OSError.
        """
        columns = list(Row.model_fields)
        lines = [",".join(columns)]
        lines += [",".join("" if v is None else str(v) for v in row.model_dump().values()) for row in self.metrics]
        write_text(folder / _TABLE, "\n".join(lines) + "\n")
        digests = {str(path.relative_to(folder)): _sha256(path) for path in (folder / _TABLE, *beside)}
        write_document(folder / "result.json", {**self.model_dump(mode="json", exclude={"metrics"}), DIGESTS: digests})


def failures(sites: Mapping[str, SiteResult]) -> tuple[str, ...]:
    """That nothing was segmented, or a structure at no site, or nothing measured: what `sites` show, in sentences."""
    measured = [site.dice for site in sites.values() if site.dice.mean is not None]
    if not measured:
        return ("Nothing was measured: no site that went on to the end has a test subject.",)
    mean = sum(each.mean for each in measured if each.mean is not None) / len(measured)
    advice = "train longer, or see the notes on what was lost in training; do not predict with this run"
    if mean < NO_DICE:
        return (f"This run segments nothing: mean Dice {mean:.3f} over {len(measured)} sites; {advice}.",)
    lost = []
    for structure in measured[0].structures:
        known = [value for each in measured if (value := each.structures[structure]) is not None]
        if known and max(known) < NO_DICE:
            lost.append(structure)
    if lost:
        return (f"This run lost {', '.join(lost)}: Dice below {NO_DICE} at every site; {advice}.",)
    return ()


def read_result(folder: Path) -> Result:
    """The result of a run folder.

    Raises FolderError if the run has none yet, if another schema wrote it, or if ``result.json`` or ``metrics.csv`` are not as
    they were written.
    """
    path = folder / "result.json"
    content = _document(folder)
    version = content.get("schema_version")
    if version not in (1, SCHEMA_VERSION):
        raise FolderError(
            f"{path} has schema version {version!r}; this release reads 1 and {SCHEMA_VERSION}. Run it again."
        )
    _check(folder, content, _TABLE)
    try:
        text = content_of(folder / _TABLE, _AGAIN).decode("utf-8")
        rows = [
            {key: cell or None for key, cell in row.items()} for row in csv.DictReader(io.StringIO(text), strict=True)
        ]
        now = result_of_format_1(content) if version == 1 else content
        return Result.model_validate({**now, "schema_version": SCHEMA_VERSION, "metrics": rows})
    except (ValidationError, KeyError, TypeError, AttributeError, UnicodeDecodeError, csv.Error):
        raise damaged(path, f"and {_TABLE} beside it are no result that this release reads", _AGAIN) from None


def check_files(folder: Path, *, gone: bool = False) -> None:
    """Check every file of a finished run whose digest stands in its result.

    gone: whether files may be missing, as a site's after the destruction of what it held. Raises FolderError that names the
    first that was changed, or is missing, and as `read_result`.
    """
    content = _document(folder)
    there = [name for name in content.get(DIGESTS, {}) if not gone or (folder / name).exists()]
    _check(folder, content, *there)


def _document(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    if not path.exists():
        raise FolderError(f"{folder} holds no finished run (no result.json); run the scenario into it first")
    return read_document(path, _AGAIN)


def _check(folder: Path, content: dict[str, Any], *names: str) -> None:
    """Check those of the files `names` whose digests stand in the result's `content`. A site's folder may be elsewhere by now:
    it is the site's."""
    for name, sha256 in content.get(DIGESTS, {}).items():
        path = folder / name
        if name not in names or not path.parent.exists():
            continue
        content_of(path, _AGAIN)
        if _sha256(path) != sha256:
            raise damaged(path, "was changed after the run ended: its SHA-256 is not the one in result.json", _AGAIN)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def metric_rows(
    site: str, values: dict[str, Any], count: int, task: SegmentationTask, fold: int | None = None
) -> Sequence[Row]:
    """The rows of one site, its test subjects called by their number.

    Args:
        site: its name.
        values: measure -> (subjects, time points, structures) with NaN where undefined.
        count: how many subjects.
        task: names time points and structures.
        fold: that of a cross-validation; others have subjects of the same numbers, who are others.
    """
    part = "" if fold is None else f"f{fold}-"

    def cell(name: str, place: tuple[int, int, int]) -> float | None:
        value = float(values[name][place])
        return None if value != value else value

    return [
        Row(
            site=site,
            subject=f"{site}-{part}t{subject + 1:02d}",
            phase=phase,
            structure=structure,
            dice=cell("dice", (subject, p, s)),
            hd95_mm=cell("hd95_mm", (subject, p, s)),
            assd_mm=cell("assd_mm", (subject, p, s)),
        )
        for subject in range(count)
        for p, phase in enumerate(task.times)
        for s, structure in enumerate(task.names)
    ]


def read_scenario(run: Path) -> Scenario:
    """The scenario of a run's folder. Raises FolderError if it holds no run, or ``scenario.json`` is not as it was written."""
    path = run / SCENARIO
    if not path.exists():
        raise FolderError(f"{run} holds no run (no {SCENARIO}); give the folder of a run")
    try:
        return Scenario.model_validate(read_document(path))
    except ValidationError:
        raise damaged(path, "is no scenario that this release reads") from None


def write_scenario(run: Path, scenario: Scenario) -> None:
    """Put the resolved scenario into a run's folder. Raises OSError."""
    write_document(run / SCENARIO, scenario.model_dump(mode="json"))


def read_run_id(run: Path) -> str:
    """The id that a run's signatures carry, 16 hex digits. Raises FolderError if it is gone or damaged."""
    path = run / RUN_ID
    body = content_of(path)
    if not re.fullmatch(rb"[0-9a-f]{16}", body):
        raise damaged(path, "is cut short or was changed: a run's id has 16 hex digits")
    return body.decode("ascii")
