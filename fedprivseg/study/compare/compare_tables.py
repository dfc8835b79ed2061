"""A comparison as a table: CSV with every number, and in short for people, as rows, Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from fedprivseg.study.compare.runs import Comparison, Entry, promise


def as_csv(comparison: Comparison) -> str:
    """The table as CSV, numbers unrounded, one row a method."""
    stream = io.StringIO()
    rows = [_csv_row(entry) for entry in comparison.entries]
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _csv_row(e: Entry) -> dict[str, Any]:
    row = {
        "label": e.label,
        "scenario": e.scenario,
        "method": e.method,
        "variant": e.variant,
        "seeds": len(e.seeds),
        **{f"dice_{site}": value for site, value in e.sites.items()},
        "dice": e.mean,
        "dice_sd_seeds": e.spread,
        "dice_low95": e.dice_interval[0],
        "dice_high95": e.dice_interval[1],
        "hd95_mm": e.hd95_mm,
        "hd95_low95": e.hd95_interval[0],
        "hd95_high95": e.hd95_interval[1],
        "hd95_undefined": e.undefined,
        "mb_up_per_site": e.up,
        "mb_down_per_site": e.down,
        "rounds": e.rounds,
        "local_steps": e.local_steps,
        "wall_minutes": e.minutes,
        "site_minutes": e.compute_minutes,
        "peak_mb": e.peak_mb,
        "raw_data_left": e.forbidden,
        "image_leakage": None if e.control_failed else e.leakage,
        "epsilon": promise(e.budget) if e.budget else None,
        "delta": e.budget.delta if e.budget else None,
        "privacy_unit": e.budget.unit if e.budget else None,
        "median_difference": e.difference.median if e.difference else None,
        "wilcoxon_p": e.difference.p if e.difference else None,
        "wilcoxon_p_holm": e.difference.p_holm if e.difference else None,
    }
    return {key: "" if value is None or value != value else value for key, value in row.items()}


def as_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The table in short, for people: a header and a row a method."""
    header = [
        "method",
        *(f"Dice {site}" for site in comparison.sites),
        "mean Dice",
        "95 %",
        "HD95 mm",
        "MB up",
        "MB down",
    ]
    attacked = any(e.leakage is not None and not e.forbidden for e in comparison.entries)
    header += ["leakage"] if attacked else []
    header += ["minutes", f"difference to {comparison.reference}", "p (Holm)"]
    rows = []
    for e in comparison.entries:
        mean = f"{e.mean:.3f}" + (f" ± {e.spread:.3f}" if e.spread is not None else "")
        label = f"{e.label} (forbidden: raw data left)" if e.forbidden else e.label
        row = [label, *(_number(e.sites[site], 3) for site in comparison.sites), mean]
        row += [f"{e.dice_interval[0]:.3f} to {e.dice_interval[1]:.3f}", _number(e.hd95_mm, 1)]
        row += [f"{e.up:.1f}", f"{e.down:.1f}"]
        row += [_number(e.leakage, 2) if not e.control_failed else "not known"] if attacked else []
        row += [f"{e.minutes:.1f}"]
        row += [f"{e.difference.median:+.3f}", _p(e.difference.p_holm)] if e.difference else ["", ""]
        rows.append(row)
    return header, rows


def as_latex(comparison: Comparison) -> str:
    """The table in short as a LaTeX tabular (booktabs)."""
    header, rows = as_rows(comparison)
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", _latex(header), r"\midrule"]
    return "\n".join([*lines, *(_latex(row) for row in rows), r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_markdown(comparison: Comparison) -> str:
    """The table in short as Markdown."""
    header, rows = as_rows(comparison)
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def _p(value: float | None) -> str:
    return "-" if value is None else ("< 0.001" if value < 0.001 else f"{value:.3f}")


_LATEX = str.maketrans(
    {**{sign: "\\" + sign for sign in "&%$#_{}"}, "\\": r"\textbackslash{}", "±": r"$\pm$", "<": r"$<$"}
)


def _latex(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"
