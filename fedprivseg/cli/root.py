"""``fedprivseg``: every command in its place. `process` says how a command ends.

Heavy modules are imported inside the commands, so that `fedprivseg --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

import fedprivseg
from fedprivseg.cli import (
    access,
    agreements,
    archives,
    clock,
    comparisons,
    data,
    deidentify,
    deploy,
    destroy,
    ledgers,
    lifecycle,
    listings,
    new,
    policy,
    studies,
    trace,
    vaults,
    watch,
)

app = typer.Typer(
    help="Simulate, compare and audit how hospitals segment images together without sharing them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_RULES = "Data governance at a site"

_COMMANDS: tuple[Callable[..., None], ...] = (
    studies.run,
    studies.predict,
    studies.report,
    studies.attack,
    clock.clock,
    watch.watch,
    comparisons.compare,
    comparisons.benchmark,
    new.methods,
    new.attacks,
    new.protections,
    new.new,
    listings.sites,
    listings.init,
)
_GOVERNANCE: tuple[Callable[..., None], ...] = (
    studies.withdraw,
    lifecycle.retention,
    lifecycle.drill,
    trace.trace,
    deidentify.deidentify,
)
for command in _COMMANDS:
    app.command()(command)
for command in _GOVERNANCE:
    app.command(rich_help_panel=_RULES)(command)
app.add_typer(data.app, name="data")
app.add_typer(deploy.app, name="deploy")
for name, group in {
    "ledger": ledgers.app,
    "policy": policy.app,
    "agreement": agreements.app,
    "access": access.app,
    "vault": vaults.app,
    "archive": archives.app,
    "destroy": destroy.app,
}.items():
    app.add_typer(group, name=name, rich_help_panel=_RULES)


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
