"""``fedprivseg access``: requests for access at one site and their review (T/SCGS 313008-2024 clauses 5.6.2-a to 5.6.2-c)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedprivseg.cli import access_decisions
from fedprivseg.cli.terminal import print_table
from fedprivseg.cli.writers import writer
from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.core.runfolder import SiteFolder

if TYPE_CHECKING:
    from fedprivseg.governance.access.requests import Event, Requests
    from fedprivseg.governance.access.roles import Staff

app = typer.Typer(help="Access to a site's data: requests and their review, who may have what.", no_args_is_help=True)
app.add_typer(access_decisions.app)

Home = Annotated[Path, typer.Argument(metavar="SITE", help="A site's own folder; it holds a staff.toml.")]
Who = Annotated[str, typer.Option("--as", metavar="ID", help="Who does this, by the id in staff.toml.")]
Reasons = Annotated[str, typer.Option(help="Why, in a sentence.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
@writer
def request(home: Home, application: Annotated[Path, typer.Argument(help="A TOML file.")], who: Who) -> None:
    """Ask for access. The file states title, scenario, logic, effect, days, members and a table range: sources, level,
    granularities, uses."""
    from fedprivseg.governance.access.application import Application

    stated = _stated(Application, application)
    _done(_requests(home).submit(_member(home, who), stated, _now()))


@app.command()
@writer
def review(
    home: Home,
    number: Annotated[str, typer.Argument(metavar="REQUEST", help="Such as request-1.")],
    who: Who,
    reasons: Reasons,
    approve: Annotated[
        Path | None, typer.Option(help="Approve as this TOML file says: days, limits, table range.")
    ] = None,
) -> None:
    """Approve a request within what it asks for, or, without --approve, reject it. By a data manager, never one's own."""
    from fedprivseg.governance.access.application import Approval

    reviewer = _member(home, who)
    if approve is None:
        _done(_requests(home).reject(number, reviewer, reasons, _now()))
        return
    _done(_requests(home).approve(number, reviewer, _stated(Approval, approve), reasons, _now()))


@app.command()
@writer
def revoke(home: Home, number: Annotated[str, typer.Argument(metavar="REQUEST")], who: Who, reasons: Reasons) -> None:
    """End an approval before its term."""
    _done(_requests(home).revoke(number, _member(home, who), reasons, _now()))


@app.command("list")
def list_(home: Home, as_json: AsJson = False) -> None:
    """All requests of a site, and where they stand today."""
    now = _now()
    cases = _requests(home).cases().values()
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


def _requests(home: Path) -> Requests:
    from fedprivseg.governance.access.requests import Requests

    staff = SiteFolder(home).staff
    if not staff.exists():
        raise FolderError(f"{home} is no site's folder: it holds no {staff.name}; in a run it is RUN/sites/SITE")
    return Requests(home)


def _member(home: Path, name: str) -> Staff:
    """The member of staff with that id. Raises RequestError that lists the ids."""
    from fedprivseg.governance.access.staff import read_staff

    staff = SiteFolder(home).staff
    known = read_staff(staff)
    if name not in known:
        raise RequestError(f"{staff.name} names nobody with the id {name!r}; it names: {', '.join(sorted(known))}")
    return known[name]


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
