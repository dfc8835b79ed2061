"""Segment one image with a finished run: the site's vault encodes and decodes, the server's net maps code to code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from fedprivseg.core.compute import threads
from fedprivseg.core.errors import DataError, RequestError
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import Volume
from fedprivseg.core.results import NO_DICE, read_result, read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.imaging.geometry import FileFault, Geometry, Limits
from fedprivseg.imaging.nifti import intensities, opened
from fedprivseg.imaging.volumes import to_grid, write_mask
from fedprivseg.methods import resolve
from fedprivseg.runtime.site.likeness import PROFILE, numbers, unlike
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.runtime.site.site_runtime import SiteRuntime


@final
@dataclass(frozen=True)
class Warned:
    """One reason not to trust a mask. code: ``unlike-training``, ``no-profile``, ``untested``, ``near-zero-dice`` or
    ``empty-mask``. text: a sentence."""

    code: str
    text: str


@final
@dataclass(frozen=True)
class Prediction:
    """What was written. mask: the file. shape: its voxels along each axis, as the image's. warnings: why not to trust it."""

    mask: Path
    shape: tuple[int, ...]
    warnings: tuple[Warned, ...]


def predict_image(run: Path, image: Path, site: str, out: Path) -> Prediction:
    """Write the mask of `image` to `out`, with the image's own geometry: transforms, codes, units, order of axes.

    Args:
        run: the folder of a finished run.
        image: a single-file NIfTI, (X, Y, Z) or (X, Y, Z, T), of the channel that the run learned from. What `data check` calls
            a fault of an image is refused.
        site: at which site; its vault encodes and decodes.
        out: a .nii or .nii.gz; never the image itself, by whatever name. Labels are uint8: 0 background, then the task's.

    Raises RequestError if the run, the site, the image or `out` is wrong; then nothing is written.
    """
    read_result(run)
    scenario = read_scenario(run)
    names = [each.name for each in scenario.sites]
    if site not in names:
        raise RequestError(f"unknown site {site!r}; the sites of this run are: {', '.join(names)}")
    if site not in (finished := read_result(run).finished):
        raise RequestError(
            f"site {site!r} left the run and has no network of it; the sites that finished are: {', '.join(finished)}"
        )
    if not out.name.endswith((".nii", ".nii.gz")):
        raise RequestError(f"the mask's file name {out.name!r} must end in .nii or .nii.gz")
    if not image.is_file():
        raise DataError(f"no such image: {image}")
    if out.exists() and out.samefile(image):
        raise RequestError(f"{out} is the image itself, which the mask would replace; choose another file with --out")
    method = resolve(scenario.method)
    context = SiteContext(SiteConfiguration.read(RunFolder(run).site(site).configuration), scenario)
    bench = SiteRuntime(context)
    frames, geometry, is_3d = _read(image, context.dataset.limits)
    volumes = [Volume(frame, None, geometry.affine) for frame in frames]
    gridded = [to_grid(volume, bench.grid)[0] for volume in volumes]
    with threads(scenario.resources.cpus):
        masks = [
            bench.labels(volume, method.predict(bench, ModelStore(run / "server"), slices))
            for volume, slices in zip(volumes, gridded, strict=True)
        ]
    labels = geometry.stored(masks[0] if is_3d else np.stack(masks, axis=-1))
    warnings = (
        *_unlike(bench, geometry, np.concatenate(gridded)),
        *_untrustworthy(run, site),
        *([] if labels.any() else [Warned("empty-mask", "nothing was segmented: no voxel of the mask has a label")]),
    )
    write_mask(out, labels, geometry.header)
    return Prediction(out, labels.shape, warnings)


def _read(path: Path, limits: Limits) -> tuple[list[np.ndarray], Geometry, bool]:
    """The frames (X, Y, Z) float32 of an image, where they lie, and whether the file has three axes."""
    try:
        with opened(path, limits) as file:
            frames = [intensities(file.frame(number)) for number in range(file.frames)]
            file.read_to_the_end()
    except FileFault as fault:
        raise DataError(f"{path} has the fault {fault.code!r}: {fault.what}") from None
    return frames, file.geometry, file.is_3d


def _unlike(bench: SiteRuntime, geometry: Geometry, slices: np.ndarray) -> list[Warned]:
    """What of an image is unlike the site's training images."""
    if not bench.vault.has(PROFILE):
        text = f"{bench.name} keeps no record of what its training images are like, so this image was not compared with them"
        return [Warned("no-profile", text)]
    found = unlike(numbers(geometry, slices), bench.vault.load(PROFILE))
    start = f"the image is unlike the training images of {bench.name}: "
    return [Warned("unlike-training", start + "; ".join(found))] if found else []


def _untrustworthy(run: Path, site: str) -> list[Warned]:
    """What the run's own test says against it."""
    dice = read_result(run).sites[site].dice
    if dice.mean is None:
        return [Warned("untested", f"{site} had nobody to test on: how well this run segments there is not known")]
    lost = {name: value for name, value in dice.structures.items() if value is not None and value < NO_DICE}
    if not lost:
        return []
    told = ", ".join(f"{name} {value:.3f}" for name, value in lost.items())
    return [Warned("near-zero-dice", f"this run does not find every structure: its test Dice at {site} is {told}")]
