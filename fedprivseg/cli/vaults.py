"""``fedprivseg vault``: the key, check, backup and recovery of one site's vault (T/SCGS 313008-2024 clauses 5.4.1, 5.4.2)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedprivseg.cli.options import AsJson, HospitalOut, Run, Site, Who
from fedprivseg.cli.terminal import print_table
from fedprivseg.cli.writers import writer
from fedprivseg.core.errors import RequestError

app = typer.Typer(help="A site's vault: its key, backup and recovery, and whether it opens.", no_args_is_help=True)


@app.command()
@writer
def key(
    run_folder: Run,
    site: Site,
    passphrase: Annotated[
        bool,
        typer.Option(
            "--passphrase",
            help="Encrypt the key under a passphrase: FEDPRIVSEG_PASSPHRASE, or asked for on the terminal.",
        ),
    ] = False,
) -> None:
    """Make a sealing key for a site that has none. Keep a copy of it, elsewhere: no backup holds it."""
    from fedprivseg.core.runfolder import RunFolder
    from fedprivseg.governance.lifecycle.at_rest import make_key

    RunFolder(run_folder).site_named(site)  # before anybody is asked for a passphrase
    made = make_key(run_folder, site, new_passphrase() if passphrase else None)
    typer.echo(f"{site}: sealing.key made, id {made.id}; keep a copy elsewhere, without it nothing encrypted opens")


@app.command()
@writer
def backup(
    run_folder: Run, site: Site, out: Annotated[Path, typer.Option("-o", "--out", help="The backup, a new file.")]
) -> None:
    """Write an encrypted backup of a site's folder, without the key of its vault, and read it again. Nobody may work at the
    site meanwhile."""
    from fedprivseg.governance.lifecycle.backup import back_up

    made = back_up(run_folder, site, out, passphrase_of(run_folder, site))
    typer.echo(
        f"{out}: {len(made.members)} files of {site}, {out.stat().st_size} bytes, verified; sealing.key is not in it"
    )


@app.command()
@writer
def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    run_folder: Run,
    site: Site,
    key_file: Annotated[Path, typer.Option("--key", help="The site's sealing.key, from where you keep it.")],
) -> None:
    """Verify a backup and bring a site's folder back from it, with its key. Restores over nothing, and no backup that is older
    than a withdrawal of consent."""
    from fedprivseg.core.runfolder import RunFolder
    from fedprivseg.governance.lifecycle.backup import recover

    RunFolder(run_folder).site_named(site)
    made = recover(source, run_folder, site, key_file, _passphrase_for(key_file))
    typer.echo(f"{site}: {len(made.members)} files restored as they were on {made.made:%Y-%m-%d %H:%M} UTC")


@app.command()
@writer
def check(run_folder: Run, site: Site, as_json: AsJson = False) -> None:
    """Decrypt every file of a site to its last byte; name what does not open or lies in plaintext. Exit status 1 if any."""
    from fedprivseg.governance.lifecycle.at_rest import check as check_site

    found = check_site(run_folder, site, passphrase_of(run_folder, site))
    bad = [each for each in found if each.fault]
    if as_json:
        typer.echo(json.dumps({"site": site, "files": len(found), "faults": [vars(each) for each in bad]}))
    else:
        if bad:
            print_table("", ["file", "fault"], [[each.name, each.fault] for each in bad])
        typer.echo(f"{site}: {len(found) - len(bad)} of {len(found)} files are encrypted and open")
    if bad:
        raise typer.Exit(1)


@app.command()
@writer
def export(
    run_folder: Run,
    site: Site,
    out: HospitalOut,
    who: Who = "",
) -> None:
    """Decrypt the predictions of a site into a folder of the hospital's, as NIfTI named by patient."""
    from fedprivseg.governance.lifecycle.at_rest import export as export_predictions

    count = export_predictions(run_folder, site, out, passphrase_of(run_folder, site), who=who)
    typer.echo(f"{out}: {count} predictions of {site}, readable and named by patient; for the hospital alone")


@app.command()
@writer
def show(
    run_folder: Run,
    site: Site,
    note: Annotated[str, typer.Argument(help="intake.json, cohort.json or errors.log.")],
    who: Who = "",
) -> None:
    """Print a note of a site's program, opened: who was enrolled, who takes part, its errors. For the hospital alone."""
    from fedprivseg.governance.lifecycle.at_rest import show as opened

    typer.echo(opened(run_folder, site, note, passphrase_of(run_folder, site), who=who).decode("utf-8"))


def passphrase_of(run_folder: Path, site: str) -> str | None:
    """The passphrase of a site's sealing key, if it is under one. Raises FolderError, RequestError for the wrong run or site,
    or if there is nobody to ask."""
    from fedprivseg.core.runfolder import RunFolder

    return _passphrase_for(RunFolder(run_folder).site_named(site).sealing_key)


def new_passphrase() -> str:
    """A passphrase for a new key, asked for twice. Raises RequestError if there is nobody to ask."""
    given = _asked("a passphrase for the key", again=True)
    assert given is not None
    return given


def _passphrase_for(key_file: Path) -> str | None:
    from fedprivseg.crypto.sealed_files import wants_passphrase

    return _asked("the passphrase of the key") if key_file.exists() and wants_passphrase(key_file) else None


def _asked(what: str, *, again: bool = False) -> str:
    """From the environment, or else from the terminal: never from the command line, which others can read."""
    from fedprivseg.governance.sitefolder.vault import PASSPHRASE

    if (given := os.environ.get(PASSPHRASE)) is not None:
        return given
    if not sys.stdin.isatty():
        raise RequestError(f"{what} is needed; give it in the environment variable {PASSPHRASE}, or on a terminal")
    return str(typer.prompt(what, hide_input=True, confirmation_prompt=again, err=True))
