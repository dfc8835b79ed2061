"""``fedprivseg compare`` and ``benchmark``: runs side by side, and a folder of scenarios run for that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedprivseg.cli.options import AsJson, Data, Set
from fedprivseg.cli.terminal import bar, open_console, print_table, print_warnings
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import deliver

if TYPE_CHECKING:
    from rich.console import Console

    from fedprivseg.attacks.base import Progress
    from fedprivseg.cli.display import Display
    from fedprivseg.core.toml_text import Setting


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders that hold some.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The page to write.")] = Path("compare.html"),
    reference: Annotated[
        str | None, typer.Option(help="Label that differences are against; default what the scenarios state.")
    ] = None,
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
    from fedprivseg.study.compare import compare_charts, compare_tables, front_chart
    from fedprivseg.study.compare.compare_page import write_page
    from fedprivseg.study.compare.runs import compare as put_side_by_side

    comparison = put_side_by_side(runs, reference)
    written = [write_page(comparison, out)]
    for path, made in (
        (csv, compare_tables.as_csv),
        (latex, compare_tables.as_latex),
        (markdown, compare_tables.as_markdown),
        (privacy, front_chart.leakage_png),
        (picture, compare_charts.bytes_png),
    ):
        if path is not None:
            written.append(deliver(path, made(comparison)))
    if as_json:
        typer.echo(json.dumps({**compare_tables.as_content(comparison), "written": [str(p) for p in written]}))
        return
    print_table("", *compare_tables.as_rows(comparison))
    for note in comparison.notes:
        typer.echo(note)
    typer.echo(f"written: {', '.join(map(str, written))}")


def benchmark(
    folder: Annotated[Path, typer.Argument(help="A folder of scenarios, one method each.")],
    data: Data = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where the runs go; default runs/<folder>.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "0,1,2",
    folds: Annotated[
        int | None, typer.Option(help="Cross-validate by patient with so many folds; default as the scenarios say.")
    ] = None,
    attack: Annotated[str, typer.Option(help="Attack every run: none, small or full.")] = "none",
    part: Annotated[str, typer.Option(metavar="K/N", help="Only the K-th of N parts of about equal cost.")] = "1/1",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A cut of at most 60 minutes: first fold and seed, what fits; it says what is cut."
        ),
    ] = False,
    settings: Set = None,
) -> None:
    """Run every scenario of a folder with every seed and fold, then compare them. Killed, it goes on: finished runs and attacks
    are not repeated. Parts, on one machine after another or side by side on several, fill one folder of runs."""
    from fedprivseg.cli.display import Display
    from fedprivseg.study.benchmark import Plan, carry_out, planned, write_comparison
    from fedprivseg.study.compare.compare_tables import as_rows

    console = open_console()
    target = out or Path("runs") / folder.name
    chosen: list[Setting] = [*(settings or []), *([] if data is None else [("data.source", data)])]

    def show(run_folder: Path, names: list[str]) -> Display:
        console.print(f"{run_folder}", highlight=False)
        return Display(run_folder, names, console)

    def warn(run_folder: Path, warnings: Sequence[str]) -> None:
        print_warnings([f"{run_folder}: {each}" for each in warnings], console)

    def tell(text: str) -> None:
        console.print(text, highlight=False)

    def attacking(run_folder: Path) -> AbstractContextManager[Progress]:
        return _attack_bar(run_folder, console)

    plan = Plan(seeds=_numbers(seeds), folds=folds, attack=_effort(attack), part=_part(part), quick=quick)
    jobs = planned(folder, target, plan, chosen, warn)
    cut = carry_out(jobs, plan, show=show, attacking=attacking, tell=tell)
    comparison, written = write_comparison(target, jobs, [*plan.cuts, *cut])
    print_table("", *as_rows(comparison))
    for note in (*comparison.notes, *plan.cuts, *cut):
        typer.echo(note)
    typer.echo(f"written: {', '.join(map(str, written))}")


@contextmanager
def _attack_bar(run_folder: Path, console: Console) -> Iterator[Progress]:
    """Progress of the attacks on a run, on a bar."""
    with bar(f"attacking {run_folder.name}", console) as step:
        yield lambda stage, done, total: step(done, total, stage)


def _effort(text: str) -> Literal["none", "small", "full"]:
    for known in ("none", "small", "full"):
        if text == known:
            return known
    raise RequestError(f"--attack is {text!r}; allowed are none, small and full")


def _part(text: str) -> tuple[int, int]:
    """K and N of ``K/N``."""
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise RequestError(f"--part wants K/N, such as 2/4 for the second of four parts; given {text!r}")
    return int(found[1]), int(found[2])


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"--seeds wants whole numbers with commas, such as 0,1,2; given {text!r}") from None
