"""Where a scenario's images come from: a folder, or a phantom that is drawn into the cache.

Adding a phantom is its file and one entry in `PHANTOMS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, final

from fedprivseg.core.cache import cache_folder
from fedprivseg.core.config import DataConfig, SiteConfig
from fedprivseg.core.errors import DataError, FolderError
from fedprivseg.core.records import Subject, Volume
from fedprivseg.core.task import SegmentationTask, default_task
from fedprivseg.imaging.dataset import Dataset
from fedprivseg.imaging.datasets import dataset_of
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.imaging.nnunet import NnUNet
from fedprivseg.imaging.phantom import brain, consortium
from fedprivseg.imaging.phantom.consortium import CENTRES, announced, write_phantom


@final
@dataclass(frozen=True)
class Phantom:
    """A made-up consortium, drawn into the cache when it is first needed.

    Attributes:
        name: ``data.source`` in a scenario, and the beginning of its folder's name.
        title: in words.
        task: what it is labelled for.
        dataset: the layout in which it is written.
        write: ``write(folder, subjects, seed, centres=..., progress=...)``.
        announced: ``announced(subjects, seed, centres)``, whom that would write.
        passer_by: ``passer_by(seed, index, channel)``, a patient of no centre by time point, on a scanner of its own.
        centres: the centres that it has; None: whatever is asked for.
    """

    name: str
    title: str
    task: SegmentationTask
    dataset: type[Dataset]
    write: Callable[..., Path]
    announced: Callable[[int, int, Sequence[Any]], tuple[Subject, ...]]
    passer_by: Callable[[int, int, str], dict[str, Volume]]
    centres: tuple[int, ...] | None = None


PHANTOMS: tuple[Phantom, ...] = (
    Phantom(
        name="phantom",
        title="hearts, as an M&Ms release",
        task=default_task(),
        dataset=MnMs,
        write=write_phantom,
        announced=announced,
        passer_by=lambda seed, index, channel: consortium.passer_by(seed, index),
        centres=tuple(CENTRES),
    ),
    Phantom(
        name="phantom-brain",
        title="heads with a lesion, as nnU-Net raw",
        task=brain.TASK,
        dataset=NnUNet,
        write=brain.write_brains,
        announced=brain.announced_brains,
        passer_by=brain.passer_by,
    ),
)


def phantom_named(name: str) -> Phantom | None:
    """The phantom that a scenario calls `name`; None for the folder of a release."""
    return next((phantom for phantom in PHANTOMS if phantom.name == name), None)


def format_and_task(data: DataConfig) -> tuple[str, SegmentationTask]:
    """The layout of a scenario's images, and what they are labelled for. Raises DataError if a release does not say."""
    if phantom := phantom_named(data.source):
        return phantom.dataset.name, phantom.task
    folder = Path(data.source)
    dataset = dataset_of(data, folder)
    return dataset.name, dataset.task(folder)


def release_place(data: DataConfig, sites: Sequence[SiteConfig]) -> Path:
    """Where the images are, or where the phantom will be. Raises DataError for a centre that the phantom lacks."""
    phantom = phantom_named(data.source)
    if phantom is None:
        return Path(data.source).resolve()
    centres = _centres(sites)
    if phantom.centres is not None and (unknown := [each for each in centres if each not in phantom.centres]):
        raise DataError(f"the phantom has no centre {unknown[0]}; it has {', '.join(map(str, phantom.centres))}")
    drawn = f"{phantom.name}-{version('fedprivseg')}-{drawn_by()}"
    return cache_folder() / f"{drawn}-{data.subjects}-{data.seed}-{'-'.join(map(str, centres))}"


@cache
def drawn_by() -> str:
    """What draws the phantoms, as 8 hex digits of the SHA-256 of its source: what other code drew is another phantom, also
    under the same version of the package."""
    sources = sorted(files("fedprivseg.imaging.phantom").iterdir(), key=lambda each: each.name)
    found = hashlib.sha256()
    for source in sources:
        if source.name.endswith(".py"):
            found.update(source.name.encode() + source.read_bytes())
    return found.hexdigest()[:8]


def drawn_release(
    data: DataConfig, sites: Sequence[SiteConfig], progress: Callable[[int, int], None] | None = None
) -> Path:
    """`release_place`, with the phantom drawn if it is not there: half a second a subject."""
    folder, phantom = release_place(data, sites), phantom_named(data.source)
    if phantom is not None and not folder.exists():
        try:
            phantom.write(folder, data.subjects, data.seed, centres=_centres(sites), progress=progress)
        except FolderError:
            if not folder.exists():  # otherwise another process has drawn the same meanwhile
                raise
    return folder.resolve()


def _centres(sites: Sequence[SiteConfig]) -> list[int | str]:
    """The centres of `sites`, each once and in order: numbers first."""
    return sorted({site.place for site in sites}, key=lambda place: (isinstance(place, str), place))
