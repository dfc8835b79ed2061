"""``fedprivseg watch``: a page to watch a run."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from fedprivseg.cli.options import AsJson


def watch(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN|KIT", help="The folder of a run, or the operator's of a deployment.")
    ],
    port: Annotated[int, typer.Option(help="On this machine alone; 0 for any that is free.", min=0, max=65_535)] = 0,
    token_file: Annotated[
        Path | None, typer.Option(help="Also keep the token in this file while the page is served, for Prometheus.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve a page on which a run can be watched, until stopped: read-only, for whoever has its address."""
    from fedprivseg.core.files import write_secret
    from fedprivseg.study.watch.serve import watch as watched

    with ExitStack() as stack:
        page = stack.enter_context(watched(folder, port))
        if token_file is not None:
            write_secret(token_file, page.token.encode())
            stack.callback(token_file.unlink, missing_ok=True)
        if as_json:
            typer.echo(json.dumps({"page": page.address, "metrics": page.metrics}))
        else:
            typer.echo(f"page: {page.address}\nmetrics: {page.metrics}\nend with Ctrl-C")
        page.run()
