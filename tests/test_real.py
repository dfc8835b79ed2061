"""Real cardiac MRI goes all the way: check, run, predict. Skipped where no real data lies (see README, 'Test it')."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from conftest import tiny_settings

from fedprivseg.imaging.cohort import summarise
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.study.predict import predict_image
from fedprivseg.study.run import load_scenario, simulate

BRIEF = ["method.parameters.image_steps=3", "method.parameters.mask_steps=3", "method.parameters.mapping_steps=3"]


@pytest.fixture(scope="module")
def six(real_data):
    folder = real_data / "mnms-six"
    if not folder.is_dir():
        pytest.skip("no mnms-six among the real data")
    return folder


def test_six_genuine_subjects_have_no_faults(six):
    release = MnMs().check(six)
    assert release.faults == ()
    assert {row.centre for row in summarise(release)} == {1, 2, 3, 4}
    assert sum(row.subjects for row in summarise(release)) == 6


def test_six_genuine_subjects_run_and_predict(six, quickstart, tmp_path):
    """Two centres have a single subject, so they train and have nothing to measure; the others have one to test."""
    settings = [
        *tiny_settings(six),
        *BRIEF,
        'sites=["centre1", "centre2", "centre3", "centre4"]',
        'data.split="by-patient"',
        "data.test_fraction=0.5",
    ]
    result = simulate(load_scenario(quickstart, settings), tmp_path / "run")
    counts = {name: (site.subjects_train, site.subjects_test) for name, site in result.sites.items()}
    assert counts == {"centre1": (1, 1), "centre2": (1, 0), "centre3": (1, 0), "centre4": (1, 1)}
    assert all(site.status == "ok" for site in result.sites.values())
    assert result.sites["centre2"].dice.mean is None
    assert result.overall_dice is not None
    image = next(six.glob("Testing/*/*_sa.nii.gz"))
    shape = predict_image(tmp_path / "run", image, "centre4", tmp_path / "mask.nii.gz").shape
    source, mask = nib.load(image), nib.load(tmp_path / "mask.nii.gz")
    assert shape == source.shape == mask.shape
    np.testing.assert_allclose(mask.affine, source.affine, atol=1e-4)
