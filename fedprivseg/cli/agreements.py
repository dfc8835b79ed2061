"""``fedprivseg agreement``: the data-use agreements of a run, before it begins."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import typer

from fedprivseg.cli.options import AsJson, RunOut, ScenarioFile, Set
from fedprivseg.cli.terminal import print_table
from fedprivseg.core.errors import RequestError

app = typer.Typer(
    help="Data-use agreements: draft one for each site, sign as each party, show them.", no_args_is_help=True
)

Place = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or one agreement.json.")]
Sites = Annotated[list[str] | None, typer.Argument(metavar="[SITE]...", help="Of which sites; default all.")]


@app.command()
def new(
    scenario: ScenarioFile,
    settings: Set = None,
    out: RunOut = None,
    start: Annotated[
        str | None, typer.Option(help="First day, such as 2026-12-01; default the day of the study.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="Last day; default a year later.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draft an agreement between each site and the server, in the folder of the run that it is for."""
    from fedprivseg.study.scenarios import load_scenario

    asked = load_scenario(scenario, settings or [])

    from fedprivseg.study.agreement_drafts import draft  # loads more than a wrong request should wait for

    folder = out or asked.folder
    files = draft(folder, asked, _day(start, "--start"), _day(end, "--end"))
    if as_json:
        typer.echo(json.dumps([str(file) for file in files]))
        return
    for file in files:
        typer.echo(f"drafted, not signed: {file}")
    typer.echo(f"next: fedprivseg agreement sign {folder} --as site, and --as server")


@app.command()
def sign(
    place: Place,
    party: Annotated[Literal["site", "server"], typer.Option("--as", help="As whom: site or server.")],
    sites: Sites = None,
    key: Annotated[Path | None, typer.Option(help="The party's key file; default that of the run's folder.")] = None,
) -> None:
    """Sign as one of the parties, with its key. Both must sign before anything leaves."""
    from fedprivseg.study.agreement_drafts import found
    from fedprivseg.study.agreement_drafts import sign as carry_out

    for file, agreement in found(place, sites or []).items():
        signed = carry_out(file, agreement, party, key)
        waits = ", ".join(signed.lacks())
        typer.echo(
            f"{signed.terms.site}: signed as {party}" + (f"; waits for: {waits}" if waits else "; both have signed")
        )


@app.command()
def show(place: Place, sites: Sites = None, as_json: AsJson = False) -> None:
    """The parties, what may leave, the term, and whether the signatures are valid."""
    from fedprivseg.study.agreement_drafts import found, signatures

    agreements = found(place, sites or []).values()
    if as_json:
        entries = [{**one.terms.model_dump(mode="json"), "signatures": signatures(one)} for one in agreements]
        typer.echo(json.dumps(entries))
        return
    print_table(
        "",
        ["site", "server", "may leave", "purposes", "from", "to", "site's signature", "server's"],
        [
            [
                f"{one.terms.site} ({one.terms.site_key[:8]})",
                f"{one.terms.server} ({one.terms.server_key[:8]})",
                ", ".join(one.terms.kinds),
                ", ".join(one.terms.purposes),
                str(one.terms.start),
                str(one.terms.end),
                *signatures(one).values(),
            ]
            for one in agreements
        ],
    )


def _day(text: str | None, option: str) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise RequestError(f"{option} wants a day such as 2026-12-01; given {text!r}") from None
