"""What every method keeps, on three phantom sites: a method joins by standing in METHODS."""

from __future__ import annotations

import numpy as np
import pytest

from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.methods import METHODS
from fedprivseg.testing import MethodContract


def _by_itk(mask, image):
    """An independent reader puts both in one place; the image has a fourth axis, which is time."""
    import SimpleITK

    one, other = SimpleITK.ReadImage(mask), SimpleITK.ReadImage(image)
    assert one.GetOrigin() == other.GetOrigin()[:3]
    assert one.GetSpacing() == other.GetSpacing()[:3]
    assert np.reshape(one.GetDirection(), (3, 3)).tolist() == np.reshape(other.GetDirection(), (4, 4))[:3, :3].tolist()
    corner = [size - 1 for size in one.GetSize()]
    assert one.TransformIndexToPhysicalPoint(corner) == other.TransformIndexToPhysicalPoint([*corner, 0])[:3]


class TestMethods(MethodContract):
    parts = METHODS

    @pytest.fixture(scope="session")
    @classmethod
    def release(cls, phantom):
        return phantom

    def test_predictions_lie_at_the_site_on_the_original_grid(self, finished, phantom):
        import nibabel as nib

        by_code = {subject.code: subject for subject in MnMs().read(phantom).subjects}
        for name, site in finished.result.sites.items():
            paths = sorted((finished.folder / "sites" / name / "predictions").glob("*.nii.gz"))
            assert len(paths) == 2 * site.subjects_test
            for path in paths:
                mask, image = nib.load(path), nib.load(by_code[path.name.split("_")[0]].image)
                assert mask.shape == image.shape[:3]
                np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
                _by_itk(path, by_code[path.name.split("_")[0]].image)
