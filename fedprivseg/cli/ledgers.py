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
    from fedprivseg.governance.ledger.ledger import Line

app = typer.Typer(help="The sites' ledgers: what left, what was blocked, what was done.", no_args_is_help=True)

Event = Annotated[str, typer.Option(help="Only lines of this event, such as release, refusal, intake or withdrawal.")]
Site = Annotated[str, typer.Option(help="Only this site's lines.")]
Matching = Annotated[
    list[str] | None, typer.Option("--where", metavar="FACT=VALUE", help="Only lines with this fact; may be repeated.")
]

_SHORT = ("site", "action", "kind", "item", "rule", "clause", "what", "request", "subject", "reason", "error")
"""The facts that a query prints, in this order."""


@app.command()
def verify(run_folder: Run) -> None:
    """Verify every ledger, and each against the checkpoints that the other side has of it; name the first line that was
    changed, removed or re-ordered, and a ledger that is gone. Exit status 1 if any was."""
    broken = False
    for sentence, bad in _checked(run_folder):
        broken |= bad
        typer.echo(sentence)
    if not broken:
        for sentence in (*_unknown(run_folder), *_contradictions(run_folder)):
            broken = True
            typer.echo(sentence)
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
    faults = [sentence for sentence, bad in _checked(run_folder) if bad]
    for sentence in faults:
        typer.echo(sentence, err=True)
    if faults:
        raise typer.Exit(1)


def _checked(run_folder: Path) -> Iterator[tuple[str, bool]]:
    """A sentence on each ledger that is there or must be, and whether something is wrong with it.

    A site that the server knows by its key must have one, and the server that has a folder.
    """
    from fedprivseg.governance.ledger import ledger
    from fedprivseg.governance.sitefolder.audit import known_keys

    keys, ledgers = known_keys(run_folder), _ledgers(run_folder)
    for site, path in ledgers.items():
        try:
            verified = ledger.verify(path, public_hex=keys.get(site))
            yield f"{site}: {verified.lines} lines, intact{''.join(f'; {note}' for note in verified.notes)}", False
        except LedgerError as fault:
            yield f"{site}: BROKEN: {fault}", True
    expected = {*keys} - {"server"} | ({"server"} if (run_folder / "server").is_dir() else set())
    for site in sorted(expected - ledgers.keys()):
        yield (
            f"{site}: MISSING: it has shown its key in this run, and its ledger is gone. Put back a copy, and verify it.",
            True,
        )


def _unknown(run_folder: Path) -> list[str]:
    """A sentence on each site whose payloads the server had, and whose key it does not know any more."""
    from fedprivseg.governance.ledger.ledger import read
    from fedprivseg.governance.sitefolder.audit import known_keys

    server = _ledgers(run_folder).get("server")
    lines = read(server) if server else []
    came = {str(line.facts.get("site")) for line in lines if line.event == "receipt" and "digest" in line.facts}
    return [
        f"{site}: UNKNOWN: the server had payloads of it, and its record of the sites' keys does not name it."
        for site in sorted(came - known_keys(run_folder).keys())
    ]


def _said(line: Line) -> list[str]:
    """What a line says in short. Subjects stand in it as the pseudonyms of the ledger."""
    facts = {name: fact for name, fact in line.facts.items() if fact not in ("", [], {})}
    if line.event == "intake":
        refused = facts.get("refused")
        left_out = f"; not enrolled: {', '.join(map(str, refused))}" if isinstance(refused, list) else ""
        return [f"{facts.get('subjects', 0)} subjects enrolled{left_out}"]
    decision = {"permit": "allowed", "deny": "denied"}.get(str(facts.get("decision")))
    if decision:
        facts["what"] = decision
    digest = [f"payload {facts['digest']}"] if line.event in ("release", "receipt") and "digest" in facts else []
    return [str(facts[name]) for name in _SHORT if name in facts] + digest


def _contradictions(run_folder: Path) -> list[str]:
    """A sentence on each ledger that is not what its checkpoints at the other side say."""
    from fedprivseg.governance.ledger.checkpoints import equivocations
    from fedprivseg.governance.ledger.ledger import read

    lines = {party: read(path) for party, path in _ledgers(run_folder).items()}
    found = equivocations(lines.pop("server", []), lines)
    return [f"CONTRADICTED: {sentence}" for sentence in found]


def _ledgers(run_folder: Path) -> dict[str, Path]:
    """Party -> its ledger, the server's first. Raises FolderError if there is none."""
    from fedprivseg.core.runfolder import RunFolder

    run = RunFolder(run_folder)
    ledgers = {"server": run.server.ledger, **{site.name: site.ledger for site in run.sites}}
    found = {party: path for party, path in ledgers.items() if path.exists()}
    if not found:
        raise FolderError(f"{run_folder} holds no ledger (no sites/*/ledger.jsonl); give the folder of a run")
    return found


def _lines(run_folder: Path, event: str, site: str, where: list[str]) -> Iterator[Line]:
    """The lines that fit, site by site. Raises RequestError for an event, a site or a fact that does not exist."""
    from fedprivseg.governance.ledger.ledger import EVENTS, read

    ledgers = _ledgers(run_folder)
    if event and event not in EVENTS:
        raise RequestError(f"a ledger has no event {event!r}; events are: {', '.join(EVENTS)}")
    if site and site not in ledgers:
        raise RequestError(f"unknown site {site!r}; the sites of this run are: {', '.join(ledgers)}")
    wanted = []
    for condition in where:
        name, equals, value = condition.partition("=")
        if not equals:
            raise RequestError(f"--where wants FACT=VALUE, such as kind=image-code; given {condition!r}")
        wanted.append((name, value))
    named: set[str] = set()
    for party, path in ledgers.items():
        if site in ("", party):
            for line in read(path):
                named |= line.facts.keys()
                fits = all(str(line.facts.get(name)) == value for name, value in wanted)
                if fits and event in ("", line.event):
                    yield line
    for name, _ in wanted:
        if name not in named:
            raise RequestError(f"no line has a fact {name!r}; facts are: {', '.join(sorted(named))}")
