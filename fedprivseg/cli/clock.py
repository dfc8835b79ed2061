"""``fedprivseg clock``: what a finished run would take between hospitals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedprivseg.cli.options import AsJson, Run
from fedprivseg.cli.terminal import print_table
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import deliver


def clock(
    run_folder: Run,
    site: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SITE.KEY=VALUE", help="What if a site's profile said this; SITE may be 'all'; may be repeated."
        ),
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help="Longest wait for one answer, seconds; default the scenario's.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Also draw the stages (SVG).")] = None,
    as_json: AsJson = False,
) -> None:
    """Say how long a finished run would take between its hospitals, or between others, without repeating it."""
    from fedprivseg.study.clock.what_if import simulated_time
    from fedprivseg.study.clock.words import duration, reasons, sentence

    if deadline is not None and not deadline > 0:
        raise RequestError(f"--deadline is {deadline:g}; it is seconds, above 0")
    time = simulated_time(run_folder, site or (), deadline)
    if out is not None:
        from fedprivseg.study.clock.gantt import gantt_chart

        deliver(out, gantt_chart(time, {name: name for name in time.sites}))
    if as_json:
        typer.echo(time.model_dump_json(exclude={"bars"}))
        return
    spent = ("down_s", "compute_s", "up_s", "away_s", "crashed_s", "waiting_s")
    rows = [
        [name, *(duration(value) if (value := getattr(own, act)) else "-" for act in spent)]
        for name, own in time.sites.items()
    ]
    print_table("", ["site", "receiving", "computing", "sending", "away", "lost to crashes", "waiting"], rows)
    rows = [[name, duration(stage.end_s - stage.start_s)] for name, stage in time.stages.items()]
    print_table("", ["stage", "takes"], rows)
    for each in (sentence(time), *reasons(time)):
        typer.echo(each)
