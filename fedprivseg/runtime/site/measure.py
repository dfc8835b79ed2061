"""What a site measures of its test subjects: in 3-D, on the original grid of their images, and what it keeps of that."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedprivseg.core.kinds import METRIC
from fedprivseg.core.measures import assd_mm, dice, hd95_mm
from fedprivseg.core.progress import ProgressFile
from fedprivseg.core.records import MEASURES, Grid, Payload, Volume
from fedprivseg.governance.sitefolder.vault import prediction_name
from fedprivseg.imaging.nifti import read_geometry
from fedprivseg.imaging.volumes import from_grid, write_mask
from fedprivseg.runtime.site.site_context import SiteContext


def labels_of(volume: Volume, scores: np.ndarray, grid: Grid) -> np.ndarray:
    """Class scores (Z, C, H, W) of one volume's slices as labels (X, Y, Z) uint8 on its own grid."""
    x, y, z = volume.image.shape
    return from_grid(np.asarray(scores, np.float32), (x, y, z), volume.spacing, grid)


def measured(site: SiteContext, scores: np.ndarray, grid: Grid, progress: ProgressFile, *, keep: bool) -> Payload:
    """Measure a segmentation of the test subjects.

    Args:
        site: the site.
        scores: (N, C, H, W), class scores of all test slices, subject by subject, in the order of the time points.
        grid: on which they are.
        progress: called for each subject.
        keep: whether the predictions are kept at the site.

    Returns:
        A METRIC payload: for each measure, values (subjects, time points, structures) float64, and ``<measure>_known`` uint8 of
        the same shape: 0 where the measure is undefined (a structure absent from truth, prediction or both).
    """
    people, times, structures = site.cohort.test, site.scenario.task.times, len(site.scenario.task.structures)
    values = {name: np.full((len(people), len(times), structures), np.nan) for name in MEASURES}
    start = 0
    for row, subject in enumerate(people):
        progress("measure", row, len(people))
        place = read_geometry(subject.image, site.dataset.limits)
        for time, volume in site.volumes(subject).items():
            column, depth = times.index(time), volume.image.shape[2]
            labels = labels_of(volume, scores[start : start + depth], grid)
            start += depth
            if keep:
                _keep(site, row, time, place.stored(labels), place.header)
            assert volume.mask is not None  # test subjects are labelled
            values["dice"][row, column] = dice(labels, volume.mask, structures)
            values["hd95_mm"][row, column] = hd95_mm(labels, volume.mask, volume.spacing, structures)
            values["assd_mm"][row, column] = assd_mm(labels, volume.mask, volume.spacing, structures)
    progress("measure", len(people), len(people))
    arrays: Mapping[str, np.ndarray] = {
        **{name: np.nan_to_num(value, nan=0.0, posinf=0.0) for name, value in values.items()},
        **{f"{name}_known": np.isfinite(value).astype(np.uint8) for name, value in values.items()},
    }
    return Payload(METRIC, site.name, "measure", arrays, level=2, history=("measure",))


def _keep(site: SiteContext, row: int, time: str, mask: np.ndarray, header: bytes) -> None:
    """Keep a mask, in the order of its image's file and with its geometry: encrypted where the vault is."""
    if site.vault.sealed:
        site.vault.save(prediction_name(row, time), {"mask": mask, "header": np.frombuffer(header, np.uint8)})
        return
    path = site.folder.predictions / f"{site.cohort.test[row].code}_{time}.nii.gz"
    path.parent.mkdir(exist_ok=True)
    write_mask(path, mask, header)
