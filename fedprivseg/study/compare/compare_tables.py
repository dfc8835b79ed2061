"""A comparison as a table: CSV and JSON with every number, and in short for people, as rows, Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fedprivseg.core.leakage_result import Interval
from fedprivseg.study.clock.words import duration
from fedprivseg.study.compare.entries import Entry
from fedprivseg.study.compare.paired import Difference
from fedprivseg.study.compare.runs import Comparison


def as_csv(comparison: Comparison) -> str:
    """The table as CSV, numbers unrounded, one row a method."""
    stream = io.StringIO()
    rows = [_full_row(entry, comparison) for entry in comparison.entries]
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return stream.getvalue()


def as_content(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON can have it: a row a method with every number, what was tested against what, and the fronts."""
    return {
        "rows": [_full_row(entry, comparison) for entry in comparison.entries],
        "reference": comparison.reference,
        "floor": comparison.floor,
        "notes": list(comparison.notes),
        "fronts": [asdict(front) for front in comparison.fronts],
    }


def _full_row(e: Entry, comparison: Comparison) -> dict[str, Any]:
    leakage = e.leakage_interval or (None, None)
    row = {
        "label": e.label,
        "scenario": e.scenario,
        "method": e.method,
        "variant": e.variant,
        "grid": e.grid,
        "group": e.group,
        "seeds": len(e.seeds),
        "folds": len(e.folds),
        "subjects": e.subjects,
        **{f"dice_{site}": value for site, value in e.sites.items()},
        "dice": e.mean,
        "dice_sd_seeds": e.spread,
        "dice_low95": e.dice_interval[0],
        "dice_high95": e.dice_interval[1],
        "hd95_mm": e.hd95.mean,
        "hd95_low95": e.hd95.interval[0],
        "hd95_high95": e.hd95.interval[1],
        "hd95_penalised_mm": e.hd95.penalised,
        "hd95_undefined": e.hd95.undefined,
        "hd95_cells": e.hd95.cells,
        "mb_up_per_site": e.up,
        "mb_down_per_site": e.down,
        "rounds": e.rounds,
        "local_steps": e.local_steps,
        "wall_minutes": e.minutes,
        "site_minutes": e.compute_minutes,
        "simulated_seconds": e.simulated_s,
        "peak_mb": e.peak_mb,
        "raw_data_left": e.forbidden,
        "leakage": e.leakage,
        "leakage_low95": leakage[0],
        "leakage_high95": leakage[1],
        "leakage_at_least": e.at_least,
        "leakage_by": e.leakage_by,
        "dominated": comparison.dominated(e) if e.point is not None else None,
        "epsilon": None if e.budget is None else "inf" if e.budget.epsilon is None else e.budget.epsilon,
        "delta": e.budget.delta if e.budget else None,
        "privacy_unit": e.budget.unit if e.budget else None,
        **_tested("", e.difference),
        **_tested("floor_", e.above_floor),
    }
    return {key: None if value != value else value for key, value in row.items()}


def _tested(name: str, found: Difference | None) -> dict[str, float | None]:
    return {
        f"{name}median_difference": found.median if found else None,
        f"{name}wilcoxon_p": found.p if found else None,
        f"{name}wilcoxon_p_holm": found.p_holm if found else None,
    }


SIMULATED = "between hospitals"
"""The column of simulated wall time."""


def as_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The table in short, for people: a header and a row a method."""
    gridded = len({e.grid for e in comparison.entries}) > 1
    header = ["method", *(["grid"] if gridded else [])]
    header += [*(f"Dice {site}" for site in comparison.sites), "mean Dice", "95 %"]
    header += ["HD95 mm", "undefined", "HD95 penalised", "MB up", "MB down"]
    header += ["leakage", "leakage 95 %"] if attacked(comparison) else []
    timed = any(e.simulated_s is not None for e in comparison.entries)
    header += ["minutes", *([SIMULATED] if timed else [])]
    header += [f"median difference to {comparison.reference}", "p (Holm)"] if comparison.reference else []
    header += [f"median above {comparison.floor}", "p floor (Holm)"] if comparison.floor else []
    rows = []
    for e in comparison.entries:
        mean = f"{e.mean:.3f}" + (f" ± {e.spread:.3f}" if e.spread is not None else "")
        row = [
            _label(e, comparison),
            *([e.grid] if gridded else []),
            *(_number(e.sites[site], 3) for site in comparison.sites),
            mean,
        ]
        row += [_interval(e.dice_interval, 3), _number(e.hd95.mean, 1)]
        row += [f"{e.hd95.undefined} of {e.hd95.cells}", _number(e.hd95.penalised, 1)]
        row += [f"{e.up:.1f}", f"{e.down:.1f}"]
        if attacked(comparison):
            row += [leakage_in_words(e) if e.unknown else _number(e.leakage, 2), _interval(e.leakage_interval, 2)]
        row += [f"{e.minutes:.1f}"]
        row += ["-" if e.simulated_s is None else duration(e.simulated_s)] if timed else []
        row += _cells(e.difference) if comparison.reference else []
        row += _cells(e.above_floor) if comparison.floor else []
        rows.append(row)
    return header, rows


def leakage_in_words(entry: Entry) -> str:
    """What is said of a leakage that is not known."""
    return "not known" if entry.at_least is None else f"not known, at least {entry.at_least:.2f}"


def attacked(comparison: Comparison) -> bool:
    """Whether a run here was attacked."""
    return any((e.point is not None or e.unknown) and not (e.forbidden or e.silent) for e in comparison.entries)


def as_latex(comparison: Comparison) -> str:
    """The table in short as a LaTeX tabular (booktabs), what has to be known of it as comments."""
    header, rows = as_rows(comparison)
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", _latex(header), r"\midrule"]
    lines += [*(_latex(row) for row in rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {note}" for note in comparison.notes)]) + "\n"


def as_markdown(comparison: Comparison) -> str:
    """The table in short as Markdown, and what has to be known of it."""
    header, rows = as_rows(comparison)
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    notes = [""] * bool(comparison.notes) + [f"- {note}" for note in comparison.notes]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), *notes]) + "\n"


def _label(e: Entry, comparison: Comparison) -> str:
    if e.forbidden:
        return f"{e.label} (ceiling, forbidden: raw data left)"
    return f"{e.label} (floor)" if e.label == comparison.floor else e.label


def _cells(found: Difference | None) -> list[str]:
    return [f"{found.median:+.3f}", _p(found.p_holm)] if found else ["", ""]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def _interval(ends: Interval | None, digits: int) -> str:
    return "-" if ends is None or ends[0] != ends[0] else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def _p(value: float | None) -> str:
    return "-" if value is None else ("< 0.001" if value < 0.001 else f"{value:.3f}")


_LATEX = str.maketrans(
    {**{sign: "\\" + sign for sign in "&%$#_{}"}, "\\": r"\textbackslash{}", "±": r"$\pm$", "<": r"$<$"}
)


def _latex(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"
