"""``fedprivseg retention`` and ``fedprivseg drill``: what is due at a site, what a leak would mean (5.8-b, 5.3.2-a)."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedprivseg.cli.options import AsJson, Run, Site
from fedprivseg.cli.terminal import print_table
from fedprivseg.core.errors import RequestError

if TYPE_CHECKING:
    from fedprivseg.governance.lifecycle.breach_drill import Drill, What


def retention(
    run_folder: Run,
    site: Site,
    today: Annotated[str, typer.Option(metavar="DATE", help="The day to ask for; default the site's own.")] = "",
    as_json: AsJson = False,
) -> None:
    """What a site of a run holds of its subjects, until when it may, and what is to be done."""
    from fedprivseg.governance.lifecycle.expiry import review
    from fedprivseg.governance.sitefolder.audit import site_ledger

    _, lines = site_ledger(run_folder, site)
    found = review(run_folder, site, lines, _day(today) if today else None)
    due = {duty.name for duty in found.due}
    if as_json:
        content = {
            "site": site,
            "today": found.today.isoformat(),
            "term": found.term,
            "holds": list(found.held),
            "duties": [{**asdict(duty), "day": duty.day.isoformat(), "due": duty.name in due} for duty in found.duties],
        }
        typer.echo(json.dumps(content))
        return
    if not found.held:
        typer.echo(f"{site} holds nothing of its subjects for this study")
        return
    if found.term is None:
        typer.echo(
            f"{site} holds, or is answerable for: {'; '.join(found.held)}. Its policy states no term: nothing is due."
        )
        return
    rows = [
        [duty.name, duty.act, duty.day.isoformat(), "yes" if duty.name in due else "no", duty.clause, duty.reason]
        for duty in found.duties
    ]
    print_table(f"{site} on {found.today}", ["object", "act", "from", "due", "clause", "why"], rows)
    if due:
        typer.echo(
            f'next: fedprivseg destroy order {run_folder} {site} --as ID --reason "the term of retention has ended"'
        )


def drill(
    run_folder: Run,
    site: Site,
    payload: Annotated[str, typer.Option(metavar="SHA256", help="This payload leaked.")] = "",
    subject: Annotated[str, typer.Option(metavar="CODE", help="Data of this subject of the site leaked.")] = "",
    key: Annotated[bool, typer.Option("--key", help="The site's private key leaked.")] = False,
    since: Annotated[str, typer.Option(metavar="TIME", help="Only what left from this time on.")] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Only what left up to this time.")] = "",
    found: Annotated[str, typer.Option(metavar="TIME", help="When the leak was discovered; default now.")] = "",
    as_json: AsJson = False,
) -> None:
    """If this had leaked: what went out, to whom, under which protections, and who is notified by when. Sends nothing. One of
    --payload, --subject, --key, or a period; times such as 2026-03-01 or 2026-03-01T08:00+00:00."""
    from fedprivseg.governance.lifecycle.breach_drill import Leak, pseudonym, rehearse
    from fedprivseg.governance.sitefolder.audit import site_ledger

    public_hex, lines = site_ledger(run_folder, site)
    chosen = sum([bool(payload), bool(subject), key])
    if chosen > 1:
        raise RequestError("a drill is of one leak; give one of --payload, --subject and --key")
    if not chosen and not since and not until:
        raise RequestError("what leaked? Give --payload, --subject, --key, or a period by --since and --until")
    if payload and (len(payload) != 64 or set(payload) - set("0123456789abcdef")):
        raise RequestError("--payload wants the SHA-256 of a payload, 64 hex digits: the fact digest of a ledger line")
    # A subject's code becomes a pseudonym here, and goes no further.
    which = payload or (pseudonym(run_folder, site, lines, subject) if subject else public_hex if key else "")
    what: What = "payload" if payload else "subject" if subject else "key" if key else "period"
    leak = Leak(what, which, _time(since), _time(until, last=True))
    answer = rehearse(run_folder, site, lines, leak, _time(found) or datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps(asdict(answer), default=lambda value: value.isoformat()))
        return
    _tell(answer)


def _tell(answer: Drill) -> None:
    """A table of what went out, a table of who is notified, and what there is to say about both."""
    if answer.exposures:
        rows = [
            [
                str(one.index),
                one.time[:19],
                one.kind,
                one.purpose,
                str(one.level),
                str(one.size),
                one.recipient,
                ", ".join(one.protections) or "none named",
                "yes" if one.certain else "not excluded",
            ]
            for one in answer.exposures
        ]
        columns = ["line", "time", "kind", "for", "level", "bytes", "to", "under", "concerned"]
        print_table("what went out", columns, rows)
    if answer.notifications:
        told = [[each.by.isoformat(timespec="minutes"), each.role, each.reach] for each in answer.notifications]
        print_table("who is notified", ["by", "who", "reach"], told)
    level = f"a leak of level {answer.level}" if answer.level else "no leak that the ledger shows"
    typer.echo(f"In all {level}; {len(answer.exposures)} releases, {len(answer.notifications)} offices to notify.")
    for sentence in answer.findings:
        typer.echo(sentence)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise RequestError(f"--today wants a day such as 2027-01-31; given {text[:40]!r}") from None


def _time(text: str, *, last: bool = False) -> datetime | None:
    """The time in `text`, in UTC if it names no zone; None for nothing. last: a day alone means its end."""
    if not text:
        return None
    try:
        time: Any = datetime.fromisoformat(text)
    except ValueError:
        raise RequestError(f"a time is such as 2026-03-01 or 2026-03-01T08:00+00:00; given {text[:40]!r}") from None
    if last and len(text) == len("2026-03-01"):
        time = time.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
