"""``fedprivseg destroy``: the destruction of what a site of a run holds, by at least two people, and its proof (5.8)."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from fedprivseg.cli.options import AsJson, Reason, Run, Site, Who
from fedprivseg.cli.terminal import print_table
from fedprivseg.cli.writers import writer
from fedprivseg.core.errors import RequestError

if TYPE_CHECKING:
    from fedprivseg.governance.lifecycle.destruction.order import Order

app = typer.Typer(
    help="Destroy what a site of a run holds of its subjects: order, approve, execute, verify.", no_args_is_help=True
)


@app.command()
@writer
def order(
    run_folder: Run,
    site: Site,
    who: Who,
    reason: Reason,
    media: Annotated[
        str, typer.Option(help="Who destroys the medium, and when; for what was never encrypted, and for level 5.")
    ] = "",
    models: Annotated[bool, typer.Option("--models", help="Also delete the server's models.")] = False,
    as_json: AsJson = False,
) -> None:
    """Order the destruction of the site's vault, predictions and cached images, and of its shards at the server. By a data
    manager; nothing is destroyed yet. A new order takes the place of one that was not begun."""
    from fedprivseg.governance.lifecycle.destruction import approval
    from fedprivseg.governance.lifecycle.destruction.destruction_session import open_session

    given = approval.order(open_session(run_folder, site), who, reason, media=media, with_models=models)
    _say(given, as_json, "ordered")
    if not as_json:
        typer.echo(f"somebody else approves it: fedprivseg destroy approve {run_folder} {site} --as ID")


@app.command()
@writer
def approve(run_folder: Run, site: Site, who: Who, as_json: AsJson = False) -> None:
    """Approve the site's last order. By a data manager or a chief who did not give it."""
    from fedprivseg.governance.lifecycle.destruction import approval
    from fedprivseg.governance.lifecycle.destruction.destruction_session import open_session

    given = approval.approve(open_session(run_folder, site), who)
    _say(given, as_json, "approved")
    if not as_json:
        typer.echo(f"it is executed by: fedprivseg destroy execute {run_folder} {site}")


@app.command()
@writer
def execute(
    run_folder: Run,
    site: Site,
    yes: Annotated[
        bool, typer.Option("--yes", help="Destroy without asking; needed where nobody can be asked.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Execute the approved order, for good, and write the signed certificate. After an interruption the same command goes
    on."""
    from fedprivseg.governance.lifecycle.destruction import approval
    from fedprivseg.governance.lifecycle.destruction.destruction_session import open_session

    session = open_session(run_folder, site)
    given = approval.pending(session)
    if not yes:
        if not _somebody_there():
            raise RequestError("a destruction cannot be undone; say --yes where nobody can be asked")
        _say(given, False, "to be destroyed")
        if typer.prompt(f"This cannot be undone. Type the name of the site to destroy it ({site})") != site:
            raise RequestError("another name was typed, and nothing was destroyed")
    certificate = approval.execute(session)
    if as_json:
        typer.echo(certificate.to_json())
        return
    typer.echo(
        f"{certificate.id}: destroyed by {certificate.method}, certified by {site} on {certificate.ended:%Y-%m-%d}"
    )
    for sentence in (*certificate.checks, *(f"note: {limit}" for limit in certificate.limits)):
        typer.echo(sentence)
    for model in certificate.derived:
        typer.echo(f"derived from it, and stays: {model}")


@app.command()
def verify(run_folder: Run, site: Site, as_json: AsJson = False) -> None:
    """Verify every destruction at a site: certificate, approval, ledger, and that nothing can be read any more. Exit status 1
    if anything does not hold."""
    from fedprivseg.governance.lifecycle.destruction.proof import prove
    from fedprivseg.governance.sitefolder.audit import site_ledger

    public_hex, lines = site_ledger(run_folder, site)
    proofs = prove(run_folder, site, public_hex, lines)
    if as_json:
        content = [
            {
                "id": each.id,
                "holds": not each.faults,
                "faults": each.faults,
                "certificate": None if each.certificate is None else each.certificate.model_dump(mode="json"),
            }
            for each in proofs
        ]
        typer.echo(json.dumps(content))
    else:
        for each in proofs:
            typer.echo(f"{each.id}: {'holds' if not each.faults else 'DOES NOT HOLD'}")
            for fault in each.faults:
                typer.echo(f"  {fault}")
        if not proofs:
            typer.echo(f"{site}: nothing was destroyed")
    if any(each.faults for each in proofs):
        raise typer.Exit(1)


def _somebody_there() -> bool:
    return sys.stdin.isatty()


def _say(given: Order, as_json: bool, what: str) -> None:
    """What an order comes to, without the names of files, which may tell of subjects."""
    content = {
        "order": given.digest,
        "state": what,
        "class": given.data_class.value,
        "level": given.level,
        "method": given.method.value,
        "files": len(given.copies),
        "keys": len(given.keys),
        "at the server": len(given.shards),
        "models that stay": len(given.derived),
        "copies elsewhere": len(given.elsewhere),
        "requested by": given.requested_by,
        "approved by": given.approved_by,
    }
    if as_json:
        typer.echo(json.dumps({"id": given.id, **content}))
        return
    print_table("", ["of the order", given.id], [[name, str(value)] for name, value in content.items() if value != ""])
    for line in (*given.derived, *given.elsewhere):
        typer.echo(f"stays: {line}")
