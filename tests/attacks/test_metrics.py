"""How reconstructions are evaluated: references, normalisation, and measures against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import blocks

from fedprivseg.attacks.metrics import Truth, crops, evaluate, multiscale_ssim, per_subject, perceptual, rank1
from fedprivseg.core.seeds import numpy_generator

SIDE = 48


@pytest.fixture(scope="module")
def truth():
    slices = blocks(12, SIDE)
    return Truth(slices.images[:, None], slices.subjects, slices.masks, "images", "heart")


@pytest.fixture(scope="module")
def auxiliary():
    return blocks(20, SIDE, seed=1).images[:, None]


def _by_name(found, truth, auxiliary, **more):
    return {each.metric: each for each in evaluate(found, truth, auxiliary, **more)}


def test_the_picture_is_everything_and_the_mean_is_nothing(truth, auxiliary):
    everything = _by_name(truth.pictures, truth, auxiliary)
    for name in ("SSIM", "MS-SSIM", "SSIM, heart", "squared error", "features"):
        assert everything[name].leakage == pytest.approx(1, abs=1e-6), name
    assert everything["PSNR"].value == 60
    assert everything["PSNR"].leakage is None
    mean = np.broadcast_to(auxiliary.mean(axis=0), truth.pictures.shape).astype(np.float32)
    nothing = _by_name(mean, truth, auxiliary)
    for name in ("SSIM", "MS-SSIM", "SSIM, heart", "squared error", "features"):
        assert nothing[name].leakage == pytest.approx(0, abs=1e-6), name


def test_leakage_is_where_the_value_lies_between_the_baselines(truth, auxiliary):
    draws = numpy_generator(0, "x").standard_normal(truth.pictures.shape)
    metric = _by_name(np.clip(truth.pictures + 0.02 * draws, 0, 1).astype(np.float32), truth, auxiliary)["SSIM"]
    assert metric.leakage == pytest.approx((metric.value - metric.lower_baseline) / (1 - metric.lower_baseline))
    assert metric.low <= metric.value <= metric.high
    assert 0 < metric.leakage < 1


def test_values_are_means_over_subjects(truth):
    values = np.arange(12, dtype=float)
    values[4:8] = np.nan
    np.testing.assert_allclose(per_subject(values, truth.subjects), [1.5, np.nan, 9.5])


def test_own_decoder_and_nearest_neighbour_stand_beside(truth, auxiliary):
    metric = _by_name(truth.pictures, truth, truth.pictures, own=truth.pictures)["SSIM"]
    assert metric.neighbour == pytest.approx(1)
    assert metric.own_decoder == pytest.approx(1)
    assert _by_name(truth.pictures, truth, auxiliary)["SSIM"].own_decoder is None


def test_masks_are_evaluated_by_dice(truth):
    pictures = (truth.masks[:, None] == np.array([1, 2, 3])[:, None, None]).astype(np.float32)
    masks = Truth(pictures, truth.subjects, truth.masks, "masks", "heart")
    (metric,) = evaluate(pictures, masks, pictures)
    assert (metric.metric, metric.value) == ("Dice", 1.0)
    (nothing,) = evaluate(np.zeros_like(pictures), masks, pictures)
    assert nothing.value == 0


def test_the_right_patient_is_found_in_the_picture_and_not_in_noise(truth):
    pictures, owners = truth.pictures, truth.subjects
    assert rank1(pictures, pictures, owners, owners).all()
    noise = numpy_generator(0, "noise").random((300, 1, SIDE, SIDE))
    own = np.resize(owners, 300)
    assert rank1(noise, pictures, owners, own).mean() == pytest.approx(1 / 3, abs=0.12)


def test_crops_hold_the_subjects_heart(truth):
    masks = truth.masks.copy()
    masks[0] = 0
    boxes = crops(masks, truth.subjects)
    assert boxes[0] is None
    for box, mask in zip(boxes[1:], masks[1:], strict=True):
        assert (mask[box] > 0).sum() == (mask > 0).sum()
        assert min(mask[box].shape) >= 24


def test_multiscale_ssim_against_monais():
    from monai.losses.ssim_loss import SSIMLoss

    draws = numpy_generator(0, "pictures")
    one = draws.random((3, SIDE, SIDE))
    other = np.clip(one + 0.05 * draws.standard_normal(one.shape), 0, 1)
    # Geometric mean of MONAI's single-scale index over halved resolutions, as Wang 2003 with equal weights.
    values, a, b = 1.0, torch.from_numpy(one)[:, None], torch.from_numpy(other)[:, None]
    for scale in range(3):
        index = 1 - SSIMLoss(2, win_size=11, kernel_type="gaussian", reduction="none")(a, b).reshape(3, -1).mean(dim=1)
        values = values * index ** (1 / 3)
        if scale < 2:
            a, b = torch.nn.functional.avg_pool2d(a, 2), torch.nn.functional.avg_pool2d(b, 2)
    np.testing.assert_allclose(multiscale_ssim(one, other), values, rtol=1e-3)


def test_the_perceptual_distance_grows_with_the_change():
    one = blocks(4, SIDE).images
    draws = numpy_generator(0, "y").standard_normal(one.shape)
    small, large = (perceptual(one, np.clip(one + s * draws, 0, 1).astype(np.float32)) for s in (0.05, 0.4))
    np.testing.assert_allclose(perceptual(one, one), 0)
    assert (small < large).all()
