"""``fedprivseg ledger``: whether the sites' ledgers hold, and what stands in them (T/SCGS 313008-2024 clause 5.6.2-d)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedprivseg.cli.options import Run
from fedprivseg.cli.terminal import print_table
from fedprivseg.core.errors import FolderError, LedgerError, RequestError
from fedprivseg.core.files import deliver

if TYPE_CHECKING:
    from fedprivseg.governance.ledger.ledger import Line

app = typer.Typer(help="The sites' ledgers: what left, what was refused, what was done.", no_args_is_help=True)

Event = Annotated[str, typer.Option(help="Only lines of this event, such as release, refusal, intake or withdrawal.")]
Site = Annotated[str, typer.Option(help="Only this site's lines.")]
Matching = Annotated[
    list[str] | None, typer.Option("--where", metavar="FACT=VALUE", help="Only lines with this fact; may be repeated.")
]

_SHORT = ("site", "action", "kind", "item", "rule", "clause", "what", "request", "subject", "reason", "error")
"""The facts that a query prints, in this order."""


@app.command()
def verify(run_folder: Run) -> None:
    """Verify every ledger, and each against what the other side was shown of it; name the first line that was changed,
    removed or re-ordered, and a ledger that is gone. Exit status 1 if any was."""
    from fedprivseg.governance.ledger import ledger
    from fedprivseg.governance.sitefolder.audit import known_keys

    keys = known_keys(run_folder)
    broken = False
    for path in _ledgers(run_folder):
        site = path.parent.name
        try:
            verified = ledger.verify(path, public_hex=keys.get(site))
            typer.echo(f"{site}: {verified.lines} lines, intact{''.join(f'; {note}' for note in verified.notes)}")
        except LedgerError as fault:
            broken = True
            typer.echo(f"{site}: BROKEN: {fault}")
    for site in _missing(run_folder, keys):
        broken = True
        typer.echo(
            f"{site}: MISSING: it has shown its key in this run, and its ledger is gone. Put back a copy, and verify it."
        )
    for site in _unknown(run_folder, keys) if not broken else ():
        broken = True
        typer.echo(
            f"{site}: UNKNOWN: the server had payloads of it, and its record of the sites' keys does not name it."
        )
    if not broken:
        for sentence in _contradictions(run_folder):
            broken = True
            typer.echo(f"CONTRADICTED: {sentence}")
    if broken:
        raise typer.Exit(1)


@app.command()
def query(run_folder: Run, event: Event = "", site: Site = "", where: Matching = None) -> None:
    """Lines of the ledgers: site, line, time, event, and what each says in short. Exit status 1 if a ledger does not hold: what
    is listed is then not what was written."""
    rows = []
    for line in _lines(run_folder, event, site, where or []):
        rows.append([line.site, str(line.index), line.time, line.event, "; ".join(_said(line))])
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
    """Write whole lines of the ledgers, signatures and all, as JSON Lines: an auditor's copy. Exit status 1 if a ledger does
    not hold."""
    body = "".join(
        json.dumps({**vars(line), "facts": dict(line.facts)}, sort_keys=True) + "\n"
        for line in _lines(run_folder, event, site, where or [])
    )
    deliver(out, body)
    typer.echo(f"{out}: {body.count(chr(10))} lines")
    _end_if_broken(run_folder)


def _end_if_broken(run_folder: Path) -> None:
    """End with status 1 and a sentence for each ledger that does not hold."""
    from fedprivseg.governance.ledger import ledger
    from fedprivseg.governance.sitefolder.audit import known_keys

    keys, faults = known_keys(run_folder), []
    for path in _ledgers(run_folder):
        try:
            ledger.verify(path, public_hex=keys.get(path.parent.name))
        except LedgerError as fault:
            faults.append(f"{path.parent.name}: BROKEN: {fault}")
    faults += [
        f"{site}: MISSING: its ledger is gone. Put back a copy, and verify it." for site in _missing(run_folder, keys)
    ]
    for sentence in faults:
        typer.echo(sentence, err=True)
    if faults:
        raise typer.Exit(1)


def _missing(run_folder: Path, keys: Mapping[str, str]) -> list[str]:
    """Whose ledger must be there and is not: a site that the server knows by its key, and the server that has a folder."""
    expected = {*keys} - {"server"} | ({"server"} if (run_folder / "server").is_dir() else set())
    return sorted(expected - {path.parent.name for path in _ledgers(run_folder)})


def _unknown(run_folder: Path, keys: Mapping[str, str]) -> list[str]:
    """The sites whose payloads the server had, and whose keys it does not know any more."""
    from fedprivseg.governance.ledger.ledger import read

    path = run_folder / "server" / "ledger.jsonl"
    came = [
        line for line in (read(path) if path.exists() else ()) if line.event == "receipt" and "digest" in line.facts
    ]
    return sorted({str(line.facts.get("site")) for line in came} - keys.keys())


def _said(line: Line) -> list[str]:
    """What a line says in short. Subjects stand in it as the pseudonyms of the ledger."""
    facts = {name: fact for name, fact in line.facts.items() if fact not in ("", [], {})}
    if line.event == "intake":
        refused = facts.get("refused")
        left_out = f"; not taken in: {', '.join(map(str, refused))}" if isinstance(refused, list) else ""
        return [f"{facts.get('subjects', 0)} subjects taken in{left_out}"]
    decision = {"permit": "allowed", "deny": "denied"}.get(str(facts.get("decision")))
    if decision:
        facts["what"] = decision
    digest = [f"payload {facts['digest']}"] if line.event in ("release", "receipt") and "digest" in facts else []
    return [str(facts[name]) for name in _SHORT if name in facts] + digest


def _contradictions(run_folder: Path) -> tuple[str, ...]:
    from fedprivseg.governance.ledger.checkpoints import equivocations
    from fedprivseg.governance.ledger.ledger import read

    server = run_folder / "server" / "ledger.jsonl"
    sites = {path.parent.name: read(path) for path in _ledgers(run_folder) if path != server}
    return equivocations(read(server) if server.exists() else [], sites)


def _ledgers(run_folder: Path) -> list[Path]:
    paths = sorted([*run_folder.glob("sites/*/ledger.jsonl"), *run_folder.glob("server/ledger.jsonl")])
    if not paths:
        raise FolderError(f"{run_folder} holds no ledger (no sites/*/ledger.jsonl); give the folder of a run")
    return paths


def _lines(run_folder: Path, event: str, site: str, where: list[str]) -> Iterator[Line]:
    """The lines that fit, site by site. Raises RequestError for an event, a site or a fact that does not exist."""
    from fedprivseg.governance.ledger.ledger import EVENTS, read

    paths = _ledgers(run_folder)
    names = [path.parent.name for path in paths]
    if event and event not in EVENTS:
        raise RequestError(f"a ledger has no event {event!r}; events are: {', '.join(EVENTS)}")
    if site and site not in names:
        raise RequestError(f"unknown site {site!r}; the sites of this run are: {', '.join(names)}")
    wanted = []
    for condition in where:
        name, equals, value = condition.partition("=")
        if not equals:
            raise RequestError(f"--where wants FACT=VALUE, such as kind=image-code; given {condition!r}")
        wanted.append((name, value))
    named: set[str] = set()
    for path in paths:
        if site in ("", path.parent.name):
            for line in read(path):
                named |= line.facts.keys()
                fits = all(str(line.facts.get(name)) == value for name, value in wanted)
                if fits and event in ("", line.event):
                    yield line
    for name, _ in wanted:
        if name not in named:
            raise RequestError(f"no line has a fact {name!r}; facts are: {', '.join(sorted(named))}")
