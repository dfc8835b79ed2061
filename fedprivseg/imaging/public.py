"""Public slices: a crowd of phantom patients, each on a scanner of its own, with no real patient among them.

Networks may start from them before any hospital has trained a step, and anybody can draw the same. Contrast, noise, shading,
voxels and the turn of the picture are drawn as widely as clinical scanners have them (domain randomisation: Tobin et al., IROS
2017; for segmentation Billot et al., Medical Image Analysis 86:102789, 2023), so that what is learned of them is the anatomy
and not a scanner.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedprivseg.core.arrays import load_arrays, save_arrays
from fedprivseg.core.cache import cache_folder
from fedprivseg.core.errors import DataError, FolderError
from fedprivseg.core.records import Grid, Slices
from fedprivseg.core.task import SegmentationTask
from fedprivseg.imaging.sources import PHANTOMS, Phantom
from fedprivseg.imaging.volumes import to_grid

SEED = 0
"""Of the crowd: it is the same for every run, whatever the run's own seed."""


def public_slices(
    task: SegmentationTask,
    grid: Grid,
    subjects: int,
    channel: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Slices:
    """Slices of `subjects` phantom patients of nowhere, on the network grid; drawn once, then kept in the cache.

    Args:
        task: whose structures are outlined.
        grid: of the network.
        subjects: how many; a tenth to half of a second each, unless they are in the cache.
        channel: of the image, where the phantom has several; empty: the first.
        progress: called with (subjects drawn, subjects in all).

    Returns:
        Images in steps of 1 / 255, masks, and whose each slice is.

    Raises:
        DataError: no phantom shows the structures of `task`.
        FolderError: the cache cannot be written.
    """
    phantom = phantom_of(task)
    path = cache_folder() / "public" / f"{crowd_sha256(task, grid, subjects, channel)}.safetensors"
    if path.exists():
        kept = load_arrays(path)
        return Slices(kept["images"].astype(np.float32) / 255, kept["masks"], kept["subjects"])
    images, masks, owners = [], [], []
    for index in range(subjects):
        for volume in phantom.passer_by(SEED, index, channel).values():
            image, mask = to_grid(volume, grid)
            assert mask is not None, "a phantom is outlined"
            images.append(np.rint(image * 255).astype(np.uint8))
            masks.append(mask)
            owners.append(np.full(len(image), index, np.int32))
        progress(index + 1, subjects)
    arrays = {"images": np.concatenate(images), "masks": np.concatenate(masks), "subjects": np.concatenate(owners)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(path, arrays)
    except OSError as fault:
        raise FolderError(f"the cache {path.parent} cannot be written ({fault.strerror})") from None
    return Slices(arrays["images"].astype(np.float32) / 255, arrays["masks"], arrays["subjects"])


def phantom_of(task: SegmentationTask) -> Phantom:
    """The phantom that shows the structures of `task` at its time points. Raises DataError if there is none."""
    for phantom in PHANTOMS:
        if (phantom.task.names, phantom.task.times) == (task.names, task.times):
            return phantom
    known = "; ".join(f"{', '.join(each.task.names)} ({each.title})" for each in PHANTOMS)
    raise DataError(
        f"no phantom shows {', '.join(task.names)}, so that nothing can start from one; phantoms show {known}"
    )


def crowd_sha256(task: SegmentationTask, grid: Grid, subjects: int, channel: str) -> str:
    """SHA-256 of all that decides the slices: the numbers asked for, and the code that draws them."""
    total = hashlib.sha256()
    here = Path(__file__).parent
    for path in (*sorted((here / "phantom").glob("*.py")), here / "volumes.py", here / "intensities.py"):
        total.update(path.read_bytes())
    asked = [SEED, task.names, task.times, grid.height, grid.width, float(grid.spacing), subjects, channel]
    total.update(json.dumps(asked).encode())
    return total.hexdigest()
