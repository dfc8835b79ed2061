"""``fedprivseg archive``: archives of one site (T/SCGS 313008-2024 clauses 5.7-a to 5.7-d)."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Annotated

import typer

from fedprivseg.cli.options import AsJson, HospitalOut, Run, Site, Who
from fedprivseg.cli.terminal import print_table
from fedprivseg.cli.vaults import passphrase_of
from fedprivseg.cli.writers import writer

app = typer.Typer(help="A site's archives: compressed, encrypted, for a stated term.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The archive's name: a-z, 0-9 and '-'.")]


@app.command()
@writer
def create(
    run_folder: Run,
    site: Site,
    name: Name,
    keep_until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The day its term ends; default the longest of the site's policy."),
    ] = None,
    who: Who = "",
) -> None:
    """Archive what a study made at a site: its vault, predictions and notes. The originals stay."""
    from fedprivseg.governance.lifecycle.archive import create as make

    until: date | None = None if keep_until is None else keep_until.date()
    passphrase = passphrase_of(run_folder, site)
    made = make(run_folder, site, name, keep_until=until, who=who, passphrase=passphrase)
    typer.echo(
        f"{site}: archive {name} of {len(made.members)} files, {made.data_class.value}, level {made.level}, verified; kept "
        f"until {made.keep_until}"
    )


@app.command("list")
@writer
def list_(run_folder: Run, site: Site, who: Who = "", as_json: AsJson = False) -> None:
    """The archives of a site, and whose term has ended. Exit status 1 if one does not open."""
    from fedprivseg.governance.lifecycle.archive import listed

    found = listed(run_folder, site, who=who, passphrase=passphrase_of(run_folder, site))
    rows = []
    for each in found:
        if each.manifest is None:
            rows.append([each.name, "", "", "", "", f"does not open: {each.fault}"])
            continue
        said = each.manifest
        state = "term ended" if each.due else "kept"
        rows.append(
            [each.name, said.data_class.value, str(said.level), str(len(said.members)), str(said.keep_until), state]
        )
    columns = ["archive", "class", "level", "files", "until", "state"]
    if as_json:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows]))
    else:
        print_table("", columns, rows)
    if any(each.fault for each in found):
        raise typer.Exit(1)


@app.command()
@writer
def restore(
    run_folder: Run,
    site: Site,
    name: Name,
    out: HospitalOut,
    who: Who = "",
) -> None:
    """Verify an archive and open its files into a folder of the hospital's. They are readable there."""
    from fedprivseg.governance.lifecycle.archive import take_out

    made = take_out(run_folder, site, name, out, who=who, passphrase=passphrase_of(run_folder, site))
    typer.echo(f"{out}: {len(made.members)} files of archive {name}, verified and readable; for the hospital alone")
