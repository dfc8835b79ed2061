"""How much a reconstruction shows, in numbers with references.

A reconstruction is read against a floor (what the attacker could draw without the codes: the mean of its own pictures) and a
ceiling (the picture itself). Normalised leakage is (attack - floor) / (ceiling - floor): 0 says nothing beyond the floor, 1
everything. Beside them stand the nearest neighbour in the attacker's own data, chosen with the truth in hand (a generous
second floor), and the site's own decoder, where there is one (what the code gives up through the door built for it).

Five pitfalls (arXiv 2408.06075) is why one number is not enough, and why what is segmented is scored on its own, with its
surroundings: an empty background flatters every similarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from fedprivseg.core.measures import bootstrap_interval, psnr, ssim
from fedprivseg.core.method_card import What
from fedprivseg.core.seeds import building, numpy_generator

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
        pictures: (N, K, H, W) float32.
        subjects: (N,) int.
        masks: (N, H, W) uint8, for the crop of images around the structures.
        what: images, K = 1, or masks, one channel a structure.
        region: what all structures together are called, as the task has it.
    """

    pictures: np.ndarray
    subjects: np.ndarray
    masks: np.ndarray
    what: What
    region: str


@dataclass(frozen=True)
class Figure:
    """One measure of one reconstruction: its mean over subjects with a 95 % bootstrap interval over them (None for one
    subject), and the measure of the references. leakage: normalised; None where the measure has no ceiling (dB)."""

    measure: str
    value: float
    low: float | None
    high: float | None
    floor: float
    neighbour: float
    own_decoder: float | None
    ceiling: float | None
    leakage: float | None


def judge(
    drawn: np.ndarray,
    truth: Truth,
    auxiliary: np.ndarray,
    seed: int,
    own: np.ndarray | None = None,
) -> tuple[Figure, ...]:
    """Every measure of the reconstruction `drawn` (N, K, H, W). auxiliary: the attacker's own pictures (M, K, H, W). own:
    what the site's own decoder makes of the codes."""
    mean = np.broadcast_to(auxiliary.mean(axis=0), truth.pictures.shape).astype(np.float32)
    near = auxiliary[_nearest(truth.pictures, auxiliary)]
    figures = []
    sets = {"": drawn, "floor": mean, "neighbour": near, "own": own}
    measured = {name: None if each is None else _measures(each, truth) for name, each in sets.items()}
    for name, (_, ceiling) in _kinds(truth).items():
        by = {key: None if each is None else each[name] for key, each in measured.items()}
        attack, floor, neighbour = by[""], by["floor"], by["neighbour"]
        assert attack is not None
        assert floor is not None
        assert neighbour is not None
        subjects = per_subject(attack, truth.subjects)
        low, high = (
            None if np.isnan(bound) else bound
            for bound in bootstrap_interval(subjects, numpy_generator(seed, "judge", name))
        )
        value, base = _mean(attack, truth.subjects), _mean(floor, truth.subjects)
        leakage = None if ceiling is None or ceiling == base else (value - base) / (ceiling - base)
        own_value = None if by["own"] is None else _mean(by["own"], truth.subjects)
        beside = _mean(neighbour, truth.subjects)
        figures.append(Figure(name, value, low, high, base, beside, own_value, ceiling, leakage))
    return tuple(figures)


def recognised(drawn: np.ndarray, gallery: np.ndarray, owners: np.ndarray, own: np.ndarray) -> float:
    """How often the picture of `gallery` (G, K, H, W) that is most like a reconstruction is of the right patient, 0..1.

    owners: (G,) whose each is. own: (N,) the owner of each drawn picture, in the same numbering. Likeness is correlation.
    """
    given, kept = _centred(drawn), _centred(gallery)
    return float((owners[(given @ kept.T).argmax(axis=1)] == own).mean())


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


def _kinds(truth: Truth) -> Mapping[str, tuple[str, float | None]]:
    """Measures of such pictures: name -> (unit, ceiling)."""
    if truth.what == "masks":
        return {"Dice": ("", 1.0)}
    both = {
        "SSIM": ("", 1.0),
        "MS-SSIM": ("", 1.0),
        "PSNR": ("dB", None),
        "squared error": ("", 0.0),
        "features": ("", 0.0),
    }
    crop = {f"SSIM, {truth.region}": ("", 1.0), f"PSNR, {truth.region}": ("dB", None)}
    return both | crop


def _measures(drawn: np.ndarray, truth: Truth) -> dict[str, np.ndarray]:
    """One value a slice of every measure; distances are negative, so that more is always more of the picture."""
    if truth.what == "masks":
        return {"Dice": _dice(drawn, truth.pictures)}
    x, y = drawn[:, 0], truth.pictures[:, 0]
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


def _dice(drawn: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean Dice of the structures that the truth shows, per slice; NaN for a slice without any."""
    background = 1 - drawn.sum(axis=1, keepdims=True)
    labels = np.concatenate([background, drawn], axis=1).argmax(axis=1)
    real = np.concatenate([1 - truth.sum(axis=1, keepdims=True), truth], axis=1).argmax(axis=1)
    values = np.full((truth.shape[1], len(drawn)), np.nan)
    for row in range(truth.shape[1]):
        one, other = labels == row + 1, real == row + 1
        size = other.sum(axis=(1, 2))
        shown = size > 0
        both = (one & other).sum(axis=(1, 2))
        values[row, shown] = 2 * both[shown] / (one.sum(axis=(1, 2)) + size)[shown]
    any_shown = np.isfinite(values).any(axis=0)
    found = np.full(len(drawn), np.nan)
    found[any_shown] = np.nanmean(values[:, any_shown], axis=0)
    return found


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
