"""``fedprivseg ledger``: whether the sites' ledgers hold, and what stands in them (T/SCGS 313008-2024 clause 5.6.2-d)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedprivseg.cli.options import Run
from fedprivseg.cli.terminal import print_table
from fedprivseg.core.errors import FolderError, LedgerError, RequestError
from fedprivseg.core.files import deliver

if TYPE_CHECKING:
    from fedprivseg.governance.ledger.line import Line

app = typer.Typer(help="The sites' ledgers: what left, what was refused, what was done.", no_args_is_help=True)

Event = Annotated[
    str, typer.Option(help="Only lines of this event, such as release, refusal, enrolment or withdrawal.")
]
Site = Annotated[str, typer.Option(help="Only this site's lines.")]
Matching = Annotated[
    list[str] | None, typer.Option("--where", metavar="FACT=VALUE", help="Only lines with this fact; may be repeated.")
]

_SHORT = ("site", "action", "kind", "item", "rule", "clause", "what", "request", "subject", "reason", "error")
"""The facts that a query prints, in this order."""


@app.command()
def verify(run_folder: Run) -> None:
    """Verify every ledger, and each against the checkpoints that the other side holds of it; name the first line that was
    changed, removed or re-ordered, and a ledger that is gone. Exit status 1 if any was."""
    from fedprivseg.governance.ledger.checkpoints import equivocations
    from fedprivseg.governance.ledger.ledger import read

    whole = True
    for holds, sentence in _verified(run_folder):
        whole = whole and holds
        typer.echo(sentence)
    if not whole:
        raise typer.Exit(1)
    paths = _ledgers(run_folder)
    lines = {path.parent.name: read(path) for path in paths}
    server = lines.pop("server", [])
    found = [f"EQUIVOCATION: {sentence}" for sentence in equivocations(server, lines)]
    found = _unknown(run_folder, server) or found
    for sentence in found:
        typer.echo(sentence)
    if found:
        raise typer.Exit(1)


@app.command()
def query(run_folder: Run, event: Event = "", site: Site = "", where: Matching = None) -> None:
    """Lines of the ledgers: site, line, time, event, and what each says in short. Exit status 1 if a ledger does not hold: what
    is listed is then not what was written."""
    rows = [
        [line.site, str(line.index), line.time, line.event, "; ".join(_said(line))]
        for line, _ in _lines(run_folder, event, site, where or [])
    ]
    print_table("", ["site", "line", "time", "event", "says"], rows)
    _end_if_broken(run_folder)


@app.command()
def export(
    run_folder: Run,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the JSON Lines go.")],
    event: Event = "",
    site: Site = "",
    where: Matching = None,
) -> None:
    """Write whole lines of the ledgers as they were written, signatures and all, as JSON Lines: an auditor's copy. Exit
    status 1
    if a ledger does not hold."""
    found = _lines(run_folder, event, site, where or [])
    body = "".join(json.dumps({**json.loads(raw), "hash": line.hash}, sort_keys=True) + "\n" for line, raw in found)
    deliver(out, body)
    typer.echo(f"{out}: {body.count(chr(10))} lines")
    _end_if_broken(run_folder)


def _verified(run_folder: Path) -> Iterator[tuple[bool, str]]:
    """Of each ledger that is there or must be there: whether it holds by itself, and a sentence."""
    from fedprivseg.core.runfolder import RunFolder
    from fedprivseg.governance.ledger import ledger
    from fedprivseg.governance.sitefolder.audit import known_keys

    keys, paths = known_keys(run_folder), _ledgers(run_folder)
    for path in paths:
        site = path.parent.name
        try:
            found = ledger.verify(path, public_hex=keys.get(site))
            yield True, f"{site}: {found.lines} lines, intact{''.join(f'; {note}' for note in found.notes)}"
        except LedgerError as fault:
            yield False, f"{site}: BROKEN: {fault}"
    expected = {*keys} - {"server"} | ({"server"} if RunFolder(run_folder).server.path.is_dir() else set())
    for site in sorted(expected - {path.parent.name for path in paths}):
        yield (
            False,
            f"{site}: MISSING: its key is known in this run, and its ledger is gone. Put back a copy, and verify it.",
        )


def _end_if_broken(run_folder: Path) -> None:
    """End with status 1 and a sentence for each ledger that does not hold."""
    faults = [sentence for holds, sentence in _verified(run_folder) if not holds]
    for sentence in faults:
        typer.echo(sentence, err=True)
    if faults:
        raise typer.Exit(1)


def _unknown(run_folder: Path, server: list[Line]) -> list[str]:
    """A sentence for each site whose payloads the server received, and whose key it does not know any more."""
    from fedprivseg.governance.sitefolder.audit import known_keys

    came = {str(line.facts.get("site")) for line in server if line.event == "receipt" and "digest" in line.facts}
    return [
        f"{site}: UNKNOWN: the server received its payloads, and its record of the sites' keys does not name it."
        for site in sorted(came - known_keys(run_folder).keys())
    ]


def _said(line: Line) -> list[str]:
    """What a line says in short. Subjects stand in it as the pseudonyms of the ledger."""
    facts = {name: fact for name, fact in line.facts.items() if fact not in ("", [], {})}
    if line.event == "enrolment":
        refused = facts.get("refused")
        left_out = f"; not enrolled: {', '.join(map(str, refused))}" if isinstance(refused, list) else ""
        return [f"{facts.get('subjects', 0)} subjects enrolled{left_out}"]
    decision = {"permit": "allowed", "deny": "denied"}.get(str(facts.get("decision")))
    if decision:
        facts["what"] = decision
    digest = [f"payload {facts['digest']}"] if line.event in ("release", "receipt") and "digest" in facts else []
    return [str(facts[name]) for name in _SHORT if name in facts] + digest


def _ledgers(run_folder: Path) -> list[Path]:
    from fedprivseg.core.runfolder import RunFolder

    run = RunFolder(run_folder)
    paths = [path for path in (run.server.ledger, *(site.ledger for site in run.sites)) if path.exists()]
    if not paths:
        raise FolderError(f"{run_folder} holds no ledger (no sites/*/ledger.jsonl); give the folder of a run")
    return paths


def _lines(run_folder: Path, event: str, site: str, where: list[str]) -> Iterator[tuple[Line, bytes]]:
    """The lines that fit, site by site, each with its bytes in the file. Events, facts and rules may be named as format 1
    called them. Raises RequestError for an event, a site or a fact that does not exist."""
    from fedprivseg.governance.ledger.format import EVENTS, OLD_EVENTS, OLD_FACTS, OLD_RULES
    from fedprivseg.governance.ledger.ledger import read
    from fedprivseg.governance.ledger.line import raw_lines

    paths = _ledgers(run_folder)
    names = [path.parent.name for path in paths]
    event = OLD_EVENTS.get(event, event)
    if event and event not in EVENTS:
        raise RequestError(f"a ledger has no event {event!r}; events are: {', '.join(EVENTS)}")
    if site and site not in names:
        raise RequestError(f"unknown site {site!r}; the sites of this run are: {', '.join(names)}")
    wanted = []
    for condition in where:
        name, equals, value = condition.partition("=")
        if not equals:
            raise RequestError(f"--where wants FACT=VALUE, such as kind=image-code; given {condition!r}")
        wanted.append((OLD_FACTS.get(name, name), OLD_RULES.get(value, value) if name == "rule" else value))
    named: set[str] = set()
    for path in paths:
        if site not in ("", path.parent.name):
            continue
        for line, raw in zip(read(path), raw_lines(path), strict=True):
            named |= line.facts.keys()
            fits = all(str(line.facts.get(name)) == value for name, value in wanted)
            if fits and event in ("", line.event):
                yield line, raw
    for name, _ in wanted:
        if name not in named:
            raise RequestError(f"no line has a fact {name!r}; facts are: {', '.join(sorted(named))}")
