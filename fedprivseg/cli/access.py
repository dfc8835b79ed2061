"""``fedprivseg access``: requests for access at one site and their review (T/SCGS 313008-2024 clauses 5.6.2-a to 5.6.2-c)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedprivseg.cli import access_decisions
from fedprivseg.cli.options import AsJson, Reason, Run, Site, Who
from fedprivseg.cli.terminal import print_table
from fedprivseg.cli.writers import writer
from fedprivseg.core.errors import FolderError, RequestError

if TYPE_CHECKING:
    from fedprivseg.core.runfolder import SiteFolder
    from fedprivseg.governance.access.requests import Event, Requests
    from fedprivseg.governance.access.roles import Staff

app = typer.Typer(help="Access to a site's data: requests and their review, who may have what.", no_args_is_help=True)
app.add_typer(access_decisions.app)


@app.command()
@writer
def request(
    run_folder: Run, site: Site, application: Annotated[Path, typer.Argument(help="A TOML file.")], who: Who
) -> None:
    """Ask for access. The file states title, scenario, logic, effect, days, members and a table range: sources, level,
    granularities, uses."""
    from fedprivseg.governance.access.application import Application

    stated = _stated(Application, application)
    _done(_requests(run_folder, site).submit(_member(run_folder, site, who), stated, _now()))


@app.command()
@writer
def review(
    run_folder: Run,
    site: Site,
    number: Annotated[str, typer.Argument(metavar="REQUEST", help="Such as request-1.")],
    who: Who,
    reasons: Reason,
    approve: Annotated[
        Path | None, typer.Option(help="Approve as this TOML file says: days, limits, table range.")
    ] = None,
) -> None:
    """Approve a request within what it asks for, or, without --approve, reject it. By a data manager, never one's own."""
    from fedprivseg.governance.access.application import Approval

    reviewer = _member(run_folder, site, who)
    if approve is None:
        _done(_requests(run_folder, site).reject(number, reviewer, reasons, _now()))
        return
    _done(_requests(run_folder, site).approve(number, reviewer, _stated(Approval, approve), reasons, _now()))


@app.command()
@writer
def revoke(
    run_folder: Run, site: Site, number: Annotated[str, typer.Argument(metavar="REQUEST")], who: Who, reasons: Reason
) -> None:
    """End an approval before its term."""
    _done(_requests(run_folder, site).revoke(number, _member(run_folder, site, who), reasons, _now()))


@app.command("list")
def list_(run_folder: Run, site: Site, as_json: AsJson = False) -> None:
    """All requests of a site, and where they stand today."""
    now = _now()
    cases = _requests(run_folder, site).cases().values()
    if as_json:
        content = [
            {
                "id": case.id,
                "applicant": case.applicant,
                "title": case.application.title,
                "state": case.state(now),
                "until": None if case.until is None else case.until.isoformat(),
            }
            for case in cases
        ]
        typer.echo(json.dumps(content))
        return
    rows = []
    for case in cases:
        until = "" if case.until is None else f"{case.until:%Y-%m-%d}"
        rows.append([case.id, case.applicant, case.application.title, case.state(now), until])
    print_table("", ["request", "by", "for", "state", "until"], rows)


def _now() -> datetime:
    return datetime.now(UTC)


def _requests(run_folder: Path, site: str) -> Requests:
    from fedprivseg.governance.access.requests import Requests

    return Requests(_home(run_folder, site).path)


def _member(run_folder: Path, site: str, name: str) -> Staff:
    """The member of staff with that id. Raises RequestError that lists the ids."""
    from fedprivseg.governance.access.staff import read_staff

    known = read_staff(_home(run_folder, site).staff)
    if name not in known:
        raise RequestError(f"staff.toml names nobody with the id {name!r}; it names: {', '.join(sorted(known))}")
    return known[name]


def _home(run_folder: Path, site: str) -> SiteFolder:
    """The site's folder. Raises FolderError if nobody is known to work there."""
    from fedprivseg.core.runfolder import RunFolder

    home = RunFolder(run_folder).site(site)
    if not home.staff.exists():
        raise FolderError(f"{home.path} is no site's folder: it holds no staff.toml; give RUN and SITE")
    return home


def _stated(kind: type[Any], path: Path) -> Any:
    """The application or approval in a TOML file. Raises RequestError that names every field that cannot be taken."""
    from pydantic import ValidationError

    from fedprivseg.core.config import read_toml

    try:
        return kind.model_validate_json(json.dumps(read_toml(path), default=str))
    except ValidationError as fault:
        places = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}" for each in fault.errors())
        raise RequestError(f"{path.name}: {places}") from None


def _done(event: Event) -> None:
    typer.echo(f"{event.request}: {event.what} by {event.who}")
