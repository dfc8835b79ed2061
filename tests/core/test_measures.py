"""Measures against hand-made numbers and independent implementations."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fedprivseg.core.measures import (
    assd_mm,
    auc,
    auc_interval,
    dice,
    hd95_mm,
    mean_interval,
    psnr,
    share_interval,
    ssim,
    tpr_at,
)
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.core.task import default_task
from fedprivseg.imaging.mnms.release import MnMs

REAL = Path(os.environ.get("FEDPRIVSEG_DATA") or Path(__file__).resolve().parents[2] / ".." / "shared" / "data")
SPACING = (1.2, 1.4, 9.6)


def blobs(seed: int, shape: tuple[int, int, int] = (14, 12, 5)) -> np.ndarray:
    """Labels in random boxes, some on the border of the volume; all three are there."""
    generator = np.random.default_rng(seed)
    volume = np.zeros(shape, dtype=np.uint8)
    for label in (1, 2, 3, 1, 2, 3):
        start = [int(generator.integers(0, size)) for size in shape]
        stop = [first + int(generator.integers(1, 6)) for first in start]
        volume[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]] = label
    volume[0, 0, 0], volume[1, 0, 0], volume[-1, -1, -1] = 1, 2, 3
    return volume


def surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of `mask` with a face neighbour outside it, the slow way: (n, 3) indices."""
    padded = np.pad(mask, 1)
    found = []
    for voxel in np.argwhere(mask):
        x, y, z = voxel + 1
        steps = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
        if not all(padded[x + a, y + b, z + c] for a, b, c in steps):
            found.append(voxel)
    return np.array(found)


def test_dice_by_hand() -> None:
    prediction = np.array([[[1, 1, 1, 0], [2, 2, 0, 0]]])
    truth = np.array([[[1, 1, 0, 0], [0, 2, 2, 2]]])
    # LV: 2 * 2 / (3 + 2). MYO: 2 * 1 / (2 + 3). RV: in neither.
    np.testing.assert_array_equal(dice(prediction, truth, 3), [0.8, 0.4, np.nan])
    assert dice(prediction, truth, 3).dtype == np.float64


def test_a_missed_structure_has_dice_zero_and_no_distance() -> None:
    truth, prediction = np.zeros((5, 5, 3), dtype=np.uint8), np.zeros((5, 5, 3), dtype=np.uint8)
    truth[1:3, 1:3] = 1
    prediction[1:3, 1:3] = 3
    np.testing.assert_array_equal(dice(prediction, truth, 3), [0, np.nan, 0])
    for measure in (hd95_mm, assd_mm):
        assert np.isnan(measure(prediction, truth, SPACING, 3)).all()


def test_distances_by_hand() -> None:
    """Two single voxels 2, 1 and 1 steps apart: sqrt((2 * 1.2)^2 + 1.4^2 + 9.6^2) = sqrt(99.88)."""
    one, other = np.zeros((6, 6, 3), dtype=np.uint8), np.zeros((6, 6, 3), dtype=np.uint8)
    one[1, 2, 0] = other[3, 3, 1] = 2
    for measure in (hd95_mm, assd_mm):
        np.testing.assert_allclose(measure(one, other, SPACING, 3), [np.nan, np.sqrt(99.88), np.nan])


def test_equal_volumes() -> None:
    volume = blobs(3)
    np.testing.assert_array_equal(dice(volume, volume, 3), 1)
    np.testing.assert_array_equal(hd95_mm(volume, volume, SPACING, 3), 0)
    np.testing.assert_array_equal(assd_mm(volume, volume, SPACING, 3), 0)


@given(seed=st.integers(0, 10**6), other=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_distances_against_brute_force(seed: int, other: int) -> None:
    """All pairs of surface voxels, in mm."""
    prediction, truth = blobs(seed), blobs(other)
    for label in (1, 2, 3):
        there, back = surface(prediction == label) * SPACING, surface(truth == label) * SPACING
        pairs = cdist(there, back)
        nearest = pairs.min(axis=1), pairs.min(axis=0)
        expected = max(np.percentile(part, 95) for part in nearest)
        assert hd95_mm(prediction, truth, SPACING, 3)[label - 1] == pytest.approx(expected)
        assert assd_mm(prediction, truth, SPACING, 3)[label - 1] == pytest.approx(np.concatenate(nearest).mean())


def monai_distances(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float]) -> tuple:
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    one, other = (
        torch.from_numpy(np.stack([array == label for label in (1, 2, 3)])[None]) for array in (prediction, truth)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 calls itself with an argument it has deprecated
        hausdorff = compute_hausdorff_distance(
            one, other, include_background=True, percentile=95, spacing=list(spacing)
        )
        average = compute_average_surface_distance(
            one, other, include_background=True, symmetric=True, spacing=list(spacing)
        )
    return hausdorff[0].numpy(), average[0].numpy()


def test_distances_against_monai() -> None:
    for seed in range(4):
        prediction, truth = blobs(seed), blobs(seed + 100)
        hausdorff, average = monai_distances(prediction, truth, SPACING)
        np.testing.assert_allclose(hd95_mm(prediction, truth, SPACING, 3), hausdorff, rtol=1e-5)
        np.testing.assert_allclose(assd_mm(prediction, truth, SPACING, 3), average, rtol=1e-5)


def test_distances_against_monai_on_a_real_heart() -> None:
    if not (REAL / "mnms-six").is_dir():
        pytest.skip("mnms-six is not here; set FEDPRIVSEG_DATA")
    phases = MnMs().load(MnMs().read(REAL / "mnms-six").subjects[0], default_task())
    spacing = phases["ED"].spacing
    hausdorff, average = monai_distances(phases["ED"].mask, phases["ES"].mask, spacing)
    np.testing.assert_allclose(hd95_mm(phases["ED"].mask, phases["ES"].mask, spacing, 3), hausdorff, rtol=1e-5)
    np.testing.assert_allclose(assd_mm(phases["ED"].mask, phases["ES"].mask, spacing, 3), average, rtol=1e-5)


def pictures(noise: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 3, 40), np.linspace(0, 2, 33), indexing="ij")
    clean = np.stack([0.5 + 0.5 * np.sin(3 * x + shift) * np.cos(2 * y) for shift in (0, 1, 2)])
    noisy = np.clip(clean + noise * generator.standard_normal(clean.shape), 0, 1)
    return noisy.astype(np.float32), clean.astype(np.float32)


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])
def test_ssim_against_scikit_image(noise: float) -> None:
    images, references = pictures(noise)
    expected = [
        structural_similarity(
            *(one.astype(np.float64), other.astype(np.float64)),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for one, other in zip(images, references, strict=True)
    ]
    np.testing.assert_allclose(ssim(images, references), expected, rtol=1e-9)


def test_ssim_against_monai() -> None:
    from monai.metrics import SSIMMetric

    images, references = pictures(0.1)
    expected = SSIMMetric(spatial_dims=2)(torch.from_numpy(images)[:, None], torch.from_numpy(references)[:, None])
    np.testing.assert_allclose(ssim(images, references), expected[:, 0], atol=1e-4)  # MONAI computes in float32


def test_ssim_of_equal_images_is_one() -> None:
    _, references = pictures(0)
    np.testing.assert_allclose(ssim(references, references), 1)
    flat = np.zeros((1, 11, 11), dtype=np.float32)
    np.testing.assert_allclose(ssim(flat, flat), 1)
    with pytest.raises(ValueError, match="at least 11"):
        ssim(flat[:, 1:], flat[:, 1:])


def test_psnr() -> None:
    images, references = pictures(0.1)
    expected = [
        peak_signal_noise_ratio(other.astype(np.float64), one.astype(np.float64), data_range=1.0)
        for one, other in zip(images, references, strict=True)
    ]
    np.testing.assert_allclose(psnr(images, references), expected)
    # An error of 0.1 everywhere: 10 log10(1 / 0.01) = 20 dB.
    np.testing.assert_allclose(psnr(np.full((1, 4, 4), 0.6), np.full((1, 4, 4), 0.5)), 20)
    assert psnr(references, references).tolist() == [np.inf] * 3


def test_shapes_must_agree() -> None:
    one, other = np.zeros((12, 12, 2)), np.zeros((12, 12, 3))
    for refused in (
        lambda: dice(one, other, 3),
        lambda: hd95_mm(one, other, SPACING, 3),
        lambda: psnr(one, other),
        lambda: ssim(one, other),
        lambda: dice(one[0], one[0], 3),
    ):
        with pytest.raises(ValueError, match="equal shapes"):
            refused()


def test_the_share_of_single_cases_has_the_exact_interval() -> None:
    """7 of 10: Clopper and Pearson, 0.3475 to 0.9333, as any table of theirs has it; scipy's is another implementation."""
    hits = np.arange(10) < 7
    oracle = scipy.stats.binomtest(7, 10).proportion_ci(method="exact")
    assert share_interval(hits, np.arange(10)) == pytest.approx((oracle.low, oracle.high))
    assert share_interval(hits, np.arange(10)) == pytest.approx((0.3475, 0.9333), abs=1e-4)


def test_where_all_cases_agree_the_groups_count() -> None:
    """8 groups of 20 hits each: as 8 of 8, whose lower end is 0.025 ** (1 / 8)."""
    owners = np.repeat(np.arange(8), 20)
    assert share_interval(np.ones(160, dtype=bool), owners) == pytest.approx((0.025 ** (1 / 8), 1.0))
    assert share_interval(np.zeros(160, dtype=bool), owners) == pytest.approx((0.0, 1 - 0.025 ** (1 / 8)))
    assert np.isnan(share_interval(np.ones(20, dtype=bool), np.zeros(20))).all()


@pytest.mark.parametrize("spread", [0.0, 1.0, 2.0])
def test_the_interval_of_a_share_covers_it_where_slices_of_a_patient_are_alike(spread: float) -> None:
    """8 patients of 12 slices; each patient's own share is a normal number, of this spread, through the logistic function."""
    draws, covered, trials = numpy_generator(0, "shares", int(spread)), 0, 600
    grid = np.linspace(-8, 8, 4001)
    weight = np.exp(-(grid**2) / 2)
    truth = float((weight / (1 + np.exp(-(spread * grid + 1)))).sum() / weight.sum())
    owners = np.repeat(np.arange(8), 12)
    for _ in range(trials):
        own = 1 / (1 + np.exp(-(1 + spread * draws.normal(size=8))))
        low, high = share_interval(draws.random(96) < own[owners], owners)
        covered += low <= truth <= high
    assert covered / trials >= 0.93


def test_the_interval_of_an_area_under_the_curve() -> None:
    """At 0 and 1 it has a width still. At 1, Newcombe's equation for the other end a is, with N = (m + n) / 2 - 1,
    1 - a = z^2 a (1 + N (1 - a) / (2 - a) + N a / (1 + a)) / (m n). With the roles exchanged it is turned over."""
    low, high = auc_interval(1.0, 8, 3)
    usual = 4.5
    assert high == 1.0
    assert 1 - low == pytest.approx(
        1.959964**2 * low * (1 + usual * (1 - low) / (2 - low) + usual * low / (1 + low)) / 24, rel=1e-6
    )
    assert auc_interval(0.0, 3, 8) == pytest.approx((0.0, 1 - low))
    assert auc_interval(0.3, 5, 5) == pytest.approx(tuple(1 - end for end in auc_interval(0.7, 5, 5)[::-1]))


@pytest.mark.parametrize(("truth", "sizes"), [(0.5, (8, 3)), (0.75, (8, 3)), (0.9, (24, 9)), (0.95, (8, 3))])
def test_the_interval_of_an_area_covers_it(truth: float, sizes: tuple[int, int]) -> None:
    """Two normal numbers whose means lie d apart have an area of the normal distribution at d / sqrt(2)."""
    draws, covered, trials = numpy_generator(0, "areas", *sizes), 0, 600
    apart = float(scipy.stats.norm.ppf(truth)) * np.sqrt(2)
    for _ in range(trials):
        value = auc(draws.normal(apart, 1, sizes[0]), draws.normal(0, 1, sizes[1]))
        low, high = auc_interval(value, *sizes)
        covered += low <= truth <= high
    assert covered / trials >= 0.93


def test_auc_is_mann_whitney() -> None:
    draws = numpy_generator(0, "auc")
    for _ in range(10):
        one, other = draws.integers(0, 6, 9).astype(float), draws.integers(0, 5, 7).astype(float)
        oracle = scipy.stats.mannwhitneyu(one, other).statistic / (len(one) * len(other))
        assert auc(one, other) == pytest.approx(oracle)
    assert np.isnan(auc(np.empty(0), np.ones(2)))


def test_tpr_at_a_low_fpr_lets_no_more_negatives_pass() -> None:
    negative = np.arange(100.0)
    # One of 100 negatives may pass, 99: the threshold is 98, and two of the three positives are above it.
    assert tpr_at(np.array([98.0, 98.5, 200.0]), negative, 0.01) == pytest.approx(2 / 3)
    # None may: only what is above 99 counts.
    assert tpr_at(np.array([98.0, 98.5, 200.0]), negative, 0.001) == pytest.approx(1 / 3)
    assert np.isnan(tpr_at(np.ones(2), np.empty(0), 0.01))


def _coverage(draw, truth: float, sizes: tuple[int, ...], trials: int = 4000) -> float:
    """How often the interval of the mean of the sites' means holds the truth. draw: (trials, site, size) -> values."""
    hits = 0
    strata = [draw(site, (trials, size)) for site, size in enumerate(sizes)]
    for trial in range(trials):
        low, high = mean_interval([each[trial] for each in strata])
        hits += low <= truth <= high
    return hits / trials


@pytest.mark.parametrize("sizes", [(3, 3, 3), (11, 11, 11), (5, 2, 2), (15, 12, 6)], ids=str)
@pytest.mark.parametrize("shape", ["normal", "beta", "unequal"])
def test_a_nominal_interval_of_95_per_cent_covers_as_much(shape, sizes) -> None:
    """Of 9 and of 33 patients of three sites: the standard error of 4000 trials is 0.0034."""
    generator, means = numpy_generator(0, "coverage", shape, *sizes), (0.7, 0.8, 0.85)
    draws = {
        "normal": lambda site, size: generator.normal(means[site], 0.05, size),
        "beta": lambda site, size: generator.beta(20 * means[site], 20 * (1 - means[site]), size),
        "unequal": lambda site, size: generator.normal(means[site], (0.1, 0.05, 0.02)[site], size),
    }
    assert 0.93 <= _coverage(draws[shape], float(np.mean(means)), sizes) <= 0.97


def test_the_interval_by_welch_and_satterthwaite_by_hand() -> None:
    one, other = np.array([0.7, 0.8, 0.9]), np.array([0.5, 0.6, np.nan, 0.4, 0.5])
    oracle = scipy.stats.ttest_ind(one, -other[~np.isnan(other)], equal_var=False).confidence_interval()
    # The sum of both means is twice their mean.
    assert mean_interval([one, other]) == pytest.approx((oracle.low / 2, oracle.high / 2))
    assert mean_interval([one]) == pytest.approx(scipy.stats.t.interval(0.95, 2, 0.8, 0.1 / np.sqrt(3)))


def test_a_site_of_one_patient_takes_the_spread_of_the_others() -> None:
    low, high = mean_interval([np.array([0.7, 0.8, 0.9]), np.array([0.6])])
    # Both variances are 0.01: of the mean of two means (0.01 / 3 + 0.01) / 4, from 2 degrees of freedom each.
    errors = np.array([0.01 / 3, 0.01]) / 4
    half = scipy.stats.t.ppf(0.975, errors.sum() ** 2 / (errors**2 / 2).sum()) * np.sqrt(errors.sum())
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half))
    assert np.isnan(mean_interval([np.array([0.6]), np.array([0.8])])).all()
    assert mean_interval([np.array([0.5, 0.5]), np.empty(0)]) == (0.5, 0.5)
