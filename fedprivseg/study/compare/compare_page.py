"""A comparison as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from fedprivseg.core.files import deliver
from fedprivseg.core.pages.frame import render
from fedprivseg.study.compare.compare_charts import dice_against_bytes, learning_curves
from fedprivseg.study.compare.compare_tables import SIMULATED, as_rows
from fedprivseg.study.compare.front_chart import dice_against_leakage
from fedprivseg.study.compare.runs import Comparison


def write_page(comparison: Comparison, path: Path) -> Path:
    """Write `comparison` to the HTML file `path`, whole or not at all. Raises FolderError if it cannot be written."""
    header, rows = as_rows(comparison)
    short = {f"median difference to {comparison.reference}": "median difference"}  # the notes say to what
    short |= {f"median above {comparison.floor}": "above the floor", "HD95 penalised": "penalised mm"}
    header = [short.get(name, name) for name in header]
    page = render(
        "study/compare/compare_page.html",
        comparison=comparison,
        columns=_stacked(header, header),
        rows=[(entry, row[0], _stacked(header, row)) for entry, row in zip(comparison.entries, rows, strict=True)],
        scatter=Markup(dice_against_bytes(comparison)),
        privacy=Markup(dice_against_leakage(comparison)),
        curves=Markup(learning_curves(comparison)),
        crossed=[entry for entry in comparison.entries if entry.cross_site],
        budgets=[entry for entry in comparison.entries if entry.budget],
        shade=_shade,
    )
    return deliver(path, page.encode())


UNDER = {
    "95 %": "mean Dice",
    "undefined": "HD95 mm",
    "leakage 95 %": "leakage",
    SIMULATED: "minutes",
    "p (Holm)": "median difference",
    "p floor (Holm)": "above the floor",
}
"""Columns that stand under another one, so that the table fits a common screen."""


def _stacked(header: Sequence[str], row: Sequence[str]) -> list[tuple[str, str]]:
    """The cells of a row after its first as (cell, what stands under it or "")."""
    found = dict(zip(header, row, strict=True))
    under = {above: found[name] for name, above in UNDER.items() if name in found}
    names = [name for name in header[1:] if name not in UNDER]
    return [(found[name], under.get(name, "")) for name in names]


def _shade(cells: Mapping[tuple[str, str], float], pair: tuple[str, str]) -> str:
    """The background of a cross-site cell: the darker the better, between the matrix's least and greatest value."""
    low, high = min(cells.values()), max(cells.values())
    share = (cells[pair] - low) / (high - low) if high > low else 1.0
    return f"rgba(11, 79, 108, {0.08 + 0.42 * share:.2f})"
