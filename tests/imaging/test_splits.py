"""A site's own subjects: those of its centre, with the order of labels that it states."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedprivseg.core.config import DataConfig, SiteConfig
from fedprivseg.core.records import Grid
from fedprivseg.core.task import default_task
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.imaging.splits import COHORT, cohort, own_subjects
from fedprivseg.imaging.volumes import gridded_file, gridded_slices

GRID = Grid(48, 48, 4.0)
LOAD = partial(MnMs().load, task=default_task())
M_AND_MS = SiteConfig(name="centre1", centre=1)
ACDC = SiteConfig(name="centre1", centre=1, labels={1: "RV", 2: "MYO", 3: "LV"})


@pytest.fixture(scope="module")
def turned(phantom, tmp_path_factory) -> Path:
    """The phantom, the masks of centre 1 in the order of ACDC."""
    release = tmp_path_factory.mktemp("turned") / "release"
    shutil.copytree(phantom, release)
    for subject in MnMs().read(release).subjects:
        if subject.centre == 1:
            image = nib.load(subject.mask)
            mask = np.array([0, 3, 2, 1], np.uint8)[np.asarray(image.dataobj)]
            nib.Nifti1Image(mask, image.affine).to_filename(release / "mask.nii.gz")
            (release / "mask.nii.gz").replace(subject.mask)
    return release


def test_own_subjects_carry_the_stated_order(phantom):
    subjects = MnMs().read(phantom).subjects
    assert {one.order for one in own_subjects(subjects, M_AND_MS)} == {default_task().names}
    own = own_subjects(subjects, ACDC)
    assert {(one.centre, one.order) for one in own} == {(1, ("RV", "MYO", "LV"))}
    assert [one.code for one in own] == sorted(one.code for one in subjects if one.centre == 1)


def test_a_stated_order_gives_the_masks_that_the_release_s_order_gives(phantom, turned):
    """Training and measuring see one and the same: on the grid, and on the subject's own geometry."""
    right = cohort(MnMs().read(phantom).subjects, M_AND_MS, DataConfig())
    read = cohort(MnMs().read(turned).subjects, ACDC, DataConfig())
    one, other = (gridded_slices(LOAD, each.train, GRID, None) for each in (right, read))
    np.testing.assert_array_equal(one.masks, other.masks)
    np.testing.assert_array_equal(one.images, other.images)
    for phase, volume in MnMs().load(right.test[0], default_task()).items():
        np.testing.assert_array_equal(MnMs().load(read.test[0], default_task())[phase].mask, volume.mask)


def test_the_cache_keeps_orders_apart(turned, tmp_path):
    subjects = MnMs().read(turned).subjects
    stated, unstated = (own_subjects(subjects, site)[:1] for site in (ACDC, M_AND_MS))
    assert gridded_file(stated[0], GRID, tmp_path) != gridded_file(unstated[0], GRID, tmp_path)
    first = gridded_slices(LOAD, unstated, GRID, tmp_path).masks
    second = gridded_slices(LOAD, stated, GRID, tmp_path).masks
    np.testing.assert_array_equal(np.array([0, 3, 2, 1], np.uint8)[first], second)


def test_the_order_outlives_the_note_of_who_takes_part(turned):
    found = cohort(MnMs().read(turned).subjects, ACDC, DataConfig())
    assert COHORT.validate_json(COHORT.dump_json(found)) == found


def test_the_check_reads_each_centre_in_its_order(turned):
    unstated = MnMs().check(turned)
    assert {each.code for each in unstated.warnings} == {"label-order"}
    assert len(unstated.warnings) == 6  # three subjects, two phases
    assert MnMs().check(turned, orders={"1": ACDC.order}).warnings == ()
    assert {each.code for each in MnMs().check(turned, orders={"1": ACDC.order, "2": ACDC.order}).warnings} == {
        "label-order"
    }
