"""The commands that list methods and sites, and copy the starter folders."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from fedprivseg.cli.options import AsJson
from fedprivseg.cli.terminal import print_table
from fedprivseg.core.errors import FolderError


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
        "sites", ["name", "centre", "vendor", "title"], [[s.name, str(s.centre), s.vendor, s.title] for s in found]
    )


def init(folder: Annotated[Path, typer.Argument(help="Where sites/ and simulations/ go.")]) -> None:
    """Copy the starter sites/ and simulations/ into a folder of your own."""
    from fedprivseg.cli.starter import copy_starter

    for path in copy_starter(folder):
        typer.echo(path)
    typer.echo(f"next: fedprivseg run {shlex.quote(str(folder / 'simulations' / 'quickstart.toml'))}")
