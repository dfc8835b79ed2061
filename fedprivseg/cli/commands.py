"""The commands of a run; `process` says how they end.

Heavy modules are imported inside the commands, so that `fedprivseg --help` answers at once.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import fedprivseg
from fedprivseg.cli import access, agreements, archives, deidentify, destroy, ledgers, lifecycle, policy, trace, vaults
from fedprivseg.cli import data as data_commands
from fedprivseg.cli.terminal import (
    bar,
    open_console,
    print_missing,
    print_preflight,
    print_result,
    print_table,
    print_warnings,
)
from fedprivseg.core.errors import FolderError, QuorumError, RequestError
from fedprivseg.core.files import deliver
from fedprivseg.core.lock import check_free

if TYPE_CHECKING:
    from rich.console import Console

    from fedprivseg.core.config import Scenario
    from fedprivseg.core.toml_text import Setting

app = typer.Typer(
    help="Simulate, compare and audit how hospitals segment images together without sharing them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = data_commands.app
_RULES = "Data governance at a site"

app.add_typer(data_app, name="data")
app.add_typer(ledgers.app, name="ledger", rich_help_panel=_RULES)
app.add_typer(policy.app, name="policy", rich_help_panel=_RULES)
app.add_typer(agreements.app, name="agreement", rich_help_panel=_RULES)
app.add_typer(access.app, name="access", rich_help_panel=_RULES)
app.add_typer(vaults.app, name="vault", rich_help_panel=_RULES)
app.add_typer(archives.app, name="archive", rich_help_panel=_RULES)
app.add_typer(destroy.app, name="destroy", rich_help_panel=_RULES)
app.command(rich_help_panel=_RULES)(lifecycle.retention)
app.command(rich_help_panel=_RULES)(lifecycle.drill)
app.command(rich_help_panel=_RULES)(trace.trace)
app.command(rich_help_panel=_RULES)(deidentify.deidentify)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedprivseg {fedprivseg.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    scenario: Annotated[Path, typer.Argument(help="A scenario file, such as simulations/quickstart.toml.")],
    data: Annotated[str | None, typer.Option(help="Folder of images, or a phantom such as 'phantom'.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Run folder; default runs/<name>-<method>-<variant>-<seed>.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="ray or inline.")] = None,
    seed: Annotated[int | None, typer.Option(help="Root seed of every random draw.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one scenario value; may be repeated.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what lies ahead (subjects, room, time, policy), and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a scenario to a finished result and report. The same command goes on with an interrupted run."""
    from fedprivseg.runtime.engines import begun
    from fedprivseg.study.scenarios import load_scenario

    chosen: list[Setting] = [*(settings or [])]
    options = {"data.source": data, "engine": engine, "seed": seed}
    chosen += [(key, value) for key, value in options.items() if value is not None]
    asked = load_scenario(scenario, chosen)
    folder = out or asked.folder
    check_free(folder)
    finished = (folder / "result.json").exists()  # then nothing need be written: it may lie on a read-only disk
    console = open_console(stderr=as_json)
    if dry_run or not (folder / "result.json").exists():
        _look_ahead(asked, folder, console, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    with begun(asked, folder) as carry_out:
        from fedprivseg.cli.display import Display
        from fedprivseg.study.run import release_folder, simulate

        if not finished:
            with bar("drawing the phantom", console) as progress:
                release_folder(asked, progress)
        display = Display(folder, [site.name for site in asked.sites], console)
        try:
            result = simulate(asked, folder, display=display, carry_out=carry_out)
        except QuorumError as fault:
            from fedprivseg.governance.compliance import COMPLIANCE, write_compliance

            write_compliance(folder)
            ended = str(fault).rstrip(".")
            raise QuorumError(f"{ended}. Which rules were kept until then: {folder / COMPLIANCE}") from None
        report = folder / "report.html"
        if not (finished and report.exists()):
            from fedprivseg.study.report.report_page import write_report  # while the engine takes its leave

            write_report(folder)
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
    if not dry_run:
        require_cache()
        refuse(ahead)
    if dry_run and as_json:
        typer.echo(ahead.model_dump_json())
    elif dry_run:
        print_preflight(ahead, console)
    elif not as_json:
        variant = f" ({ahead.variant})" if ahead.variant != "default" else ""
        console.print(
            f"{ahead.scenario}: {ahead.method}{variant}, {len(ahead.sites)} sites, seed {ahead.seed}, engine {ahead.engine} "
            f"-> {folder}",
            highlight=False,
            markup=False,
        )
    if dry_run:
        refuse(ahead)
    else:
        print_warnings(ahead.warnings, console)


@app.command()
def predict(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
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


@app.command(rich_help_panel=_RULES)
def withdraw(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    site: Annotated[str, typer.Argument(help="The subject's site.")],
    subject: Annotated[str, typer.Argument(help="The subject's code, as in the site's register of consent.")],
    as_json: AsJson = False,
) -> None:
    """Withdraw a subject's consent: delete what was made of its data, at the site and at the server. The same `fedprivseg
    run` as before then trains without."""
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


@app.command()
def report(run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]) -> None:
    """Write report.html of a finished run again."""
    from fedprivseg.study.report.report_page import write_report

    typer.echo(write_report(run_folder))


@app.command()
def attack(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    attacks: Annotated[str, typer.Option(help="Names, comma-separated; default all.")] = "",
    budget: Annotated[str, typer.Option(help="small: the first site, minutes; full: every site, longer.")] = "small",
    sites: Annotated[str, typer.Option(help="Sites to attack, comma-separated; default what the budget says.")] = "",
    as_json: AsJson = False,
) -> None:
    """Attack what a finished run released, and write what leaks into attacks.json and the report."""
    from fedprivseg.study.leakage import attack_run
    from fedprivseg.study.leakage.admission import admitted as admitted_lines
    from fedprivseg.study.report.report_page import write_report

    if budget not in ("small", "full"):
        raise RequestError(f"--budget is {budget!r}; allowed are small and full")
    with bar("attacking", open_console(stderr=as_json)) as progress:

        def show(stage: str, done: int, total: int) -> None:
            progress(done, total, stage)

        found = attack_run(run_folder, budget, _names(attacks), _names(sites), show)  # type: ignore[arg-type]
    report = write_report(run_folder)
    if as_json:
        typer.echo(found.model_dump_json())
        return
    rows = [
        [one.site, one.what, one.title, one.setting + ", staged" * one.staged,
         f"{one.measures[0].measure} {one.measures[0].value:.2f}",
         f"{one.measures[0].floor:.2f}", f"{one.leakage:.2f}", f"{one.recognised:.0%}", f"{one.chance:.0%}"]
        for one in found.redrawn
    ]  # fmt: skip
    print_table("", ["site", "of", "attack", "", "reaches", "floor", "leakage", "patient found", "chance"], rows)
    told = [
        [
            one.site,
            one.title,
            one.measure,
            f"{one.value:.2f}",
            f"{one.chance:.2f}",
            "-" if one.raw is None else f"{one.raw:.2f}",
        ]
        for one in found.inferred
    ]
    if told:
        print_table("", ["site", "attack", "", "reaches", "chance", "on raw images"], told)
    words = {None: "not measured", True: "passes", False: "fails"}
    admitted = [
        [
            line.name,
            "-" if line.measured is None else f"{line.measured:.2f}",
            f"{line.threshold:.2f}",
            line.whose,
            words[line.passed],
        ]
        for line in admitted_lines(run_folder, found)
    ]
    print_table("", ["admission", "measured", "at most", "set by", "verdict"], admitted)
    for why in found.left_out:
        typer.echo(f"left out: {why}")
    typer.echo(f"{found.seconds:.0f} s; report: {report}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


@app.command()
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
    from fedprivseg.study.compare.compare_charts import picture as draw
    from fedprivseg.study.compare.compare_charts import privacy_picture
    from fedprivseg.study.compare.compare_page import write_page
    from fedprivseg.study.compare.compare_tables import as_csv, as_latex, as_markdown, as_rows
    from fedprivseg.study.compare.runs import compare as put_side_by_side

    comparison = put_side_by_side(runs, reference)
    written = [write_page(comparison, out)]
    written += [deliver(csv, as_csv(comparison))] if csv else []
    written += [deliver(latex, as_latex(comparison))] if latex else []
    written += [deliver(markdown, as_markdown(comparison))] if markdown else []
    written += [deliver(privacy, privacy_picture(comparison))] if privacy else []
    written += [deliver(picture, draw(comparison))] if picture else []
    header, rows = as_rows(comparison)
    if as_json:
        table = [dict(zip(header, row, strict=True)) for row in rows]
        typer.echo(json.dumps({"rows": table, "reference": comparison.reference, "written": [str(p) for p in written]}))
        return
    print_table("", header, rows)
    typer.echo(f"written: {', '.join(map(str, written))}")


@app.command()
def benchmark(
    folder: Annotated[Path, typer.Argument(help="A folder of scenarios, one method each.")],
    data: Annotated[str | None, typer.Option(help="Folder of images, or a phantom such as 'phantom'.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where the runs go; default runs/<folder>.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "0,1,2",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of every scenario.")
    ] = None,
) -> None:
    """Run every scenario of a folder with every seed, then compare them. Finished runs are not repeated."""
    from fedprivseg.cli.display import Display
    from fedprivseg.study.benchmark import run_all
    from fedprivseg.study.compare.compare_charts import picture
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

    folders = run_all(folder, target, _numbers_of(seeds), chosen, show, warn)
    comparison = put_side_by_side(folders)
    write_page(comparison, target / "compare.html")
    deliver(target / "compare.csv", as_csv(comparison))
    deliver(target / "compare.png", picture(comparison))
    header, rows = as_rows(comparison)
    print_table("", header, rows)
    typer.echo(f"written: {target / 'compare.html'}, compare.csv, compare.png")


def _numbers_of(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"--seeds wants whole numbers with commas, such as 0,1,2; given {text!r}") from None


@app.command()
def methods(as_json: AsJson = False) -> None:
    """List the methods with their variants and what leaves a site."""
    from fedprivseg.methods import METHODS

    rows = [
        {
            "name": method.name,
            "title": method.title,
            "variants": list(method.variants),
            "exports": sorted(method.exports),
            "paper": method.paper,
        }
        for method in METHODS
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    print_table(
        "methods",
        ["name", "variants", "leaves the site", "paper"],
        [[m.name, ", ".join(m.variants), ", ".join(sorted(m.exports)), m.paper] for m in METHODS],
    )


@app.command()
def sites(
    folder: Annotated[Path, typer.Argument(help="Folder of sites.")] = Path("sites"), as_json: AsJson = False
) -> None:
    """List the sites of a folder."""
    from fedprivseg.core.config import read_site, site_names

    names = site_names(folder)
    if not names:
        raise FolderError(
            f"{folder} holds no site (no */site.toml); run `fedprivseg init DIR` for the five M&Ms centres"
        )
    found = [read_site(folder, name) for name in names]
    if as_json:
        typer.echo(json.dumps([site.model_dump() for site in found]))
        return
    print_table(
        "sites", ["name", "centre", "vendor", "title"], [[s.name, str(s.place), s.vendor, s.title] for s in found]
    )


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Where sites/ and simulations/ go.")]) -> None:
    """Copy the starter sites/ and simulations/ into a folder of your own."""
    from fedprivseg.cli.starter import copy_starter

    for path in copy_starter(folder):
        typer.echo(path)
    typer.echo(f"next: fedprivseg run {shlex.quote(str(folder / 'simulations' / 'quickstart.toml'))}")
