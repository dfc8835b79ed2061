"""``fedprivseg compare`` and ``benchmark``: runs side by side, and a folder of scenarios run for that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedprivseg.cli.options import AsJson, Data, Set
from fedprivseg.cli.terminal import open_console, print_table, print_warnings
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import deliver

if TYPE_CHECKING:
    from fedprivseg.cli.display import Display
    from fedprivseg.core.toml_text import Setting


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders that hold some.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The page to write.")] = Path("compare.html"),
    reference: Annotated[str | None, typer.Option(help="Label that differences are against; default the best.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table as CSV.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Also write the table as LaTeX.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table as Markdown.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also write Dice against bytes as PNG.")] = None,
    privacy: Annotated[
        Path | None, typer.Option(help="Also write Dice against leakage as PNG; for attacked runs.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put finished runs side by side: Dice, HD95, intervals, paired differences, cost. Refuses runs on different data."""
    from fedprivseg.study.compare import compare_charts, compare_tables
    from fedprivseg.study.compare.compare_page import write_page
    from fedprivseg.study.compare.runs import compare as put_side_by_side

    comparison = put_side_by_side(runs, reference)
    written = [write_page(comparison, out)]
    for path, made in (
        (csv, compare_tables.as_csv),
        (latex, compare_tables.as_latex),
        (markdown, compare_tables.as_markdown),
        (privacy, compare_charts.leakage_png),
        (picture, compare_charts.bytes_png),
    ):
        if path is not None:
            written.append(deliver(path, made(comparison)))
    header, rows = compare_tables.as_rows(comparison)
    if as_json:
        table = [dict(zip(header, row, strict=True)) for row in rows]
        typer.echo(json.dumps({"rows": table, "reference": comparison.reference, "written": [str(p) for p in written]}))
        return
    print_table("", header, rows)
    typer.echo(f"written: {', '.join(map(str, written))}")


def benchmark(
    folder: Annotated[Path, typer.Argument(help="A folder of scenarios, one method each.")],
    data: Data = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where the runs go; default runs/<folder>.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "0,1,2",
    settings: Set = None,
) -> None:
    """Run every scenario of a folder with every seed, then compare them. Finished runs are not repeated."""
    from fedprivseg.cli.display import Display
    from fedprivseg.study.benchmark import run_all
    from fedprivseg.study.compare.compare_charts import bytes_png
    from fedprivseg.study.compare.compare_page import write_page
    from fedprivseg.study.compare.compare_tables import as_csv, as_rows
    from fedprivseg.study.compare.runs import compare as put_side_by_side

    console = open_console()
    target = out or Path("runs") / folder.name
    chosen: list[Setting] = [*(settings or []), *([] if data is None else [("data.source", data)])]

    def show(run_folder: Path, names: list[str]) -> Display:
        console.print(f"{run_folder}", highlight=False)
        return Display(run_folder, names, console)

    def warn(run_folder: Path, warnings: Sequence[str]) -> None:
        print_warnings([f"{run_folder}: {each}" for each in warnings], console)

    comparison = put_side_by_side(run_all(folder, target, _numbers(seeds), chosen, show, warn))
    write_page(comparison, target / "compare.html")
    deliver(target / "compare.csv", as_csv(comparison))
    deliver(target / "compare.png", bytes_png(comparison))
    print_table("", *as_rows(comparison))
    typer.echo(f"written: {target / 'compare.html'}, compare.csv, compare.png")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"--seeds wants whole numbers with commas, such as 0,1,2; given {text!r}") from None
