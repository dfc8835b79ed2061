"""A site's own subjects: those of its centre, with the order of labels that it states."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprivseg.core.config import DataConfig, SiteConfig
from fedprivseg.core.records import Grid, Subject
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


def _subjects(count: int) -> list[Subject]:
    """Labelled subjects of centre 1, of all three sides of a release, and one without labels."""
    own = [
        Subject(f"P{n:03d}", 1, ("train", "val", "test")[n % 3], n < count, {"ED": 0}, Path("a"), None, ("LV",))
        for n in range(count + 1)
    ]
    return [*own, replace(own[0], code="X", centre=2)]


@given(st.integers(2, 40), st.integers(2, 8), st.integers(0, 9))
def test_over_all_folds_each_subject_is_tested_once(count, folds, seed):
    parts = [
        cohort(_subjects(count), M_AND_MS, DataConfig(split="folds", folds=folds, fold=fold, seed=seed))
        for fold in range(folds)
    ]
    tested = [one.code for part in parts for one in part.test]
    assert sorted(tested) == [f"P{n:03d}" for n in range(count)]
    sides = [({one.code for one in part.train}, {one.code for one in part.test}) for part in parts]
    assert all(train | test == {*tested} and not train & test for train, test in sides)
    sizes = [len(part.test) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert [[one.code for one in part.test] for part in parts] == [
        sorted(one.code for one in part.test) for part in parts
    ]


def test_a_partition_is_that_of_its_seed():
    def tested(**changes):
        return [one.code for one in cohort(_subjects(12), M_AND_MS, DataConfig(split="folds", **changes)).test]

    assert tested() == tested()
    assert len(tested()) == 3
    assert tested(seed=1) != tested()


def test_few_subjects_are_some_of_those_that_would_train():
    """Two are among four of the same seed, who tests stays, and over all folds everybody is somewhere."""

    def of(**changes):
        return cohort(_subjects(12), M_AND_MS, DataConfig(split="folds", **changes))

    def codes(*sides):
        return {one.code for side in sides for one in side}

    for fold in range(4):
        every, four, two = (of(fold=fold, most_training=most) for most in (None, 4, 2))
        assert (len(two.train), len(four.train), len(every.aside)) == (2, 4, 0)
        assert codes(two.train) < codes(four.train) < codes(every.train)
        assert two.test == four.test == every.test
        assert codes(two.train, two.test, two.aside) == codes(every.train, every.test)
        bare = of(fold=fold, unlabelled=("centre1",))
        assert (bare.train, bare.test, bare.aside) == ((), every.test, every.train)


def test_a_fold_beyond_the_last_is_refused():
    with pytest.raises(ValueError, match="of 4 folds it is 0 to 3"):
        DataConfig(split="folds", fold=4)


def test_folds_of_real_subjects(real_data):
    """24 training and 9 test subjects of three centres: 33 over four folds."""
    subjects = MnMs().read(real_data / "acdc-as-mnms").subjects
    sites = [SiteConfig(name=f"centre{n}", centre=n) for n in (1, 2, 3)]
    tested = [
        (site.name, one.code)
        for fold in range(4)
        for site in sites
        for one in cohort(subjects, site, DataConfig(split="folds", fold=fold)).test
    ]
    assert len(tested) == len({*tested}) == 33
