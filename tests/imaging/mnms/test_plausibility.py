"""Masks judged by the anatomy: every order of labels is seen and named, and a sound heart raises nothing."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from fedprivseg.core.task import default_task
from fedprivseg.imaging.mnms.plausibility import STRUCTURES, implausible
from fedprivseg.imaging.mnms.release import MnMs

VOXEL_ML = 0.01


def heart(radius: float, slices: int = 5) -> np.ndarray:
    """(64, 64, slices) uint8: a disc of LV, a ring of myocardium 5 pixels wide, beside it an RV that touches the ring."""
    x, y = np.ogrid[:64, :64]
    away = np.hypot(x - 26, y - 32)
    mask = np.zeros((64, 64), np.uint8)
    mask[np.hypot(x - 44, y - 32) < 12] = 3
    mask[away < radius + 5] = 2
    mask[away < radius] = 1
    return np.repeat(mask[..., None], slices, axis=2)


def renamed(mask: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """`mask` as a file holds it whose labels 1, 2, 3 stand for `order`."""
    table = [0, *(order.index(name) + 1 for name in STRUCTURES)]
    return np.array(table, np.uint8)[mask]


def kinds(masks: dict[str, np.ndarray]) -> list[str]:
    return [doubt.kind for doubt in implausible(masks, VOXEL_ML)]


def test_a_heart_raises_nothing():
    assert kinds({"ED": heart(12), "ES": heart(8)}) == []


@pytest.mark.parametrize("order", [order for order in permutations(STRUCTURES) if order != STRUCTURES], ids="-".join)
def test_every_other_order_is_named(order):
    """Both phases are told, and the volumes are those of the label that the myocardium encloses: no second warning."""
    found = implausible({"ED": renamed(heart(12), order), "ES": renamed(heart(8), order)}, VOXEL_ML)
    assert [doubt.kind for doubt in found] == ["label-order", "label-order"]
    for phase, doubt in zip(("ED", "ES"), found, strict=True):
        assert doubt.what.startswith(f"{phase}: in 5 of 5 slices label ")
        assert f"the order looks like 1 {order[0]}, 2 {order[1]}, 3 {order[2]}" in doubt.what
        assert f'labels = {{ 1 = "{order[0]}", 2 = "{order[1]}", 3 = "{order[2]}" }}' in doubt.what
        assert ("that of ACDC" in doubt.what) == (order == ("RV", "MYO", "LV"))


def test_a_stated_order_that_is_wrong_is_said_of_the_file_s_labels():
    """A file in the order of M&Ms, read by a site that states ACDC's: the doubt names the labels as they stand in the file."""
    stated = ("RV", "MYO", "LV")
    read = renamed(heart(12), stated)  # this exchange is its own inverse: what is read is LV where the RV is
    (doubt,) = implausible({"ED": read}, VOXEL_ML, stated)
    assert "label 2 encloses label 1 " in doubt.what
    assert "looks like 1 LV, 2 MYO, 3 RV (that of M&Ms)" in doubt.what
    assert "it was read as 1 RV, 2 MYO, 3 LV" in doubt.what


def test_one_slice_in_another_order_is_seen():
    mask = heart(12)
    mask[..., 3] = renamed(mask[..., 3], ("RV", "MYO", "LV"))
    (doubt,) = implausible({"ED": mask, "ES": heart(8)}, VOXEL_ML)
    assert doubt.kind == "label-order"
    assert doubt.what.startswith("ED: in 1 of 5 slices label 2 encloses label 3")


def test_a_stray_speck_in_the_myocardium_is_no_order():
    mask = heart(12)
    mask[12, 32] = 3
    assert kinds({"ED": mask}) == []


def test_a_ring_with_a_gap_is_a_ring_and_half_a_ring_is_none():
    mask = heart(12)
    x, y = np.ogrid[:64, :64]
    gap, half = mask.copy(), mask.copy()
    gap[(mask == 2) & ((np.abs(y - 32) < 4) & (x < 26))[..., None]] = 0  # the outflow: a tenth of the way round
    half[(mask == 2) & (x < 26)[..., None]] = 0
    assert kinds({"ED": gap}) == []
    (doubt,) = implausible({"ED": half}, VOXEL_ML)
    assert doubt.kind == "open-myocardium"
    assert doubt.what.startswith("ED: myocardium makes 5")  # half of the way round, the pixels of the gap's edges apart


@pytest.mark.parametrize(("ed", "es", "expected"), [(12, 8, []), (8, 12, ["phase-order"]), (9, 9, ["phase-order"])])
def test_the_lv_is_larger_at_ed(ed, es, expected):
    assert kinds({"ED": heart(ed), "ES": heart(es)}) == expected


def test_volumes_are_in_ml():
    (doubt,) = implausible({"ED": heart(8), "ES": heart(12)}, 0.02)
    small, large = (int((heart(radius) == 1).sum()) * 0.02 for radius in (8, 12))
    assert f"{small:.0f} ml at ED and {large:.0f} ml at ES" in doubt.what


@pytest.mark.parametrize("label", [1, 2, 3])
def test_a_structure_that_is_not_there_is_named(label):
    mask = heart(12)
    mask[mask == label] = 0
    assert [(each.kind, each.what) for each in implausible({"ED": mask, "ES": heart(8)}, VOXEL_ML)] == [
        ("missing-structure", f"ED has no voxel of {STRUCTURES[label - 1]}")
    ]


def test_a_heart_at_the_edge_of_the_picture_is_judged_as_elsewhere():
    mask = heart(12)[9:, 15:50]  # the ring touches the edge
    assert kinds({"ED": mask}) == []


def test_nobody_without_masks_is_judged():
    assert implausible({}, VOXEL_ML) == ()


def test_no_phantom_raises_anything(phantom):
    release = MnMs().read(phantom)
    for subject in release.subjects:
        masks = {phase: volume.mask for phase, volume in MnMs().load(subject, default_task()).items()}
        assert implausible(masks, VOXEL_ML) == ()


@pytest.mark.parametrize("name", ["acdc-as-mnms", "mnms-six"])
def test_no_real_subject_raises_anything(real_data, name):
    if not (real_data / name).is_dir():
        pytest.skip(f"{name} is not here; set FEDPRIVSEG_DATA")
    assert MnMs().check(real_data / name).warnings == ()
