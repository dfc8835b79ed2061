"""One scan under two codes is found however it was stored, and two scans are two."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from fedprivseg.imaging.duplicates import fingerprint, opening, together
from fedprivseg.imaging.mnms.release import SHORT_AXIS_CINE


def save(path: Path, voxels: np.ndarray, descrip: str = "") -> Path:
    image = nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 8, 1]))
    image.header["descrip"] = descrip.encode()
    image.to_filename(path)
    return path


def voxels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2000, (40, 36, 4, 3), dtype=np.int16)


def test_type_header_and_cut_change_no_opening(tmp_path):
    first = opening(save(tmp_path / "a.nii.gz", voxels()), 1, SHORT_AXIS_CINE)
    assert opening(save(tmp_path / "b.nii.gz", voxels().astype(np.float32), "another"), 1, SHORT_AXIS_CINE) == first
    assert opening(save(tmp_path / "c.nii.gz", voxels()[..., 1:2]), 0, SHORT_AXIS_CINE) == first
    assert (
        opening(save(tmp_path / "d.nii.gz", voxels()[:, :, :3]), 1, SHORT_AXIS_CINE) != first
    )  # fewer slices are another stack
    assert opening(save(tmp_path / "e.nii.gz", voxels(1)), 1, SHORT_AXIS_CINE) != first
    assert opening(tmp_path / "a.nii.gz", 2, SHORT_AXIS_CINE) != first


def test_a_fingerprint_is_of_shape_and_values():
    image = voxels()[..., 0].astype(np.float32)
    assert fingerprint(image) == fingerprint(np.asfortranarray(image.astype(np.float64)))
    changed = image.copy()
    changed[-1, -1, -1] += 1
    assert (
        len({fingerprint(each) for each in (image, changed, image.transpose(1, 0, 2), image.reshape(36, 40, 4))}) == 4
    )


def test_groups_are_of_those_who_share_a_mark():
    marks = {
        "e": {"4"},
        "d": {"3"},
        "c": {"2", "3"},
        "b": {"1", "2"},
        "a": {"1"},
        "f": set(),
        "g": {"5"},
        "h": {"5", "6"},
    }
    assert together(marks) == (("a", "b", "c", "d"), ("g", "h"))
    assert together({}) == ()
