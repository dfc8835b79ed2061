"""``fedprivseg deidentify``: one technique of clause 5.2 on one file, with what Table 2 says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedprivseg.cli.options import AsJson
from fedprivseg.core.techniques import Technique
from fedprivseg.governance.policy.technique_table import Grade, advice


def deidentify(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="An image (.nii, .nii.gz) or a table (.csv).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file to make; the one that is read stays as it is.")],
    technique: Annotated[Technique, typer.Option(help="Of Table 2; homomorphic encryption is not for files.")],
    utility: Annotated[Grade, typer.Option(help="low: much distortion still serves the use.")],
    confidentiality: Annotated[Grade, typer.Option(help="high: a leak has serious effects.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter, such as block=4 or rows=[0,20]."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Key file of keyed techniques, 32 bytes, mode 0600; drawn if it is not there.")
    ] = None,
    cipher: Annotated[
        str, typer.Option(help="Of symmetric encryption: AES or SM4. SM1 is unpublished, so no software has it.")
    ] = "AES",
    undo: Annotated[bool, typer.Option("--undo", help="Take back what the same call with the same key did.")] = False,
    as_json: AsJson = False,
) -> None:
    """Apply one technique of clause 5.2 to a file, and say whether Table 2 advises it for data of these grades."""
    from fedprivseg.core.config import apply_settings
    from fedprivseg.governance.deidentify.apply import deidentify as apply_to_file

    told = advice(technique, utility, confidentiality)
    parameters = apply_settings({}, settings or [])
    history = apply_to_file(source, out, technique, parameters, key=key, cipher_name=cipher, undo=undo)
    if as_json:
        typer.echo(
            json.dumps({"out": str(out), "history": history, "verdict": told.verdict, "sentence": told.sentence})
        )
        return
    typer.echo(f"{told.verdict}: {told.sentence}")
    typer.echo(f"{out}: {history}")
