"""``fedprivseg data``: what a hospital does with its images before a study reads them. None of it changes a file in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedprivseg.cli.options import AsJson
from fedprivseg.cli.terminal import bar, open_console, print_table
from fedprivseg.core.errors import DataError, RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedprivseg.imaging.dicom.imported import Imported

app = typer.Typer(help="Images: import DICOM, clear headers, check a release, or draw a phantom.", no_args_is_help=True)


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
        str | None, typer.Option(help="What is shown, where a header names no known body part, such as BRAIN.")
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


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of images: an M&Ms release, or nnU-Net raw.")],
    sites: Annotated[
        Path | None,
        typer.Option(help="Folder of sites: masks are read in the order of labels that a site.toml states."),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="The layout, if its files do not tell: mnms or nnunet.")] = "",
    as_json: AsJson = False,
) -> None:
    """Print a table per centre and split, and every fault and warning found. Exit status 1 if there are faults.

    A subject with a fault is left out; a warning says what looks wrong by the anatomy or the files, and leaves out nobody.
    """
    from fedprivseg.core.config import DataConfig, label_orders, read_sites
    from fedprivseg.imaging.cohort import summarise
    from fedprivseg.imaging.datasets import dataset_of

    dataset = dataset_of(DataConfig(source=str(folder), format=form), folder)
    try:
        task = dataset.task(folder)
        orders = {} if sites is None else label_orders(read_sites(sites), task)
        with bar("reading subjects", open_console(stderr=True)) as progress:
            release = dataset.check(folder, progress, orders)
    except DataError as fault:
        raise DataError(f"{folder}: {fault}") from None
    rows = summarise(release)
    labels = ", ".join(f"{each.label} {each.name}" for each in task.structures)
    if as_json:
        faults, warnings = ([vars(each) for each in found] for found in (release.faults, release.warnings))
        said = {"format": dataset.name, "labels": {each.name: each.label for each in task.structures}}
        typer.echo(json.dumps({**said, "splits": [vars(row) for row in rows], "faults": faults, "warnings": warnings}))
    else:
        print_table(
            str(folder),
            ["centre", "split", "subjects", "labelled", "vendors", "spacing mm", "matrix", "slices", "labels"],
            [
                [
                    str(row.centre),
                    row.split,
                    str(row.subjects),
                    str(row.labelled),
                    ", ".join(row.vendors),
                    _span(row.spacing_min, row.spacing_max, ".2f"),
                    _span(row.matrix_min, row.matrix_max),
                    _span((row.slices_min,), (row.slices_max,)),
                    " ".join(map(str, row.labels or ())),
                ]
                for row in rows
            ],
        )
        for found in release.faults:
            typer.echo(f"fault: {found.code}: {found.what} ({found.file})")
        for warned in release.warnings:
            typer.echo(f"warning: {warned.code}: {warned.what} ({warned.file})")
        counts = ((len(release.faults), "fault"), (len(release.warnings), "warning"))
        told = ", ".join(f"{count} {name}{'s' * (count != 1)}" for count, name in counts)
        typer.echo(f"{dataset.title}, labels {labels}: {len(release.subjects)} subjects usable, {told}")
    if release.faults:
        raise typer.Exit(1)


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(help="Where the release goes; must be empty or absent.")],
    subjects: Annotated[int, typer.Option(min=2, help="Labelled subjects per centre.")] = 9,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same consortium.")] = 0,
    kind: Annotated[
        str,
        typer.Option(help="phantom: five centres of hearts, as an M&Ms release; phantom-brain: heads, as nnU-Net raw."),
    ] = "phantom",
) -> None:
    """Draw a made-up consortium into a folder."""
    from fedprivseg.imaging.sources import PHANTOMS, phantom_named

    chosen = phantom_named(kind)
    if chosen is None:
        known = ", ".join(each.name for each in PHANTOMS)
        raise RequestError(f"there is no phantom {kind!r}; the phantoms are: {known}")
    with bar("drawing subjects", open_console(stderr=True)) as progress:
        chosen.write(folder, subjects, seed, progress=progress)
    typer.echo(folder)


def _span(low: Sequence[float], high: Sequence[float], form: str = "d") -> str:
    """The range along each axis; one number where both ends read the same."""
    ends = [(format(a, form), format(b, form)) for a, b in zip(low, high, strict=True)]
    return " x ".join(a if a == b else f"{a}-{b}" for a, b in ends)


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
