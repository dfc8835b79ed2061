"""How much a reconstruction shows, in numbers with references.

A reconstruction is read against a lower baseline (what the attacker could reconstruct without the codes: the mean of its own
pictures) and an upper one (the picture itself). Normalised leakage is (attack - lower) / (upper - lower): 0 says nothing beyond
the lower baseline, 1 everything. Beside them stand the nearest neighbour in the attacker's own data, chosen with the ground
truth in hand (a generous second lower baseline), and the site's own decoder, where there is one (what the code gives up through
the door built for it).

Five pitfalls (arXiv 2408.06075) is why one number is not enough, and why what is segmented is scored on its own, with its
surroundings: an empty background flatters every similarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from fedprivseg.core.leakage_result import HEADLINE, Metric
from fedprivseg.core.measures import mean_interval, psnr, ssim
from fedprivseg.core.method_card import What
from fedprivseg.core.seeds import building

MARGIN = 6
"""Pixels around the structures that their crop keeps."""

LEAST = 24
"""Shortest side of a crop, in pixels: the measures look at windows."""

MOST_DB = 60.0
"""What equal pictures count as in dB, so that means exist."""

SCALES = 3
"""Of multi-scale SSIM, or fewer for slices of under 44 pixels; the five of Wang et al. 2003 need 176."""


@dataclass(frozen=True)
class Truth:
    """What the attacked codes were made of.

    Attributes:
        pictures: (N, K, H, W) float32, images or masks.
        subjects: (N,) int, whose they are.
        masks: (N, H, W) uint8, for the crop of images around the structures.
        what: images, K = 1, or masks, one channel a structure.
        region: what all structures together are called, as the task has it.
    """

    pictures: np.ndarray
    subjects: np.ndarray
    masks: np.ndarray
    what: What
    region: str


def evaluate(
    found: np.ndarray, truth: Truth, auxiliary: np.ndarray, own: np.ndarray | None = None
) -> tuple[Metric, ...]:
    """Every metric of a reconstruction.

    Args:
        found: the reconstruction, (N, K, H, W).
        truth: what it should show.
        auxiliary: the attacker's own pictures, (M, K, H, W).
        own: what the site's own decoder makes of the codes, (N, K, H, W).
    """
    mean = np.broadcast_to(auxiliary.mean(axis=0), truth.pictures.shape).astype(np.float32)
    near = auxiliary[_nearest(truth.pictures, auxiliary)]
    of_attack, of_mean, of_near = (_measures(each, truth) for each in (found, mean, near))
    of_own = {} if own is None else _measures(own, truth)
    metrics = []
    for name, upper in _upper(truth).items():
        subjects = per_subject(of_attack[name], truth.subjects)
        low, high = (None if np.isnan(bound) else bound for bound in mean_interval([subjects]))
        value, lower = _mean(of_attack[name], truth.subjects), _mean(of_mean[name], truth.subjects)
        metrics.append(
            Metric(
                metric=name,
                value=value,
                low=low,
                high=high,
                lower_baseline=lower,
                neighbour=_mean(of_near[name], truth.subjects),
                own_decoder=_mean(of_own[name], truth.subjects) if of_own else None,
                upper_baseline=upper,
                leakage=None if upper is None or upper == lower else (value - lower) / (upper - lower),
            )
        )
    return tuple(metrics)


def rank1(found: np.ndarray, gallery: np.ndarray, owners: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Rank-1 re-identification: whether the picture that is most like a reconstruction is of the right patient, (N,) bool.

    Likeness is correlation.

    Args:
        found: reconstructions, (N, K, H, W).
        gallery: (G, K, H, W).
        owners: (G,) whose each picture of the gallery is.
        own: (N,) the owner of each reconstruction, in the same numbering.
    """
    given, kept = _centred(found), _centred(gallery)
    return np.asarray(owners[(given @ kept.T).argmax(axis=1)] == own)


def leakage_of_each(found: np.ndarray, truth: Truth, auxiliary: np.ndarray) -> np.ndarray:
    """The normalised leakage of each subject by each of the metrics that stand for a reconstruction (`HEADLINE`), against what
    the mean of the attacker's pictures reaches for that subject: (M, S), NaN where a subject has no value.

    Arguments as of `evaluate`.
    """
    mean = np.broadcast_to(auxiliary.mean(axis=0), truth.pictures.shape).astype(np.float32)
    of_attack, of_mean = (_measures(each, truth) for each in (found, mean))
    names = [name for name in of_attack if name.split(", ")[0] == HEADLINE[truth.what]]
    value, lower = (np.stack([per_subject(of[name], truth.subjects) for name in names]) for of in (of_attack, of_mean))
    return np.asarray((value - lower) / np.maximum(1 - lower, 1e-9))


def per_subject(values: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """Means over each subject's slices, (S,), NaN where a subject has no value."""
    names = np.unique(subjects)
    means = np.full(len(names), np.nan)
    for place, name in enumerate(names):
        own = values[subjects == name]
        if np.isfinite(own).any():
            means[place] = np.nanmean(own)
    return means


def perceptual(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A distance of features, 0 for equal pictures: two (N, H, W) in 0..1 -> (N,) float64.

    In the place of LPIPS (Zhang et al., CVPR 2018), whose weights would have to be downloaded: the features of an untrained
    three-stage network with fixed weights, normalised over channels and compared as LPIPS compares them.
    """
    with building(0, "perceptual distance"):
        stages = [torch.nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in ((1, 16), (16, 32), (32, 64))]
    with torch.no_grad():
        x, y = (torch.from_numpy(np.ascontiguousarray(each))[:, None].float() - 0.5 for each in (one, other))
        total = torch.zeros(len(x))
        for stage in stages:
            x, y = functional.relu(stage(x)), functional.relu(stage(y))
            total += (
                (functional.normalize(x, dim=1) - functional.normalize(y, dim=1)).square().sum(dim=1).mean(dim=(1, 2))
            )
    return total.double().numpy()


def multiscale_ssim(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """SSIM at `SCALES` resolutions, halved each time, their geometric mean: two (N, H, W) -> (N,) float64.

    After Wang, Simoncelli and Bovik, Asilomar 2003, with equal weights and the whole index at each scale. Negative values
    count as 0, as a root of them is none.
    """
    values = np.ones(len(one))
    scales = max(1, min(SCALES, (min(one.shape[1:]) // 11).bit_length()))
    for scale in range(scales):
        values *= np.clip(ssim(one, other), 0, None) ** (1 / scales)
        if scale + 1 < scales:
            one, other = (_halved(each) for each in (one, other))
    return values


def crops(masks: np.ndarray, subjects: np.ndarray) -> list[tuple[slice, slice] | None]:
    """For each slice the box around its subject's structures, with a margin; None for a slice that shows none of it."""
    boxes: dict[int, tuple[slice, slice]] = {}
    for subject in np.unique(subjects):
        shown = (masks[subjects == subject] > 0).any(axis=0)
        if shown.any():
            sides = [_side(np.flatnonzero(shown.any(axis=1 - axis)), shown.shape[axis]) for axis in (0, 1)]
            boxes[int(subject)] = (sides[0], sides[1])
    return [boxes[int(s)] if mask.any() else None for mask, s in zip(masks, subjects, strict=True)]


def _side(hits: np.ndarray, length: int) -> slice:
    low, high = int(hits[0]) - MARGIN, int(hits[-1]) + 1 + MARGIN
    lacking = max(0, LEAST - (high - low))
    low, high = low - lacking // 2, high + lacking - lacking // 2
    return slice(max(0, min(low, length - LEAST)), min(length, max(high, LEAST)))


def _upper(truth: Truth) -> Mapping[str, float | None]:
    """Metrics of such pictures with their upper baselines; None for those in dB, which have none."""
    if truth.what == "masks":
        return {"Dice": 1.0}
    whole = {"SSIM": 1.0, "MS-SSIM": 1.0, "PSNR": None, "squared error": 0.0, "features": 0.0}
    return {**whole, f"SSIM, {truth.region}": 1.0, f"PSNR, {truth.region}": None}


def _measures(found: np.ndarray, truth: Truth) -> dict[str, np.ndarray]:
    """One value a slice of every metric; distances are negative, so that more is always more of the picture."""
    if truth.what == "masks":
        return {"Dice": _dice(found, truth.pictures)}
    x, y = found[:, 0], truth.pictures[:, 0]
    values = {
        "SSIM": ssim(x, y),
        "MS-SSIM": multiscale_ssim(x, y),
        "PSNR": np.minimum(psnr(x, y), MOST_DB),
        "squared error": -np.square(x.astype(np.float64) - y).mean(axis=(1, 2)),
        "features": -perceptual(x, y),
    }
    crop_s, crop_p = np.full(len(x), np.nan), np.full(len(x), np.nan)
    for place, box in enumerate(crops(truth.masks, truth.subjects)):
        if box is not None:
            a, b = x[place : place + 1, *box], y[place : place + 1, *box]
            crop_s[place], crop_p[place] = ssim(a, b)[0], min(psnr(a, b)[0], MOST_DB)
    return values | {f"SSIM, {truth.region}": crop_s, f"PSNR, {truth.region}": crop_p}


def _dice(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean Dice of the structures that the truth shows, per slice; NaN for a slice without any."""
    background = 1 - found.sum(axis=1, keepdims=True)
    labels = np.concatenate([background, found], axis=1).argmax(axis=1)
    real = np.concatenate([1 - truth.sum(axis=1, keepdims=True), truth], axis=1).argmax(axis=1)
    values = np.full((truth.shape[1], len(found)), np.nan)
    for row in range(truth.shape[1]):
        one, other = labels == row + 1, real == row + 1
        size = other.sum(axis=(1, 2))
        shown = size > 0
        both = (one & other).sum(axis=(1, 2))
        values[row, shown] = 2 * both[shown] / (one.sum(axis=(1, 2)) + size)[shown]
    any_shown = np.isfinite(values).any(axis=0)
    means = np.full(len(found), np.nan)
    means[any_shown] = np.nanmean(values[:, any_shown], axis=0)
    return means


def _mean(values: np.ndarray, subjects: np.ndarray) -> float:
    """Mean over subjects of the means over their slices."""
    return float(np.nanmean(per_subject(values, subjects)))


def _nearest(pictures: np.ndarray, auxiliary: np.ndarray) -> np.ndarray:
    """For each picture the index of the auxiliary one with the least squared distance."""
    a = pictures.reshape(len(pictures), -1).astype(np.float64)
    b = auxiliary.reshape(len(auxiliary), -1).astype(np.float64)
    return np.asarray((np.square(b).sum(axis=1) - 2 * a @ b.T).argmin(axis=1))


def _centred(pictures: np.ndarray) -> np.ndarray:
    flat = pictures.reshape(len(pictures), -1).astype(np.float64)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12))


def _halved(pictures: np.ndarray) -> np.ndarray:
    n, height, width = pictures.shape
    even = pictures[:, : height // 2 * 2, : width // 2 * 2]
    return np.asarray(even.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4)))
