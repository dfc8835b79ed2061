"""Result -> one self-contained HTML file that a clinician can read offline.

The report shows slices and codes only where the scenario's ``report.images`` is true; otherwise the files that hold
them are not opened at all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from safetensors import SafetensorError

from fedprivseg.core.arrays import load_arrays
from fedprivseg.core.config import Scenario, validated
from fedprivseg.core.errors import FedprivsegError, FolderError, LedgerError, RequestError
from fedprivseg.core.files import deliver, require_writable
from fedprivseg.core.kinds import kind_named
from fedprivseg.core.leakage_result import AGAIN, Leakage, What, read_leakage
from fedprivseg.core.pages.frame import render
from fedprivseg.core.results import Result, SiteResult, read_result
from fedprivseg.core.task import SegmentationTask
from fedprivseg.governance.compliance import write_compliance
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.lifecycle.withdrawal import read_withdrawals
from fedprivseg.governance.sitefolder.audit import read_identities
from fedprivseg.governance.sitefolder.vault import PICTURES, open_vault
from fedprivseg.study.leakage.admission import admitted
from fedprivseg.study.report.charts import curve_chart, dice_chart, summary_png
from fedprivseg.study.report.slices import Case, code_picture, plain_picture, slice_picture

CASES = ("best", "median", "worst")


@dataclass(frozen=True)
class LedgerPage:
    """A site's ledger as the report shows it.

    fault: why it does not verify, or "". head: the hash of its last line if it verifies. known: whether it was checked
    with the key by which the server knows the site. totals: lines and bytes by (event, kind, purpose). refused: lines
    by (rule, reason). unread: why there are no totals, or "".
    """

    fault: str = ""
    head: str = ""
    known: bool = False
    notes: tuple[str, ...] = ()
    totals: tuple[tuple[tuple[str, str, str], ledger.Total], ...] = ()
    refused: tuple[tuple[tuple[str, str], int], ...] = ()
    unread: str = ""

    def lines(self, event: str = "") -> int:
        """How many lines tell of `event`, or how many there are."""
        return sum(total.lines for (name, _, _), total in self.totals if event in ("", name))

    def released(self) -> list[tuple[str, str, ledger.Total]]:
        """What was released: (kind, purpose, total)."""
        return [(kind, purpose, total) for (event, kind, purpose), total in self.totals if event == "release"]


@dataclass(frozen=True)
class Pictures:
    """What a simulated site kept for the report: test cases by name, a slice (H, W) and its code (C, h, w)."""

    cases: Mapping[str, Case]
    slice: np.ndarray | None
    code: np.ndarray | None


@dataclass(frozen=True)
class Hospital:
    """One site as the report shows it. measured: test subjects that were measured, fewer than there are if the site left the
    run. ledger and pictures: None where this folder holds none."""

    name: str
    label: str
    vendor: str
    result: SiteResult
    measured: int
    ledger: LedgerPage | None
    pictures: Pictures | None
    unreadable: bool = False


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into the run folder `folder`, whole or not at all, and return its path.

    The same run folder gives the same bytes. A ledger that does not verify is shown as such in a report all the same.
    Raises FolderError if the run has no result or the report cannot be written, ScenarioError if its scenario is none.
    """
    result = read_result(folder)
    require_writable(folder)
    scenario = validated(Scenario, result.scenario, folder / "result.json")
    images = _images(result)
    hospitals = _hospitals(folder, result, scenario, images)
    leakage = read_leakage(folder)
    kinds = [kind_named(each) for each in result.exports]
    page = render(
        "study/report/report_page.html",
        filters={"score": _score, "mm": _mm, "size": _size, "time": _time, "count": _count},
        result=result,
        scenario=scenario,
        hospitals=hospitals,
        images=images,
        warnings=_warnings(result, hospitals),
        kinds=kinds,
        raw=any(kind.raw for kind in kinds),
        left=_joined([kind.label for kind in kinds]),
        hd95=_mean([hospital.result.hd95_mm.mean for hospital in hospitals]),
        chart=Markup(_chart(result, hospitals, scenario.task)),
        curve=Markup(_curve(result, hospitals)),
        crossed={(cell.trained_at, cell.measured_at): cell.dice for cell in result.cross_site},
        leakage=leakage,
        admitted=admitted(folder, leakage) if leakage else (),
        clauses=write_compliance(folder),
        withdrawals=read_withdrawals(folder),
        redrawn=_redrawn(folder, leakage) if leakage and images else {},
        undefined=sum(row.dice is None for row in result.metrics),
        pictures=_drawings(hospitals, scenario.task),
        settings=_settings(result.scenario),
        simulated=result.engine in ("ray", "inline"),
        task=scenario.task,
        phantom=scenario.data.source.startswith("phantom"),
    )
    return deliver(folder / "report.html", page.encode())


def summary_picture(folder: Path, path: Path) -> Path:
    """Write one PNG of the run in `folder` to `path` and return it: each site's median slice, a code and Dice.

    The picture is 1200 x 500 pixels. Raises FolderError as `write_report`, and RequestError if the scenario allows
    no images.
    """
    result = read_result(folder)
    if not _images(result):
        raise RequestError("the scenario says report.images = false, so no picture of this run may be made")
    scenario = validated(Scenario, result.scenario, folder / "result.json")
    hospitals = _hospitals(folder, result, scenario, images=True)
    panels = {
        hospital.label: (
            hospital.result.dice,
            hospital.pictures.cases.get("median") if hospital.pictures else None,
            hospital.pictures.code if hospital.pictures else None,
        )
        for hospital in hospitals
    }
    return deliver(
        path, summary_png(panels, f"{result.method} ({result.variant}): {result.scenario['name']}", scenario.task)
    )


def _images(result: Result) -> bool:
    """Whether pictures may be opened. Denied unless the result says so in so many words."""
    return result.scenario.get("report", {}).get("images") is True


def _hospitals(folder: Path, result: Result, scenario: Scenario, images: bool) -> list[Hospital]:
    if sorted(result.sites) != sorted(site.name for site in scenario.sites):
        raise FolderError(f"{folder / 'result.json'} tells of other sites than its scenario; run the scenario again")
    known = read_identities(folder)
    titles = Counter(site.title for site in scenario.sites)
    hospitals = []
    for config in scenario.sites:
        name = config.name
        label = (config.title if titles[config.title] == 1 else f"{config.title} ({name})") if config.title else name
        home = folder / "sites" / name
        page = read_ledger(home / "ledger.jsonl", known.get(name)) if (home / "ledger.jsonl").exists() else None
        pictures, unreadable = None, False
        if images:
            try:
                vault = open_vault(home)
                pictures = read_pictures(vault.load(PICTURES)) if vault.has(PICTURES) else None
            except (SafetensorError, FedprivsegError, KeyError, ValueError):
                unreadable = True
        measured = len({row.subject for row in result.metrics if row.site == name})
        hospitals.append(Hospital(name, label, config.vendor, result.sites[name], measured, page, pictures, unreadable))
    return hospitals


def read_ledger(path: Path, public_hex: str | None) -> LedgerPage:
    """The ledger at `path`, verified and summarised; what is wrong with it is part of the page, not an error.

    public_hex: the key by which the site is known; None trusts the one that the ledger states.
    """
    fault, head, unread = "", "", ""
    notes: tuple[str, ...] = ()
    try:
        verdict = ledger.verify(path, public_hex=public_hex)
        head, notes = verdict.head, verdict.notes
    except LedgerError as error:
        fault = str(error)
    totals: dict[tuple[str, str, str], ledger.Total] = {}
    refused: Counter[tuple[str, str]] = Counter()
    try:
        totals = ledger.summary(path)
        refused.update(
            (str(line.facts.get("rule", "")), str(line.facts.get("reason", "")))
            for line in ledger.read(path)
            if line.event == "refusal"
        )
    except LedgerError as error:
        unread = str(error)
    return LedgerPage(
        fault, head, public_hex is not None, notes, tuple(totals.items()), tuple(sorted(refused.items())), unread
    )


def read_pictures(arrays: Mapping[str, np.ndarray]) -> Pictures:
    """The pictures that a simulated site kept in its vault. Raises KeyError if the arrays are not of that kind."""
    cases = {
        name: Case(
            image=arrays[f"{name}.image"],
            truth=arrays[f"{name}.truth"],
            prediction=arrays[f"{name}.prediction"],
            spacing=(float(arrays[f"{name}.spacing"][0]), float(arrays[f"{name}.spacing"][1])),
            dice=float(arrays[f"{name}.dice"][0]),
        )
        for name in CASES
        if f"{name}.image" in arrays
    }
    return Pictures(cases, arrays.get("code.slice"), arrays.get("code.code"))


def _drawings(hospitals: Sequence[Hospital], task: SegmentationTask) -> dict[str, dict[str, Markup]]:
    """Site -> what -> inline SVG, for every picture there is."""
    drawings: dict[str, dict[str, Markup]] = {}
    for hospital in hospitals:
        own = drawings.setdefault(hospital.name, {})
        if hospital.pictures is None:
            continue
        for name, case in hospital.pictures.cases.items():
            title = (
                f"{hospital.label}, {name} case, mean Dice {_score(case.dice)}: {task.slice} with the network's outlines "
                "(solid) and the reference outlines (dashed)"
            )
            own[name] = Markup(slice_picture(case, f"{hospital.name}-{name}", title, task.lines))
        if hospital.pictures.slice is not None and hospital.pictures.code is not None:
            channels, height, width = hospital.pictures.code.shape
            title = f"{hospital.label}: a test slice, which stayed at the hospital"
            own["slice"] = Markup(plain_picture(hospital.pictures.slice, title))
            title = (
                f"{hospital.label}: the code of that slice, {channels} channels of {height} by {width} values, in grey"
            )
            own["code"] = Markup(code_picture(hospital.pictures.code, title))
    return drawings


def _redrawn(folder: Path, leakage: Leakage) -> dict[tuple[str, What], dict[str, list[Markup]]]:
    """(site, what) -> row -> three pictures: what the strongest attack drew, beside the truth."""
    path = folder / "attacks.safetensors"
    arrays = load_arrays(path, AGAIN) if path.exists() else {}
    whats: tuple[What, What] = ("images", "masks")
    rows = {
        "truth": "the truth, which stayed",
        "drawn": "redrawn from what was released",
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
                    Markup(plain_picture(picture, f"{site}, {case} {what}: {words}"))
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


def _warnings(result: Result, hospitals: Sequence[Hospital]) -> list[tuple[str, str, str]]:
    """What a reader must know first: ("bad" | "note", about whom, a sentence)."""
    failures = result.failures
    found = [("bad", "Result", failure) for failure in failures]
    found += [("note", "Data", note) for note in result.notes if note not in failures]
    for hospital in hospitals:
        if hospital.result.status != "ok":
            found.append(("bad", hospital.label, f"did not take part to the end: {hospital.result.status}"))
        if hospital.ledger is not None and hospital.ledger.fault:
            found.append(("bad", hospital.label, f"its ledger does not verify: {hospital.ledger.fault}"))
        if hospital.unreadable:
            found.append(("bad", hospital.label, "its pictures could not be read; run the scenario again for them"))
        lost = [structure for structure, value in hospital.result.dice.structures.items() if value == 0]
        if lost:
            found.append(("bad", hospital.label, f"the network missed {_joined(lost)} in every test subject (Dice 0)."))
    if any(kind_named(each).raw for each in result.exports):
        found.append(
            (
                "bad",
                "Raw data",
                "images and masks left the hospitals as they are. Policy forbids this; see it as a reference.",
            )
        )
    for hospital in hospitals:
        found += [("note", hospital.label, note) for note in hospital.result.notes]
        if hospital.ledger is not None:
            found += [("note", hospital.label, f"ledger: {note}") for note in hospital.ledger.notes]
        if hospital.result.status == "ok" and hospital.result.subjects_test == 0:
            found.append(("note", hospital.label, "has no test subjects, so nothing could be measured there."))
    return found


def _settings(scenario: Mapping[str, Any], place: str = "") -> str:
    """The scenario as a listing in TOML's manner: plain values first, then tables, then arrays of tables."""
    lines = []
    tables = []
    for key, value in scenario.items():
        name = f"{place}.{key}".lstrip(".")
        if isinstance(value, Mapping):
            tables.append(f"\n[{name}]\n{_settings(value, name)}")
        elif isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
            tables += [f"\n[[{name}]]\n{_settings(item, name)}" for item in value]
        else:
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines + tables)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _joined(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "nothing"


def _score(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"


def _mm(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _count(value: int) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _size(value: int) -> str:
    """Bytes in decimal units."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= factor:
            return f"{value / factor:.1f}\N{NO-BREAK SPACE}{unit}"
    return f"{value}\N{NO-BREAK SPACE}B"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
