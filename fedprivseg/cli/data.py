"""``fedprivseg data``: what a hospital does with its images before a study reads them. None of it changes a file in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedprivseg.cli.terminal import bar, open_console, print_table

if TYPE_CHECKING:
    from fedprivseg.imaging.dicom.imported import Imported

app = typer.Typer(
    help="Images: import DICOM, clear headers, check a release, or draw the phantom.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command("import-dicom")
def import_dicom(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="DICOM images, in any subfolders, and nothing else.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to make; a folder for each patient in it.")],
    secret: Annotated[
        Path,
        typer.Option(
            help="The site's key file for pseudonyms and UIDs, 32 bytes; drawn if it is not there. Keep it: later images of a "
            "patient join the earlier ones by it."
        ),
    ],
    body_part: Annotated[
        str | None, typer.Option(help="What is shown, where a header names no known body part, such as HEART.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """De-identify DICOM (PS3.15 basic profile, then an allow-list) and convert it to NIfTI, at the hospital.

    The whole folder is taken or, with exit status 2, nothing is written. `imported.json` in the new folder says of each
    patient, by pseudonym, the class (clause 5.1.3) and the level (5.5), what raised it and which attributes were taken out; a
    site's intake reads it where it stands beside a release's files.
    """
    from fedprivseg.study.import_dicom import take_in

    with bar("importing", open_console(stderr=True)) as progress:
        done = take_in(source, out, secret, body_part=body_part, progress=progress)
    if as_json:
        typer.echo(done.model_dump_json())
        return
    _tell(done, out)


@app.command()
def scrub(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="NIfTI files, in any subfolders.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to make; never the one that is read.")],
    as_json: AsJson = False,
) -> None:
    """Copy NIfTI files without the text in their headers (descrip, aux_file, db_name, extensions...).

    Voxels, scaling and geometry stay bit for bit. Files of other types are left out. Names of files and folders stay: see to it
    that they tell of nobody.
    """
    from fedprivseg.imaging.scrub import scrub_folder

    with bar("scrubbing", open_console(stderr=True)) as progress:
        done = scrub_folder(source, out, progress)
    if as_json:
        counts = {"files": done.files, "left_out": done.left_out, "companions": done.companions}
        typer.echo(json.dumps({**counts, "cleared": dict(done.cleared)}))
        return
    print_table("", ["header field", "cleared in files"], [[name, str(count)] for name, count in done.cleared.items()])
    typer.echo(f"{out}: {done.files} files without text in their headers; {done.left_out} other files left out")
    if done.companions:
        typer.echo(f"{done.companions} files that macOS wrote beside others (._*) ignored")


def _tell(done: Imported, out: Path) -> None:
    rows = [
        [
            code,
            str(number),
            each.modality or "unknown",
            each.data_class,
            each.body_part or "unknown",
            str(each.images),
            str(each.level),
            "; ".join(each.concerns) or "nothing raises it",
            str(len(each.removed)),
        ]
        for code, subject in done.subjects.items()
        for number, each in enumerate(subject.series, start=1)
    ]
    columns = ["patient", "series", "modality", "class", "body part", "images", "level", "why", "attributes removed"]
    print_table("", columns, rows)
    images = sum(each.images for subject in done.subjects.values() for each in subject.series)
    typer.echo(f"{out}: {images} images of {len(done.subjects)} patients; imported.json says what was removed")
    for step in done.history:
        typer.echo(f"done: {step}")
