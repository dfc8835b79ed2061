"""Result -> one self-contained HTML file that a clinician can read offline.

It draws what earlier stages of `study.pipeline` left, and writes nothing else; what a stage did not leave is named as missing.
Slices and codes are shown only where the scenario's ``report.images`` is true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from markupsafe import Markup

from fedprivseg.core.arrays import load_arrays
from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import FolderError
from fedprivseg.core.files import deliver
from fedprivseg.core.kinds import kind_named
from fedprivseg.core.leakage_record import AGAIN, read_leakage
from fedprivseg.core.leakage_result import STREAMS, Leakage
from fedprivseg.core.method_card import What
from fedprivseg.core.pages.frame import render
from fedprivseg.core.results import Result, SiteResult, read_result
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.core.task import SegmentationTask
from fedprivseg.core.validation import validated
from fedprivseg.governance.compliance import read_compliance
from fedprivseg.governance.lifecycle.withdrawal import read_withdrawals
from fedprivseg.governance.sitefolder.audit import read_identities
from fedprivseg.study.clock.gantt import gantt_chart
from fedprivseg.study.clock.words import duration, reasons, sentence
from fedprivseg.study.leakage.admission import admitted
from fedprivseg.study.report.charts import curve_chart, dice_chart
from fedprivseg.study.report.dice_groups import DiceGroups
from fedprivseg.study.report.formats import FILTERS, joined, score, why_it_left
from fedprivseg.study.report.site_images import CASES, SiteImages, images_allowed
from fedprivseg.study.report.site_ledgers import LedgerSummary, summarise_ledger
from fedprivseg.study.report.slices import case_svg, code_svg, image_svg


@dataclass(frozen=True)
class Hospital:
    """One site as the report shows it.

    Attributes:
        name: the site's.
        label: what the page calls it.
        result: what the run measured there.
        measured: test subjects that were measured, fewer than there are if the site left the run.
        ledger: None where this folder holds none.
        images: None where it kept none.
    """

    name: str
    label: str
    result: SiteResult
    measured: int
    ledger: LedgerSummary | None
    images: SiteImages | None


def write_report(folder: Path, kept: Mapping[str, SiteImages], groups: DiceGroups) -> Path:
    """Write ``report.html`` into the folder of a finished run, whole or not at all, and return its path.

    The same run folder gives the same bytes. A ledger that does not verify is shown as such in a report all the same.

    Args:
        folder: the run's.
        kept: what the sites kept for the report (`site_images.images_of`).
        groups: how well each group of patients was segmented (`dice_groups.dice_by_group`).

    Raises:
        FolderError: the run has no result, or the report cannot be written.
        ScenarioError: the result's scenario is none.
    """
    result = read_result(folder)
    run = RunFolder(folder)
    scenario = validated(Scenario, result.scenario, run.result)
    images = images_allowed(result)
    hospitals = _hospitals(run, result, scenario, kept if images else {})
    leakage = read_leakage(folder)
    kinds = [kind_named(each) for each in result.exports]
    page = render(
        "study/report/report_page.html",
        filters={**FILTERS, "duration": duration},
        result=result,
        scenario=scenario,
        hospitals=hospitals,
        images=images,
        warnings=_warnings(result, hospitals),
        kinds=kinds,
        raw=any(kind.raw for kind in kinds),
        left=joined([kind.label for kind in kinds]),
        hd95=_mean([hospital.result.hd95_mm.mean for hospital in hospitals]),
        chart=Markup(_chart(result, hospitals, scenario.task)),
        curve=Markup(_curve(result, hospitals)),
        gantt=Markup(_gantt(result, hospitals)),
        takes=[sentence(result.simulated_time), *reasons(result.simulated_time)] if result.simulated_time else [],
        crossed={(cell.trained_at, cell.measured_at): cell.dice for cell in result.cross_site},
        leakage=leakage,
        streams=STREAMS,
        groups=groups,
        admitted=admitted(folder, leakage) if leakage else (),
        clauses=read_compliance(folder),
        withdrawals=read_withdrawals(folder),
        reconstructed=_reconstructed(folder, leakage) if leakage and images else {},
        undefined=sum(row.dice is None for row in result.metrics),
        drawings=_drawings(hospitals, scenario.task),
        settings=tomli_w.dumps(_stated(result.scenario)),
        simulated=result.engine in ("ray", "inline"),
        task=scenario.task,
        phantom=scenario.data.source.startswith("phantom"),
    )
    return deliver(run.report, page)


def _hospitals(run: RunFolder, result: Result, scenario: Scenario, images: Mapping[str, SiteImages]) -> list[Hospital]:
    if sorted(result.sites) != sorted(site.name for site in scenario.sites):
        raise FolderError(f"{run.result} tells of other sites than its scenario; run the scenario again")
    known = read_identities(run.path)
    titles = Counter(site.title for site in scenario.sites)
    hospitals = []
    for config in scenario.sites:
        name = config.name
        label = (config.title if titles[config.title] == 1 else f"{config.title} ({name})") if config.title else name
        book = run.site(name).ledger
        summary = summarise_ledger(book, known.get(name)) if book.exists() else None
        measured = len({row.subject for row in result.metrics if row.site == name})
        hospitals.append(Hospital(name, label, result.sites[name], measured, summary, images.get(name)))
    return hospitals


def _drawings(hospitals: Sequence[Hospital], task: SegmentationTask) -> dict[str, dict[str, Markup]]:
    """Site -> what -> inline SVG, for every image there is."""
    drawings: dict[str, dict[str, Markup]] = {}
    for hospital in hospitals:
        own = drawings.setdefault(hospital.name, {})
        if hospital.images is None:
            continue
        for name, case in hospital.images.cases.items():
            title = (
                f"{hospital.label}, {name} case, mean Dice {score(case.dice)}: {task.slice} with the network's outlines "
                "(solid) and the reference outlines (dashed)"
            )
            own[name] = Markup(case_svg(case, f"{hospital.name}-{name}", title, task.lines))
        if hospital.images.slice is not None and hospital.images.code is not None:
            channels, height, width = hospital.images.code.shape
            title = f"{hospital.label}: a test slice, which stayed at the hospital"
            own["slice"] = Markup(image_svg(hospital.images.slice, title))
            title = (
                f"{hospital.label}: the code of that slice, {channels} channels of {height} by {width} values, in grey"
            )
            own["code"] = Markup(code_svg(hospital.images.code, title))
    return drawings


def _reconstructed(folder: Path, leakage: Leakage) -> dict[tuple[str, What], dict[str, list[Markup]]]:
    """(site, what) -> row -> three pictures: what the strongest attack reconstructed, beside the truth."""
    path = folder / "attacks.safetensors"
    arrays = load_arrays(path, AGAIN) if path.exists() else {}
    whats: tuple[What, What] = ("images", "masks")
    rows = {
        "truth": "the truth, which stayed",
        "drawn": "reconstructed from what was released",
        "own": "by the hospital's own decoder",
    }
    found: dict[tuple[str, What], dict[str, list[Markup]]] = {}
    for site in leakage.sites:
        for what in whats:
            for row, words in rows.items():
                pictures = arrays.get(f"{site}.{what}.{row}")
                if pictures is None:
                    continue
                shades = np.resize((1.0, 0.55, 0.75, 0.4, 0.9, 0.65), pictures.shape[1])
                grey = pictures[:, 0] if what == "images" else np.tensordot(pictures, shades, axes=(1, 0))
                found.setdefault((site, what), {})[words] = [
                    Markup(image_svg(picture, f"{site}, {case} {what}: {words}"))
                    for case, picture in zip(CASES, grey, strict=True)
                ]
    return found


def _chart(result: Result, hospitals: Sequence[Hospital], task: SegmentationTask) -> str:
    if all(row.dice is None for row in result.metrics):
        return ""
    title = "Dice of every test subject by structure, hospital and time point; the means stand in the tables"
    return dice_chart(result.metrics, {hospital.name: hospital.label for hospital in hospitals}, title, task)


def _curve(result: Result, hospitals: Sequence[Hospital]) -> str:
    title = "Training loss and Dice on test slices over the rounds, one line a hospital"
    return curve_chart(result.curve, {hospital.name: hospital.label for hospital in hospitals}, title)


def _gantt(result: Result, hospitals: Sequence[Hospital]) -> str:
    labels = {hospital.name: hospital.label for hospital in hospitals}
    return gantt_chart(result.simulated_time, labels) if result.simulated_time else ""


def _warnings(result: Result, hospitals: Sequence[Hospital]) -> list[tuple[str, str, str]]:
    """What a reader must know first: ("bad" | "note", about whom, a sentence)."""
    failures = result.failures
    found = [("bad", "Result", failure) for failure in failures]
    found += [("note", "Data", note) for note in result.notes if note not in failures]
    for hospital in hospitals:
        if hospital.result.status != "ok":
            found.append(
                ("bad", hospital.label, f"did not take part to the end: {why_it_left(hospital.result.status)}")
            )
        if hospital.ledger is not None and hospital.ledger.fault:
            found.append(("bad", hospital.label, f"its ledger does not verify: {hospital.ledger.fault}"))
        if hospital.images is not None and hospital.images.unreadable:
            found.append(("bad", hospital.label, "its images could not be read; run the scenario again for them"))
        lost = [structure for structure, value in hospital.result.dice.structures.items() if value == 0]
        if lost:
            found.append(("bad", hospital.label, f"the network missed {joined(lost)} in every test subject (Dice 0)."))
    if any(kind_named(each).raw for each in result.exports):
        found.append(
            (
                "bad",
                "Raw data",
                "images and masks left the hospitals unprotected. Policy forbids this; see it as a reference.",
            )
        )
    for hospital in hospitals:
        found += [("note", hospital.label, note) for note in hospital.result.notes]
        if hospital.ledger is not None:
            found += [("note", hospital.label, f"ledger: {note}") for note in hospital.ledger.notes]
        if hospital.result.status == "ok" and hospital.result.subjects_test == 0:
            found.append(("note", hospital.label, "has no test subjects, so nothing could be measured there."))
    return found


def _stated(value: Any) -> Any:
    """A setting without what is not set: TOML knows no null."""
    if isinstance(value, Mapping):
        return {key: _stated(inner) for key, inner in value.items() if inner is not None}
    return [_stated(inner) for inner in value] if isinstance(value, list) else value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
