"""``fedprivseg trace``: the life of one patient's data in a run, as a picture and as PROV-JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedprivseg.cli.options import AsJson, Run
from fedprivseg.cli.terminal import print_table
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import deliver

if TYPE_CHECKING:
    from fedprivseg.governance.lineage.provenance import Trace

FORMATS = (".svg", ".png", ".html", ".json")


def trace(
    run_folder: Run,
    subject: Annotated[
        str,
        typer.Argument(
            help="A subject's code or pseudonym; with --server a shard: its SHA-256, or SITE/ACTION/NUMBER."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="What to write: a picture (.svg, .png), a page (.html) or PROV-JSON (.json)."),
    ] = None,
    server: Annotated[bool, typer.Option("--server", help="From the server's side, which knows no subjects.")] = False,
    site: Annotated[str, typer.Option(help="The subject's site; default whichever knows the subject.")] = "",
    with_code: Annotated[
        bool, typer.Option("--with-code", help="Name the subject by its code: for what stays at the site.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show every form that one patient's data took in a run: where, under whose responsibility and which protections, with the
    ledger lines that say so. At the site; with --server the same of one shard, which names no subject."""
    if out is not None and out.suffix.lower() not in FORMATS:
        raise RequestError(f"-o wants a file that ends in {', '.join(FORMATS)}; given {out.name!r}")
    if server and (site or with_code):
        raise RequestError("--server goes without --site and --with-code: the server knows no subjects")
    found = _trace(run_folder, subject, server=server, site=site, with_code=with_code)
    if out is not None:
        _write(found, out)
    if as_json:
        from fedprivseg.governance.lineage.prov_json import prov_json

        typer.echo(prov_json(found), nl=False)
        return
    if out is None:
        _print(found)
        return
    typer.echo(f"{out}: {len(found.forms)} forms")


def _trace(run: Path, name: str, *, server: bool, site: str, with_code: bool) -> Trace:
    if server:
        from fedprivseg.governance.lineage.server_side import trace_shard

        return trace_shard(run, name)
    from fedprivseg.governance.lineage.site_side import trace_subject

    return trace_subject(run, name, site=site, with_code=with_code)


def _write(found: Trace, out: Path) -> None:
    """Put the picture, the page or the document at `out` in one step."""
    form = out.suffix.lower()
    if form == ".json":
        from fedprivseg.governance.lineage.prov_json import prov_json

        body = prov_json(found).encode()
    else:
        from fedprivseg.governance.lineage import diagram, lineage_page

        makers = {".svg": diagram.svg_of, ".html": lineage_page.page_of}
        body = diagram.png_of(found) if form == ".png" else makers[form](found).encode()
    deliver(out, body)


def _print(found: Trace) -> None:
    rows = []
    for form in found.forms:
        state = f"{form.state} ({form.ended})" if form.ended else form.state
        rows.append(
            [
                form.time[:19].replace("T", " "),
                form.lane,
                form.title,
                form.where,
                form.holder,
                "-" if form.level is None else str(form.level),
                "; ".join([*form.done, *form.protections, *form.lacking]),
                state,
                " ".join(str(reference) for reference in form.references),
            ]
        )
    title = f"{found.label}: {found.role}; {found.method}, run {found.run}"
    print_table(
        title, ["time", "lane", "form", "where", "holder", "level", "done and protected", "state", "ledger"], rows
    )
    for note in found.notes:
        typer.echo(f"note: {note}")
