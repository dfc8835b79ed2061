"""Makes the public start of a run's networks before the first order, once for all runs of one recipe."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

from fedprivseg.core.arrays import load_arrays, save_arrays
from fedprivseg.core.cache import cache_folder
from fedprivseg.core.compute import device, threads
from fedprivseg.core.config import Scenario
from fedprivseg.core.files import whole
from fedprivseg.core.progress import ProgressFile
from fedprivseg.core.runfolder import ServerFolder
from fedprivseg.imaging.public import crowd_sha256, public_slices
from fedprivseg.methods import resolve
from fedprivseg.methods.public_start import PublicStart


def prepare_start(scenario: Scenario, server: ServerFolder) -> None:
    """Put the public start of the scenario's networks into the server's folder, if they have one and it is not there.

    It is trained if the cache has none of its recipe: about two minutes on two cores for a U-Net.

    Raises:
        DataError: no phantom shows the structures of the scenario's task.
        FolderError: the cache cannot be written, or is damaged.
    """
    start = resolve(scenario.method).public_start(scenario.scope)
    if start is None or server.start.exists():
        return
    server.path.mkdir(parents=True, exist_ok=True)
    kept = _kept(scenario, start)
    if not kept.exists():
        progress = ProgressFile(server.progress)
        with threads(scenario.resources.cpus):
            slices = public_slices(
                scenario.task,
                scenario.grid.grid(),
                start.subjects,
                scenario.data.channel,
                lambda done, total: progress("draw phantoms for the public start", done, total),
            )
            arrays = start.fit(slices, device(scenario.resources.gpus), progress)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(kept, arrays)
    load_arrays(kept, "Delete it: it is made again")
    with whole(server.start) as draft:
        shutil.copyfile(kept, draft)


def _kept(scenario: Scenario, start: PublicStart) -> Path:
    """Where the cache has it: the name is of the slices and the recipe."""
    crowd = crowd_sha256(scenario.task, scenario.grid.grid(), start.subjects, scenario.data.channel)
    content = [crowd, version("fedprivseg"), dict(start.recipe), scenario.resources.gpus > 0, scenario.resources.cpus]
    name = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "starts" / f"{name}.safetensors"
