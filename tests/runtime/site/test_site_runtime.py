"""What a site makes of its images and keeps: predictions lie on the images, however these are stored."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.imaging.splits import Cohort
from fedprivseg.runtime.site.likeness import PROFILE
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.study.ground_truth import ground_truth
from fedprivseg.study.run import _prepare


@pytest.fixture
def bench(tmp_path, tiny_scenario, phantom) -> SiteRuntime:
    """A site one of whose test images is stored slices first, without a transform; its mask is not."""
    release = shutil.copytree(phantom, tmp_path / "release")
    for path in release.glob("Testing/*/*_sa.nii.gz"):
        image = nib.load(path)
        turned = nib.Nifti1Image(np.asarray(image.dataobj).transpose(2, 0, 1, 3), image.affine[:, [2, 0, 1, 3]])
        turned.header["sform_code"] = 0
        nib.Nifti1Image(np.asarray(turned.dataobj), None, turned.header).to_filename(path)
    nobody = {site.name: Cohort((), ()) for site in tiny_scenario.sites}
    _prepare(tmp_path / "run", tiny_scenario, release, nobody)
    configuration = SiteConfiguration.read(tmp_path / "run/sites/centre1/station.json")
    return SiteRuntime(SiteContext(configuration, tiny_scenario))


def test_a_prediction_has_its_images_order_of_axes_and_header(bench: SiteRuntime, tmp_path: Path) -> None:
    truth = ground_truth(bench, "test")
    people = truth.people
    scores = np.moveaxis(np.eye(4, dtype=np.float32)[truth.masks], -1, 1)
    bench.measure(scores)
    for path in (tmp_path / "run/sites/centre1/predictions").glob("*_ED.nii.gz"):
        (one,) = (each for each in people if path.name.startswith(each.code))
        mask, image = SimpleITK.ReadImage(path), SimpleITK.ReadImage(one.image)
        assert mask.GetSize() == image.GetSize()[:3]
        assert mask.GetSize()[0] < 20  # slices first, as in the image
        assert (mask.GetOrigin(), mask.GetSpacing()) == (image.GetOrigin()[:3], image.GetSpacing()[:3])
        predicted = np.asarray(nib.load(path).dataobj).transpose(1, 2, 0) > 0
        known = np.asarray(nib.load(one.mask).dataobj[..., one.frames["ED"]]) > 0
        # The truth itself went through a grid of 6 mm; a mask in another order would meet it by chance.
        assert 2 * (predicted & known).sum() / (predicted.sum() + known.sum()) > 0.9


def test_what_training_images_are_like_stays_in_the_vault(bench: SiteRuntime) -> None:
    bench.training()
    kept = bench.vault.load(PROFILE)
    assert kept["slices"].tolist() == pytest.approx([10, 10])  # mm, of the phantom's centre 1
    assert all(low <= high for low, high in kept.values())
