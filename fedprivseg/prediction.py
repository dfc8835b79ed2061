"""Segment one image with a finished run: the site's vault encodes and decodes, the server's net maps code to code."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from fedprivseg.compute import threads
from fedprivseg.data.volumes import to_grid, write_mask
from fedprivseg.errors import DataError, RequestError
from fedprivseg.methods import resolve
from fedprivseg.records import Volume
from fedprivseg.results import read_result, read_scenario
from fedprivseg.site.bench import Bench
from fedprivseg.site.station import Station, station_folder


def predict_image(run: Path, image: Path, site: str, out: Path) -> tuple[int, ...]:
    """Write the mask of `image` (NIfTI, (X, Y, Z) or (X, Y, Z, T)) to `out`, on its grid and affine; returns its shape.

    Labels: 0 background, 1 LV, 2 MYO, 3 RV, uint8. Raises RequestError if the run, the site, the image or `out` is wrong.
    """
    read_result(run)
    scenario = read_scenario(run)
    names = [each.name for each in scenario.sites]
    if site not in names:
        raise RequestError(f"unknown site {site!r}; the sites of this run are: {', '.join(names)}")
    if not out.name.endswith((".nii", ".nii.gz")):
        raise RequestError(f"the mask's file name {out.name!r} must end in .nii or .nii.gz")
    frames, affine, flat = _read(image)
    method = resolve(scenario.method)
    bench = Bench(Station.read(station_folder(run, site) / "station.json"), scenario)
    masks = []
    with threads(scenario.resources.cpus):
        for frame in np.moveaxis(frames, -1, 0):
            volume = Volume(np.ascontiguousarray(frame), None, affine)
            slices, _ = to_grid(volume, bench.grid)
            masks.append(bench.labels(volume, method.predict(bench, run / "server", slices)))
    labels = masks[0] if flat else np.stack(masks, axis=-1)
    write_mask(out, labels, affine)
    return labels.shape


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, bool]:
    """The image as (X, Y, Z, T) float32, its affine, and whether it was 3-D."""
    try:
        image = nib.nifti1.Nifti1Image.from_filename(path)
        values = np.asarray(image.dataobj, np.float32)
    except FileNotFoundError:
        raise DataError(f"no such image: {path}") from None
    except (ImageFileError, OSError, EOFError, ValueError) as fault:
        raise DataError(f"{path} is no readable NIfTI image ({type(fault).__name__})") from None
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise DataError(f"{path} has shape {values.shape}; allowed are (X, Y, Z) and (X, Y, Z, T)")
    if not np.isfinite(values).all():
        raise DataError(f"{path} holds NaN or infinity; repair it first")
    return values if values.ndim == 4 else values[..., None], image.affine, values.ndim == 3
