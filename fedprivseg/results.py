"""What a run measured: `result.json` as a typed, schema-versioned model, and the same as rows for a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from fedprivseg.config import Scenario
from fedprivseg.errors import FolderError
from fedprivseg.files import write_text
from fedprivseg.records import PHASES, STRUCTURES, Budget, CrossSite, CurvePoint

SCHEMA_VERSION = 1

NO_DICE = 0.05
"""A mean Dice below it counts as none: a structure that was not learned."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Scores(_Frozen):
    """A measure per structure and their mean, over a site's test subjects and both phases; None where nothing was defined.

    ``missing``: in how many of the (subject, phase, structure) cells the measure is undefined.
    """

    LV: float | None
    MYO: float | None
    RV: float | None
    mean: float | None
    missing: int = 0


class SiteResult(_Frozen):
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


class Row(_Frozen):
    """One test subject in one phase: what lies in ``metrics.csv``, one line a structure. ``subject`` is a pseudonym."""

    site: str
    subject: str
    phase: str
    structure: str
    dice: float | None
    hd95_mm: float | None
    assd_mm: float | None


class Result(_Frozen):
    """A finished run.

    ``split_sha256``: of all training and test subjects' codes together, so that runs on other
    subjects can be told apart and nobody is named. ``curve``, ``cross_site``
    and ``budgets`` are empty for methods to which they mean nothing.
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
    mean_dice: float | None
    stages: dict[str, float]
    wall_s: float
    resumed: bool
    peak_rss_mb: float
    environment: dict[str, str]
    notes: tuple[str, ...] = ()
    split_sha256: str = ""
    curve: tuple[CurvePoint, ...] = ()
    cross_site: tuple[CrossSite, ...] = ()
    budgets: tuple[Budget, ...] = ()
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
        """Per-subject, per-phase, per-structure metrics as flat dictionaries: ``pandas.DataFrame(result.rows())``."""
        return [row.model_dump() for row in self.metrics]

    def write(self, folder: Path) -> None:
        """Write ``result.json`` and ``metrics.csv``, each whole or not at all."""
        body = json.dumps(self.model_dump(mode="json", exclude={"metrics"}), indent=2)
        columns = list(Row.model_fields)
        lines = [",".join(columns)]
        lines += [",".join("" if v is None else str(v) for v in row.model_dump().values()) for row in self.metrics]
        for name, text in (("metrics.csv", "\n".join(lines) + "\n"), ("result.json", body + "\n")):
            write_text(folder / name, text)


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
    for structure in STRUCTURES:
        known = [value for each in measured if (value := getattr(each, structure)) is not None]
        if known and max(known) < NO_DICE:
            lost.append(structure)
    if lost:
        return (f"This run lost {', '.join(lost)}: Dice below {NO_DICE} at every site; {advice}.",)
    return ()


def read_result(folder: Path) -> Result:
    """The result of a run folder. Raises FolderError if the run has none yet or another schema wrote it."""
    path = folder / "result.json"
    if not path.exists():
        raise FolderError(f"{folder} holds no finished run (no result.json); run the scenario into it first")
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("schema_version") != SCHEMA_VERSION:
        raise FolderError(
            f"{path} has schema version {content.get('schema_version')!r}; this release reads {SCHEMA_VERSION}. Run it again."
        )
    header, *lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    keys = header.split(",")
    rows = [dict(zip(keys, (cell or None for cell in line.split(",")), strict=True)) for line in lines]
    return Result.model_validate({**content, "metrics": rows})


def metric_rows(site: str, values: dict[str, Any], count: int) -> Sequence[Row]:
    """The rows of one site. `values`: measure -> (subjects, 2, 3) with NaN where undefined."""

    def cell(name: str, place: tuple[int, int, int]) -> float | None:
        value = float(values[name][place])
        return None if value != value else value

    return [
        Row(
            site=site,
            subject=f"{site}-t{subject + 1:02d}",
            phase=phase,
            structure=structure,
            dice=cell("dice", (subject, p, s)),
            hd95_mm=cell("hd95_mm", (subject, p, s)),
            assd_mm=cell("assd_mm", (subject, p, s)),
        )
        for subject in range(count)
        for p, phase in enumerate(PHASES)
        for s, structure in enumerate(STRUCTURES)
    ]


def read_scenario(run: Path) -> Scenario:
    """The scenario of a run's folder. Raises FolderError if it holds no run."""
    if not (run / "scenario.json").exists():
        raise FolderError(f"{run} holds no run (no scenario.json); give the folder of a run")
    return Scenario.model_validate_json((run / "scenario.json").read_text(encoding="utf-8"))
