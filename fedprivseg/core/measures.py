"""How well a mask fits, in 3-D and in mm; how alike two images are; how sure a mean is; how well scores part two groups.

Label volumes are (X, Y, Z) integers on the original grid; results are (K,) float64, one value for each label 1 to K. NaN means
'nothing to measure', never a bad score: average with ``nanmean`` and report how many values entered. A structure that
only one of the two volumes has is a miss: its Dice is 0, and its distances are NaN because no distance exists. So quote
a mean distance beside the number of structures it is over: a method that misses more has fewer distances, not worse.

The definitions are MONAI's, and tests hold them to it. The arithmetic is scipy's: importing MONAI costs a site process
more time than measuring a hundred volumes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def dice(prediction: np.ndarray, truth: np.ndarray, structures: int) -> np.ndarray:
    """3-D Dice, 2|P n T| / (|P| + |T|), per structure: (K,) float64 in 0..1; NaN where both volumes lack the structure.

    Raises ValueError if the shapes differ.
    """
    _same(prediction, truth)
    scores = np.full(structures, np.nan)
    for index in range(structures):
        label = index + 1
        one, other = prediction == label, truth == label
        total = np.count_nonzero(one) + np.count_nonzero(other)
        if total:
            scores[index] = 2 * np.count_nonzero(one & other) / total
    return scores


def hd95_mm(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float], structures: int
) -> np.ndarray:
    """95th percentile Hausdorff distance in mm per structure: (K,) float64; NaN where one or both lack the structure.

    The larger of the two directed 95th percentiles over surface voxels. spacing: mm along X, Y, Z. Raises ValueError if
    the shapes differ.
    """
    distances = np.full(structures, np.nan)
    for index, there, back in _surface_distances(prediction, truth, spacing, structures):
        distances[index] = max(np.percentile(there, 95), np.percentile(back, 95))
    return distances


def assd_mm(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float], structures: int
) -> np.ndarray:
    """Average symmetric surface distance in mm per structure: (K,) float64; NaN where one or both lack the structure.

    The mean, over the surface voxels of both volumes, of the distance to the other surface. Raises ValueError if the
    shapes differ.
    """
    distances = np.full(structures, np.nan)
    for index, there, back in _surface_distances(prediction, truth, spacing, structures):
        distances[index] = np.concatenate((there, back)).mean()
    return distances


def psnr(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB per image, peak 1: two (N, H, W) in 0..1 -> (N,) float64; inf where equal."""
    _same(images, references)
    error = ((images.astype(np.float64) - references.astype(np.float64)) ** 2).mean(axis=(1, 2))
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(error))


def ssim(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Structural similarity per image, data range 1: two (N, H, W) in 0..1 -> (N,) float64 in -1..1.

    Wang et al., IEEE TIP 13(4):600, 2004, equation 13: Gaussian window 11 x 11, sigma 1.5, k1 0.01, k2 0.03; the mean
    over the windows that lie inside the image, so H and W must be at least 11 (ValueError).
    """
    from scipy.ndimage import gaussian_filter

    _same(images, references)
    radius = 5
    if min(images.shape[1:]) <= 2 * radius:
        raise ValueError(f"images of {images.shape[1:]} pixels were given; SSIM needs at least {2 * radius + 1} a side")

    def local_mean(stack: np.ndarray) -> np.ndarray:
        blurred = gaussian_filter(stack, sigma=1.5, radius=radius, axes=(1, 2))
        return np.asarray(blurred[:, radius:-radius, radius:-radius])

    x, y = images.astype(np.float64), references.astype(np.float64)
    mean_x, mean_y = local_mean(x), local_mean(y)
    variances = local_mean(x * x) - mean_x**2 + local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return np.asarray(likeness.mean(axis=(1, 2)))


def mean_interval(strata: Sequence[np.ndarray], level: float = 0.95) -> tuple[float, float]:
    """t interval of the mean over strata of each stratum's mean: (low, high).

    The variance is that within strata, so that sites that differ do not widen it; its degrees of freedom are those of Welch and
    Satterthwaite (Biometrics Bulletin 2(6):110, 1946), so that strata need not spread alike. A stratum of one value takes the
    pooled variance of the others. Simulated, for normal, skewed and unequally spread strata of 3 x 3 and 3 x 11 values, an
    interval of nominal 0.95 covers 0.94 to 0.97; a percentile bootstrap over 9 values covers 0.89.

    Args:
        strata: one array a site (n,), one value a patient. NaN values are left out, and strata without any other.
        level: nominal coverage, 0 to 1.

    Returns:
        The interval; (NaN, NaN) if no stratum has two values.
    """
    from scipy.stats import t

    found = [values[~np.isnan(values)] for values in (np.asarray(each, dtype=np.float64) for each in strata)]
    found = [values for values in found if len(values)]
    freedom = np.array([len(values) - 1 for values in found])
    if not freedom.sum():
        return float("nan"), float("nan")
    squares = np.array([((values - values.mean()) ** 2).sum() for values in found])
    pooled = squares.sum() / freedom.sum()
    spread = np.where(freedom > 0, squares / np.maximum(freedom, 1), pooled)
    errors = spread / (freedom + 1) / len(found) ** 2  # what each stratum adds to the variance of the mean
    mean, error = float(np.mean([values.mean() for values in found])), float(errors.sum())
    if not error:
        return mean, mean
    degrees = error**2 / float((errors**2 / np.where(freedom > 0, freedom, freedom.sum())).sum())
    half = float(t.ppf((1 + level) / 2, degrees)) * error**0.5
    return mean - half, mean + half


def share_interval(hits: np.ndarray, owners: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share of cases that come in groups, as the slices of patients: (low, high), within 0 and 1.

    Clopper and Pearson's exact interval at the number of independent cases that would vary as much (Korn and Graubard, Survey
    Methodology 24:193, 1998): no fewer than there are groups, no more than there are cases, and the groups alone where all
    cases agree. With a case a group it is Clopper and Pearson's own.

    Args:
        hits: (N,) bool.
        owners: (N,) whose each case is.
        level: nominal coverage, 0 to 1; the true one is no less for single cases.

    Returns:
        The interval; (NaN, NaN) for fewer than two groups.
    """
    from scipy.stats import beta, t

    _, place = np.unique(owners, return_inverse=True)
    sums, sizes = np.bincount(place, np.asarray(hits, dtype=np.float64)), np.bincount(place)
    groups, cases = len(sizes), int(sizes.sum())
    if groups < 2:
        return float("nan"), float("nan")
    share = float(sums.sum() / cases)
    variance = groups / (groups - 1) * float(np.square(sums - share * sizes).sum()) / cases**2
    alike = share * (1 - share) / variance if variance else groups
    if cases > groups:  # the variance is known from few groups only
        alike *= (t.ppf((1 - level) / 2, cases - 1) / t.ppf((1 - level) / 2, groups - 1)) ** 2
    alike = min(max(alike, groups), cases)
    tail, count = (1 - level) / 2, share * alike
    low = float(beta.ppf(tail, count, alike - count + 1)) if count > 0 else 0.0
    high = float(beta.ppf(1 - tail, count + 1, alike - count)) if count < alike else 1.0
    return low, high


def auc_interval(value: float, positives: int, negatives: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of an area under the ROC curve by score: (low, high), within 0 and 1, of some width even at 0 and 1.

    The areas from which `value` is no further than so many of their own standard errors (Newcombe, Statistics in Medicine
    25:559, 2006, method 5). Where cases come in groups, count the groups: the interval is then too wide rather than too narrow.

    Args:
        value: 0 to 1.
        positives: independent cases on one side, 1 or more.
        negatives: on the other.
        level: nominal coverage, 0 to 1.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    half = float(norm.ppf((1 + level) / 2))
    usual = (positives + negatives) / 2 - 1

    def beyond(area: float) -> float:
        spread = 1 + usual * (1 - area) / (2 - area) + usual * area / (1 + area)
        return (area - value) ** 2 - half**2 * area * (1 - area) * spread / (positives * negatives)

    tiny = 1e-12  # at 0 and 1 themselves no area differs by chance
    low = brentq(beyond, 0.0, min(value, 1 - tiny)) if value > 0 else 0.0
    high = brentq(beyond, max(value, tiny), 1.0) if value < 1 else 1.0
    return float(low), float(high)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a random positive score is above a random negative one, ties half: Mann and Whitney 1947. NaN for none."""
    if not (len(positive) and len(negative)):
        return float("nan")
    order = np.sort(negative)
    below, upto = np.searchsorted(order, positive, "left"), np.searchsorted(order, positive, "right")
    return float((below + upto).mean() / (2 * len(order)))


def tpr_at(positive: np.ndarray, negative: np.ndarray, fpr: float) -> float:
    """Share of positives above the least threshold that at most a share `fpr` of the negatives pass; NaN for none.

    With n negatives the smallest rate that can be told from 0 is 1/n: below it, no negative passes at all.
    """
    if not (len(positive) and len(negative)):
        return float("nan")
    passing = int(np.floor(fpr * len(negative)))
    threshold = np.sort(negative)[::-1][min(passing, len(negative) - 1)]
    return float((positive > threshold).mean())


def _same(one: np.ndarray, other: np.ndarray) -> None:
    if one.shape != other.shape or one.ndim != 3:
        raise ValueError(f"shapes {one.shape} and {other.shape} were given; two equal shapes of 3 axes are needed")


def _surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float], structures: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(index, mm from the prediction's surface to the truth's, and back) for each structure that both volumes have.

    A surface voxel has a face neighbour outside the structure; beyond the volume counts as outside. The work is done on
    the box around the structure in both volumes: all beyond it is outside anyway, so the surfaces are the same.
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    _same(prediction, truth)
    for index in range(structures):
        label = index + 1
        one, other = prediction == label, truth == label
        if not (one.any() and other.any()):
            continue
        either = one | other
        box = []
        for axis in range(3):
            hits = np.flatnonzero(either.any(axis=tuple({0, 1, 2} - {axis})))
            box.append(slice(hits[0], hits[-1] + 1))
        one, other = one[tuple(box)], other[tuple(box)]
        one, other = one ^ binary_erosion(one), other ^ binary_erosion(other)
        yield (
            index,
            distance_transform_edt(~other, sampling=spacing)[one],
            distance_transform_edt(~one, sampling=spacing)[other],
        )
