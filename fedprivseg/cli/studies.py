"""The commands of one run: carry it out, segment with it, attack it, report it, take a subject out of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedprivseg.cli.options import AsJson, Data, Run, RunOut, ScenarioFile, Set, Site
from fedprivseg.cli.terminal import (
    bar,
    open_console,
    print_missing,
    print_preflight,
    print_result,
    print_table,
    print_warnings,
)
from fedprivseg.core.errors import RequestError
from fedprivseg.core.lock import check_free

if TYPE_CHECKING:
    from rich.console import Console

    from fedprivseg.core.config import Scenario
    from fedprivseg.core.leakage_result import Leakage
    from fedprivseg.core.toml_text import Setting


def run(
    scenario: ScenarioFile,
    data: Data = None,
    out: RunOut = None,
    engine: Annotated[str | None, typer.Option(help="ray, inline or deployment.")] = None,
    seed: Annotated[int | None, typer.Option(help="Root seed of every random draw.")] = None,
    settings: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what lies ahead (subjects, room, time, policy), and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a scenario to a finished result and report. The same command goes on with an interrupted run."""
    from fedprivseg.core.runfolder import RunFolder
    from fedprivseg.runtime.engines import begun
    from fedprivseg.study.scenarios import load_scenario

    options = {"data.source": data, "engine": engine, "seed": seed}
    chosen: list[Setting] = [*(settings or []), *((key, value) for key, value in options.items() if value is not None)]
    asked = load_scenario(scenario, chosen)
    folder = out or asked.folder
    check_free(folder)
    finished = RunFolder(folder).result.exists()  # then nothing need be written: it may lie on a read-only disk
    console = open_console(stderr=as_json)
    if dry_run or not finished:
        _look_ahead(asked, folder, console, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    with begun(asked, folder) as carry_out:
        from fedprivseg.cli.display import Display
        from fedprivseg.study import pipeline
        from fedprivseg.study.run import release_folder

        if not finished:
            with bar("drawing the phantom", console) as progress:
                release_folder(asked, progress)
        display = Display(folder, [site.name for site in asked.sites], console)
        result = pipeline.run(asked, folder, display=display, carry_out=carry_out)
    report = RunFolder(folder).report
    if as_json:
        print_missing(result, console)
        typer.echo(json.dumps({**result.model_dump(mode="json", exclude={"metrics"}), "report": str(report)}))
        return
    print_result(result, console)
    console.print(f"report: {report}", highlight=False)


def _look_ahead(asked: Scenario, folder: Path, console: Console, *, dry_run: bool, as_json: bool) -> None:
    """The pre-flight of `run`: what is warned of, and with `dry_run` all that is known. Raises what it refuses."""
    from fedprivseg.core.cache import require_cache
    from fedprivseg.study.preflight import refuse
    from fedprivseg.study.run import preflight

    ahead = preflight(asked, folder)
    if dry_run:
        if as_json:
            typer.echo(ahead.model_dump_json())
        else:
            print_preflight(ahead, console)
        refuse(ahead)
        return
    require_cache()
    refuse(ahead)
    if not as_json:
        variant = f" ({ahead.variant})" if ahead.variant != "default" else ""
        console.print(
            f"{ahead.scenario}: {ahead.method}{variant}, {len(ahead.sites)} sites, seed {ahead.seed}, engine {ahead.engine} "
            f"-> {folder}",
            highlight=False,
        )
    print_warnings(ahead.warnings, console)


def predict(
    run_folder: Run,
    image: Annotated[Path, typer.Argument(help="A NIfTI image, 3-D or 4-D.")],
    site: Annotated[str, typer.Option(help="At which site: its vault encodes and decodes.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the mask goes (.nii or .nii.gz).")],
    as_json: AsJson = False,
) -> None:
    """Segment one image with a site's vault and the server's net; the mask lies on the image's own grid.

    Warns where the image is unlike the site's training images, and where the run's own test says that it does not segment.
    """
    from fedprivseg.study.predict import predict_image

    done = predict_image(run_folder, image, site, out)
    for warned in done.warnings:
        typer.echo(f"warning: {warned.text}", err=True)
    if as_json:
        warnings = [vars(warned) for warned in done.warnings]
        typer.echo(json.dumps({"mask": str(done.mask), "shape": done.shape, "warnings": warnings}))
        return
    typer.echo(f"{out}: mask of {' x '.join(map(str, done.shape))} voxels")


def report(run_folder: Run) -> None:
    """Judge again which rules a finished run kept, and write its report.html again."""
    from fedprivseg.study import pipeline

    typer.echo(pipeline.report(run_folder))


def attack(
    run_folder: Run,
    attacks: Annotated[str, typer.Option(help="Names, comma-separated; default all.")] = "",
    budget: Annotated[str, typer.Option(help="small: the first site, minutes; full: every site, longer.")] = "small",
    sites: Annotated[str, typer.Option(help="Sites to attack, comma-separated; default what the budget says.")] = "",
    as_json: AsJson = False,
) -> None:
    """Attack what a finished run released, and write what leaks into attacks.json and the report."""
    from fedprivseg.study import pipeline

    if budget not in ("small", "full"):
        raise RequestError(f"--budget is {budget!r}; allowed are small and full")
    with bar("attacking", open_console(stderr=as_json)) as progress:

        def show(stage: str, done: int, total: int) -> None:
            progress(done, total, stage)

        found = pipeline.attack(run_folder, budget, _names(attacks), _names(sites), show)  # type: ignore[arg-type]
    if as_json:
        typer.echo(found.model_dump_json())
        return
    _print_leakage(run_folder, found)
    typer.echo(f"{found.seconds:.0f} s; report: {run_folder / 'report.html'}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _print_leakage(run_folder: Path, found: Leakage) -> None:
    """What each attack reached, and whether a policy admits that."""
    from fedprivseg.study.leakage.admission import admitted

    rows = [
        [one.site, one.what, one.stream, one.title, one.setting + ", staged" * one.staged, *(
         [f"{one.metrics[0].metric} {one.metrics[0].value:.2f}",
         f"{one.metrics[0].lower_baseline:.2f}", f"{one.leakage:.2f}", f"{one.rank1:.0%}", f"{one.chance:.0%}"]
         if found.shown(one) else ["failed its control", *["not known"] * 4])]
        for one in found.reconstructions
    ]  # fmt: skip
    print_table(
        "", ["site", "of", "from", "attack", "", "reaches", "baseline", "leakage", "patient found", "chance"], rows
    )
    rows = [
        [one.site, one.title, one.metric, f"{one.value:.2f}", _interval(one.low, one.high), f"{one.chance:.2f}",
         "-" if one.p is None else f"{one.p:.2g}", _two_digits(one.raw)]
        for one in found.inferences
    ]  # fmt: skip
    if rows:
        print_table("", ["site", "attack", "", "reaches", "95 %", "chance", "p", "on raw images"], rows)
    words = {None: "not measured", True: "passes", False: "fails"}
    rows = [
        [line.name, _two_digits(line.measured), f"{line.threshold:.2f}", line.whose, words[line.passed]]
        for line in admitted(run_folder, found)
    ]
    print_table("", ["admission", "measured", "at most", "set by", "verdict"], rows)
    for why in found.left_out:
        typer.echo(f"left out: {why}")


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def _two_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def withdraw(
    run_folder: Run,
    site: Site,
    subject: Annotated[str, typer.Argument(help="The subject's code, as in the site's register of consent.")],
    as_json: AsJson = False,
) -> None:
    """Withdraw a subject's consent: delete what was derived from its data, at the site and at the server. The same
    `fedprivseg run` as before then trains without the subject."""
    from fedprivseg.governance.lifecycle.withdrawal import withdraw as carry_out

    done = carry_out(run_folder, site, subject)
    if as_json:
        typer.echo(done.model_dump_json())
        return
    open_console().print(
        f"{site}: subject {done.pseudonym} withdrawn from {done.day} on (line {done.line} of the site's ledger)\n"
        f"deleted: {len(done.at_sites)} files at sites, {len(done.shards)} shards and {len(done.models)} models at the server\n"
        "run the scenario again into this folder to train without the subject",
        highlight=False,
    )
