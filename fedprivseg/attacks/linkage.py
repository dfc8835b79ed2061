"""Which codes are of the same patient?

Codes leave in an order that says nothing, so an adversary compares them all with all: two of one patient should be more alike
than two of different ones. A stronger one is told, beside the codes, which of them form a volume and at what height each lies,
and asks which two volumes, of the first and the last time point, are of one patient.

Images are compared as well, as they are and cut to a window around the middle of what is segmented: what links the first and
not the second is where the patient lay, not who it is.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from fedprivseg.attacks.base import Indicator, Inference, InferenceMetric, Population, pooled
from fedprivseg.core.measures import auc, mean_interval

HEIGHTS = 5
"""Slices of a volume that describe it, evenly from base to apex."""

SIDE = 12


@final
class Linkage(Inference):
    """Correlates codes."""

    name = "linkage"
    title = "Linkage of records"
    paper = "Packhaeuser et al., Scientific Reports 12:14851, 2022 (who learn the likeness; here it is correlation)"
    knows = "the released codes; where a number says so, also which slices form a volume and how they lie in it"
    needs_codes: ClassVar[bool] = True
    indicator: ClassVar[Indicator] = "linkage"

    def infer(self, population: Population) -> tuple[InferenceMetric, ...]:
        """Verification of slices, AUC and nearest other slice, and of volumes where there are several time points; the
        control."""
        assert population.codes is not None
        people, sizes = np.unique(population.subjects, return_counts=True)
        if (sizes > 1).sum() < 2:
            return ()
        count = f"{len(people)} patients"
        centred = _middle(population.images, population.masks, population.subjects)
        codes, images, middle = (
            _pooled(each) for each in (population.codes, population.images[:, None], centred[:, None])
        )
        subjects = population.subjects
        verified, raw, control = (verification(rows, subjects) for rows in (codes, images, middle))

        def metric(name: str, of_each: np.ndarray, chance: float, raw: np.ndarray, *, counts: bool) -> InferenceMetric:
            value = float(of_each.mean())
            low, high = np.clip(mean_interval([of_each]), 0, 1).tolist()
            return InferenceMetric(
                name, value, chance, float(raw.mean()), count, counts=value if counts else None, low=low, high=high
            )

        likeliest, of_images = (_nearest_own(rows, subjects) for rows in (codes, images))
        found = [
            metric("slices, all pairs: AUC", verified, 0.5, raw, counts=True),
            metric("slices: nearest is of the same patient", likeliest, _chance(subjects), of_images, counts=False),
            InferenceMetric(
                "control, images centred on the structures, all pairs: AUC", float(control.mean()), 0.5, None, count
            ),
        ]
        if len(population.times) > 1:
            (by_codes, first), (by_images, first_raw) = (_volumes(rows, population) for rows in (codes, images))
            pair = f"told which form a volume, {population.times[0]} against {population.times[-1]}"
            found += [
                metric(f"{pair}: AUC", by_codes, 0.5, by_images, counts=True),
                metric(f"{pair}: right patient first", first, 1 / len(people), first_raw, counts=False),
            ]
        return tuple(found)


def verification(rows: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """For each patient of two slices or more the AUC of pairs of its own slices against pairs of one of its own and one of
    another's: (P,) float64. Likeness is cosine.

    Args:
        rows: (N, d) unit vectors.
        subjects: (N,).
    """
    likeness = rows @ rows.T
    found = []
    for subject in np.unique(subjects):
        own = np.flatnonzero(subjects == subject)
        if len(own) > 1:
            together = likeness[np.ix_(own, own)][np.triu_indices(len(own), 1)]
            found.append(auc(together, likeness[np.ix_(own, np.flatnonzero(subjects != subject))].ravel()))
    return np.array(found)


def _nearest_own(rows: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """For each patient how often the slice that is most like one of its own is its own too: (P,) float64."""
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -np.inf)
    hits = subjects[likeness.argmax(axis=1)] == subjects
    return np.array([hits[subjects == subject].mean() for subject in np.unique(subjects)])


def _chance(subjects: np.ndarray) -> float:
    """The same for a slice that is drawn from all others."""
    _, sizes = np.unique(subjects, return_counts=True)
    return float((sizes * (sizes - 1)).sum() / (len(subjects) * (len(subjects) - 1)))


def _volumes(rows: np.ndarray, population: Population) -> tuple[np.ndarray, np.ndarray]:
    """For each patient the AUC of (its volume at the first, its own at the last time point) against the pairs of one of its
    volumes and another patient's, and whether its own at the last is most like its first: two (P,) float64."""
    volumes = []
    for phase in (0, len(population.times) - 1):
        described = []
        for subject in np.unique(population.subjects):
            own = np.flatnonzero((population.subjects == subject) & (population.phases == phase))
            chosen = own[np.abs(population.places[own] - np.linspace(0, 1, HEIGHTS)[:, None]).argmin(axis=1)]
            described.append(rows[chosen].ravel())
        volumes.append(_unit(np.stack(described) - np.mean(described, axis=0)))
    likeness = volumes[0] @ volumes[1].T
    own = np.arange(len(likeness))
    others = [np.concatenate([np.delete(likeness[one], one), np.delete(likeness[:, one], one)]) for one in own]
    aucs = np.array([auc(likeness[one, one][None], others[one]) for one in own])
    return aucs, (likeness.argmax(axis=1) == own).astype(np.float64)


def _middle(images: np.ndarray, masks: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """Of images (N, H, W) the window of half the height and width around the middle of each patient's structures, or of the
    image where there are none: (N, H // 2, W // 2). Beyond the border it is 0."""
    size = images.shape[1] // 2, images.shape[2] // 2
    wide = np.pad(images, ((0, 0), *((half, half) for half in size)))
    windows = np.empty((len(images), *size), images.dtype)
    for subject in np.unique(subjects):
        own = subjects == subject
        _, rows, columns = np.nonzero(masks[own])
        # Halves are rounded up: to the even number would move one patient and not the next.
        middle = (int(rows.mean() + 0.5), int(columns.mean() + 0.5)) if len(rows) else size
        top, left = (at + half - half // 2 for at, half in zip(middle, size, strict=True))
        windows[own] = wide[own, top : top + size[0], left : left + size[1]]
    return windows


def _pooled(pictures: np.ndarray) -> np.ndarray:
    rows = pooled(pictures, SIDE)
    return _unit(rows - rows.mean(axis=0))


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
