"""How commands print: tables, bars and the outcome of a run. Plain in a pipe; rich is loaded when something is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from fedprivseg.core.results import Result
    from fedprivseg.study.preflight import Preflight


def open_console(*, stderr: bool = False) -> Console:
    """Where commands print: what is printed is text, never rich's markup, since paths and names may hold brackets."""
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=True, markup=False, emoji=False)


def bar(title: str, console: Console) -> Any:
    """A context that yields ``step(done, total, stage="")``: a bar on a terminal; in a pipe one line for each new stage, if
    stages are named."""
    from contextlib import contextmanager

    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )

    @contextmanager
    def shown() -> Any:
        begun = ""
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(title, total=None)

            def step(done: int, total: int, stage: str = "") -> None:
                nonlocal begun
                if stage != begun and not console.is_terminal:
                    typer.echo(f"{title}: {stage}", err=True)
                begun = stage
                progress.update(task, completed=done, total=total, description=f"{title} {stage}".rstrip())

            yield step

    return shown()


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on a terminal, tab-separated lines in a pipe."""
    from rich.table import Table
    from rich.text import Text

    console = open_console()
    if not console.is_terminal:
        for row in [columns, *rows]:
            typer.echo("\t".join(row))
        return
    drawn = Table(*columns, title=title, title_justify="left", box=None, header_style="bold")
    for row in rows:
        drawn.add_row(*map(Text, row))  # a cell may hold what a site said
    console.print(drawn)


def print_missing(result: Result, console: Console) -> None:
    """Each site that left the run, and why: a line of its own that nobody overlooks."""
    for name, site in result.sites.items():
        if site.status != "ok":
            console.print(
                f"MISSING: site {name} {site.status}", style="bold red", highlight=False, markup=False, emoji=False
            )


def print_warnings(warnings: Sequence[str], console: Console) -> None:
    """What to know before a run, a line each."""
    for each in warnings:
        console.print(f"warning: {each}", highlight=False, markup=False, style="yellow")


def print_preflight(ahead: Preflight, console: Console) -> None:
    """What lies ahead of a run."""
    console.print(
        f"{ahead.scenario}: {ahead.method} ({ahead.variant}), seed {ahead.seed}, engine {ahead.engine} -> {ahead.folder}",
        highlight=False,
        markup=False,
    )
    rows = [
        [
            site.name,
            str(site.train),
            str(site.test),
            str(site.slices),
            ", ".join(dict.fromkeys(each.kind for each in site.blocked)) or "nothing",
        ]
        for site in ahead.sites
    ]
    print_table("", ["site", "train", "test", "slices", "its gate would block"], rows)
    memory = "unknown" if ahead.memory_available is None else f"{ahead.memory_available / 1e9:.1f} GB available"
    gpu = f"{ahead.gpus:g} asked for, torch sees {ahead.gpus_seen}" if ahead.gpus else "none asked for"
    time = "not known" if ahead.seconds is None else f"about {_duration(ahead.seconds)}"
    for line in (
        f"GPU: {gpu}",
        f"disk: {ahead.disk_free / 1e9:.1f} GB free, about {ahead.disk_needed / 1e9:.1f} GB needed",
        f"memory: {memory}, about {ahead.memory_needed / 1e9:.1f} GB needed",
        f"time: {time} ({ahead.basis})",
    ):
        console.print(line, highlight=False, markup=False)
    print_warnings(ahead.warnings, console)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def print_result(result: Result, console: Console) -> None:
    """What a finished run came to, site by site, and what there is to note."""
    rows = [
        [
            name,
            str(site.subjects_train),
            str(site.subjects_test),
            *(_number(value, 3) for value in (*site.dice.structures.values(), site.dice.mean)),
            _number(site.hd95_mm.mean, 1),
            f"{site.bytes_up / 1e6:.1f}",
            f"{site.bytes_down / 1e6:.1f}",
            f"{site.seconds:.0f}",
            site.status,
        ]
        for name, site in result.sites.items()
    ]
    names = [f"Dice {name}" if at == 0 else name for at, name in enumerate(result.mean_dice)]
    print_table("", ["site", "train", "test", *names, "mean", "HD95 mm", "MB up", "MB down", "s", "status"], rows)
    print_missing(result, console)
    stayed = len(result.finished)
    over = "" if stayed == len(result.sites) else f" over {stayed} of {len(result.sites)} sites"
    console.print(
        f"mean Dice {_number(result.overall_dice, 3)}{over}, wall time {result.wall_s:.0f} s", highlight=False
    )
    for failure in result.failures:
        console.print(f"WARNING: {failure}", highlight=False, markup=False, emoji=False, style="bold red")
    for note in result.notes:
        if note not in result.failures:
            console.print(f"note: {note}", highlight=False, markup=False, emoji=False)
    for name, site in result.sites.items():
        for note in site.notes:
            console.print(f"note: {name}: {note}", highlight=False, markup=False, emoji=False)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
