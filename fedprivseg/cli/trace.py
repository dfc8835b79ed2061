"""``fedprivseg trace``: the life of one patient's data in a run, as an image and as PROV-JSON."""

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
        typer.Option("-o", "--out", help="What to write: an image (.svg, .png), a page (.html) or PROV-JSON (.json)."),
    ] = None,
    server: Annotated[bool, typer.Option("--server", help="From the server's side, which knows no subjects.")] = False,
    site: Annotated[str, typer.Option(help="The subject's site; default whichever knows the subject.")] = "",
    with_code: Annotated[
        bool, typer.Option("--with-code", help="Name the subject by its code: for what stays at the site.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show every artefact made of one patient's data in a run: where, under whose responsibility and which protections, with
    the ledger lines that say so. At the site; with --server the same of one shard, which names no subject."""
    if out is not None and out.suffix.lower() not in FORMATS:
        raise RequestError(f"-o wants a file that ends in {', '.join(FORMATS)}; given {out.name!r}")
    if server and (site or with_code):
        raise RequestError("--server goes without --site and --with-code: the server knows no subjects")
    if server:
        from fedprivseg.governance.lineage.server_side import trace_shard

        found = trace_shard(run_folder, subject)
    else:
        from fedprivseg.governance.lineage.site_side import trace_subject

        found = trace_subject(run_folder, subject, site=site, with_code=with_code)
    if out is not None:
        deliver(out, _body(found, out.suffix.lower()))
    if as_json:
        typer.echo(_body(found, ".json"), nl=False)
    elif out is None:
        _print(found)
    else:
        typer.echo(f"{out}: {len(found.artefacts)} artefacts")


def _body(found: Trace, ending: str) -> str | bytes:
    """The trace as an image, as a page or as PROV-JSON, as the ending of a file's name asks."""
    if ending == ".json":
        from fedprivseg.governance.lineage.prov_json import prov_json

        return prov_json(found)
    from fedprivseg.governance.lineage import diagram, lineage_page

    if ending == ".png":
        return diagram.png_of(found)
    return diagram.svg_of(found) if ending == ".svg" else lineage_page.page_of(found)


def _print(found: Trace) -> None:
    rows = []
    for each in found.artefacts:
        state = f"{each.state} ({each.ended})" if each.ended else each.state
        rows.append(
            [
                each.time[:19].replace("T", " "),
                each.lane,
                each.title,
                each.where,
                each.holder,
                "-" if each.level is None else str(each.level),
                "; ".join([*each.done, *each.protections, *each.lacking]),
                state,
                " ".join(str(reference) for reference in each.references),
            ]
        )
    title = f"{found.label}: {found.role}; {found.method}, run {found.run}"
    print_table(
        title, ["time", "lane", "artefact", "where", "holder", "level", "done and protected", "state", "ledger"], rows
    )
    for note in found.notes:
        typer.echo(f"note: {note}")
