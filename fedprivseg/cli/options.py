"""The arguments and options that several commands share, each stated once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
Site = Annotated[str, typer.Argument(metavar="SITE", help="A site of the run, such as centre1.")]
ScenarioFile = Annotated[
    Path, typer.Argument(metavar="SCENARIO", help="A scenario file, such as simulations/quickstart.toml.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one scenario value; may be repeated.")
]
Data = Annotated[str | None, typer.Option(help="Folder of an M&Ms release, or 'phantom'.")]
RunOut = Annotated[
    Path | None, typer.Option("-o", "--out", help="Run folder; default runs/<name>-<method>-<variant>-<seed>.")
]
HospitalOut = Annotated[Path, typer.Option("-o", "--out", help="A new folder, at the hospital.")]
Who = Annotated[
    str, typer.Option("--as", metavar="ID", help="Who does this, by the id in the site's staff.toml, if it has one.")
]
Reason = Annotated[str, typer.Option(help="Why, in a sentence.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
