"""``fedprivseg access ask|query|simulate``: who may have which part of a patient's data at a site of a run (T/SCGS 313008-2024
clauses 5.4.2-d, 5.6.2-c, annexes A.1 and A.2)."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedprivseg.cli.options import AsJson, Run, Site, Who
from fedprivseg.cli.terminal import print_table
from fedprivseg.cli.writers import writer
from fedprivseg.core.errors import FolderError, RequestError

if TYPE_CHECKING:
    from fedprivseg.core.runfolder import SiteFolder
    from fedprivseg.governance.access.endpoint import AccessEndpoint, Answer
    from fedprivseg.governance.access.roles import Context
    from fedprivseg.governance.access.simulation import Cell, Trial

app = typer.Typer()
"""Commands of the group ``access``."""

_MOST_MINUTES = 1440
STATUS = "Exit status: 0 allowed, 1 denied, 2 the request was wrong."

SignedIn = Annotated[
    float | None,
    typer.Option(
        metavar="MINUTES", help="How long ago the person proved who it is; without it nobody did, and all is denied."
    ),
]
Plain = Annotated[
    bool, typer.Option("--plain-channel", help="The channel neither encrypts nor shows changes; by default both.")
]
Confirmed = Annotated[
    bool, typer.Option("--confirm-notice", help="The notice on keeping data was shown and confirmed.")
]


class StaffAction(StrEnum):
    """What members of staff ask for."""

    VIEW = "view"
    SAVE = "save"
    COPY = "copy"
    PRINT = "print"
    DOWNLOAD = "download"
    RESEARCH = "research"
    TRAIN = "train"
    RELEASE = "release"


class PersonAction(StrEnum):
    """What patients, guardians and children ask for."""

    QUERY = "query"
    SAVE = "save"
    COPY = "copy"
    PRINT = "print"
    DOWNLOAD = "download"


class StaffPurpose(StrEnum):
    """What members of staff ask for it for."""

    TREATMENT = "treatment"
    RESEARCH = "research"


@app.command(epilog=STATUS)
@writer
def ask(
    run_folder: Run,
    site: Site,
    subject: Annotated[str, typer.Argument(help="The patient's code, as in the site's records.jsonl.")],
    item: Annotated[str, typer.Argument(help="What of it, such as imaging-report, inpatient-record or study-images.")],
    who: Who,
    purpose: Annotated[StaffPurpose, typer.Option(help="What it is for.")] = StaffPurpose.TREATMENT,
    do: Annotated[StaffAction, typer.Option(help="What is done with it.")] = StaffAction.VIEW,
    signed_in: SignedIn = None,
    project: Annotated[str, typer.Option(help="The approved request for research, training, release: request-1.")] = "",
    second_factor: Annotated[bool, typer.Option(help="A second factor was used; level 5 needs it.")] = False,
    controlled_place: Annotated[bool, typer.Option(help="At a workstation of the site; level 5 needs it.")] = False,
    plain_channel: Plain = False,
    confirm_notice: Confirmed = False,
    as_json: AsJson = False,
) -> None:
    """May this member of staff have this part of a patient's data? The decision is written into the site's ledger.

    In a simulation records have no content: the decision is what comes out. Not while a run works at the site."""
    from fedprivseg.governance.access.roles import Action, Purpose

    context = _context(
        Purpose(purpose),
        signed_in,
        encrypted=not plain_channel,
        integrity=not plain_channel,
        notified=confirm_notice,
        second_factor=second_factor,
        controlled_place=controlled_place,
        project=project,
    )
    answer = _endpoint(_site(run_folder, site)).staff(who, subject, item, Action(do), context)
    _say((answer,), as_json)


@app.command(epilog=STATUS + " A query of everything is allowed if anything is shown.")
@writer
def query(
    run_folder: Run,
    site: Site,
    who: Annotated[str, typer.Option("--as", metavar="ACCOUNT", help="Who asks, by the id in accounts.jsonl.")],
    of: Annotated[str, typer.Option(metavar="SUBJECT", help="Whose data, if the account is for several.")] = "",
    item: Annotated[str, typer.Option(help="What of it; by default everything that the site has.")] = "",
    do: Annotated[PersonAction, typer.Option(help="What is done with it.")] = PersonAction.QUERY,
    days: Annotated[int, typer.Option(min=0, help="How far back; beyond three months if the account may.")] = 92,
    signed_in: SignedIn = None,
    plain_channel: Plain = False,
    confirm_notice: Confirmed = False,
    as_json: AsJson = False,
) -> None:
    """What may this patient, guardian or child see of the patient's data? Every decision is written into the site's ledger.

    Whoever asks has a verified account; sensitive findings stay hidden, and what is older than three months. Not while a run
    works at the site."""
    from fedprivseg.governance.access.roles import Action, Purpose

    context = _context(
        Purpose.OWN_CARE,
        signed_in,
        encrypted=not plain_channel,
        integrity=not plain_channel,
        notified=confirm_notice,
        window_asked=days,
    )
    _say(_endpoint(_site(run_folder, site)).person(who, of, item, Action(do), context), as_json)


@app.command()
@writer
def simulate(
    run_folder: Run,
    site: Site,
    requests: Annotated[int, typer.Option(min=1, help="How many requests are drawn.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Of all draws; the same seed draws the same requests.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw thousands of requests for a site's records and say who would get what, by which clause, and how fast.

    Staff, patients, guardians and children are the site's, circumstances are drawn. One line goes into the site's ledger."""
    from fedprivseg.governance.access import simulation

    folder = _site(run_folder, site)
    _endpoint(folder)
    trial = simulation.simulate(folder.path, requests, seed, now=_now(), today=_today(folder))
    line = simulation.record(folder.path, trial)
    if as_json:
        typer.echo(json.dumps({**simulation.as_json(trial), "line": line.index}))
        return
    _print_trial(trial)
    typer.echo(
        f"{site}: {trial.requests} requests, {trial.allowed} allowed ({trial.allowed / trial.requests:.0%}), "
        f"{trial.requests - trial.allowed} denied under {trial.policies} policies; a decision took {trial.median_ms:.2f} ms "
        f"(median), {trial.p99_ms:.2f} ms (99th percentile); line {line.index} of the ledger"
    )


def _print_trial(trial: Trial) -> None:
    """Two tables: each role at each level, and each policy that decided. A refusal counts under every clause it has."""
    rows = []
    for (role, level), (allowed, denied) in trial.asked.items():
        mine = [cell for cell in trial.cells if (cell.role, cell.level) == (role, level)]
        under = [_ranked([cell for cell in mine if cell.allowed is word]) for word in (True, False)]
        rows.append([role, str(level), str(allowed), str(denied), f"{allowed / (allowed + denied):.0%}", *under])
    columns = ["role", "level", "allowed", "denied", "share allowed", "allowed under", "denied under (all that apply)"]
    print_table("who gets what", columns, rows)
    by_policy = [
        [each.clause, each.policy, "allows" if each.allowed else "denies", str(each.count), each.says]
        for each in trial.deciding
    ]
    typer.echo("")
    print_table("which policies decide", ["clause", "policy", "decision", "requests", "says"], by_policy)


def _ranked(cells: list[Cell]) -> str:
    """Such as ``A.1.1-b 12, 5.5 3``, the most frequent first."""
    return ", ".join(f"{cell.clause} {cell.count}" for cell in sorted(cells, key=lambda each: -each.count))


def _context(purpose: Any, signed_in: float | None, **attested: Any) -> Context:
    """The circumstances of a question that is put now. Raises RequestError for minutes that name no moment."""
    from fedprivseg.governance.access.roles import Context

    now = _now()
    if signed_in is not None and not 0 <= signed_in <= _MOST_MINUTES:
        raise RequestError(f"--signed-in is a number of minutes from 0 to {_MOST_MINUTES}; given {signed_in:g}")
    proved = None if signed_in is None else now - timedelta(minutes=signed_in)
    return Context(asked=now, authenticated=proved, purpose=purpose, **attested)


def _endpoint(folder: SiteFolder) -> AccessEndpoint:
    """Where records of the site are asked for. Raises RequestError if the site has none."""
    from fedprivseg.governance.access.endpoint import AccessEndpoint

    return AccessEndpoint(folder.path, today=_today(folder))


def _site(run_folder: Path, name: str) -> SiteFolder:
    """The folder of the site `name`. Raises FolderError for a folder that is no run, RequestError for an unknown site."""
    from fedprivseg.core.runfolder import RunFolder, SiteFolder

    known = {site.name: site for site in RunFolder(run_folder).sites if site.configuration.exists()}
    if not known:
        raise FolderError(f"{run_folder} holds no run (no sites/*/{SiteFolder(run_folder).configuration.name})")
    if name not in known:
        raise RequestError(f"unknown site {name!r}; the sites of this run are: {', '.join(known)}")
    return known[name]


def _today(folder: SiteFolder) -> date | None:
    """The day on which the simulated hospital lives; None for the clock's."""
    from fedprivseg.governance.sitefolder.configuration import SiteConfiguration

    return SiteConfiguration.read(folder.configuration).today


def _say(answers: tuple[Answer, ...], as_json: bool) -> None:
    """Print the decisions. Ends with status 1 if nothing was allowed."""
    if as_json:
        typer.echo(json.dumps([_as_json(answer) for answer in answers]))
    else:
        rows = []
        for each in answers:
            decision = each.ruling.decision
            word = "allowed" if decision.allowed else "denied"
            level = "-" if each.entry is None else str(each.entry.level)
            line = "-" if each.line is None else str(each.line)
            rows.append([each.item or "-", level, word, decision.rule, decision.clause, decision.reason, line])
        print_table("", ["item", "level", "decision", "policy", "clause", "says", "ledger line"], rows)
        for notice in dict.fromkeys(notice for each in answers for notice in each.ruling.notices):
            typer.echo(f"notice: {notice}")
    if not any(each.ruling.allowed for each in answers):
        raise typer.Exit(1)


def _as_json(answer: Answer) -> dict[str, Any]:
    decision = answer.ruling.decision
    return {
        "item": answer.item,
        "level": None if answer.entry is None else answer.entry.level,
        "granularity": None if answer.entry is None else answer.entry.granularity,
        "allowed": decision.allowed,
        "policy": decision.rule,
        "policies": [policy.id for policy in answer.ruling.policies],
        "clause": decision.clause,
        "reason": decision.reason,
        "notices": list(answer.ruling.notices),
        "line": answer.line,
    }


def _now() -> datetime:
    return datetime.now(UTC)
