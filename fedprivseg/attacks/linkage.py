"""Which two codes are of the same patient? The adversary needs nothing but the codes.

Two tests: where patients are imaged at several time points, a volume at the first against all volumes at the last; and a slice
against its neighbour and against slices of other patients at the same height.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from fedprivseg.attacks.base import Indicator, Inference, InferenceMetric, Population, pooled
from fedprivseg.core.measures import auc

HEIGHTS = 5
"""Slices of a volume that describe it, evenly from base to apex."""

SIDE = 12


@final
class Linkage(Inference):
    """Correlates codes."""

    name = "linkage"
    title = "Linkage of records"
    paper = "Packhaeuser et al., Scientific Reports 12:14851, 2022 (who learn the likeness; here it is correlation)"
    knows = "the released codes, and which slices form a volume"
    needs_codes: ClassVar[bool] = True
    indicator: ClassVar[Indicator] = "linkage"

    def infer(self, population: Population) -> tuple[InferenceMetric, ...]:
        """Verification AUC and precision at 1 for volumes of two time points, AUC for neighbouring slices."""
        assert population.codes is not None
        of_codes, of_images = (
            _measures(pooled(values, SIDE), population) for values in (population.codes, population.images[:, None])
        )
        people = len(np.unique(population.subjects))
        if people < 2:
            return ()
        of_codes, of_images = (
            _measures(pooled(values, SIDE), population) for values in (population.codes, population.images[:, None])
        )
        pair = f"{population.times[0]} against {population.times[-1]}"
        names = (f"{pair}: AUC", f"{pair}: right patient first", "neighbouring slices: AUC")[-len(of_codes) :]
        chances = (0.5, 1 / people, 0.5)[-len(of_codes) :]
        return tuple(
            InferenceMetric(name, value, chance, raw, f"{people} patients", value if "AUC" in name else None)
            for name, value, chance, raw in zip(names, of_codes, chances, of_images, strict=True)
        )


def _measures(rows: np.ndarray, population: Population) -> tuple[float, ...]:
    rows = rows - rows.mean(axis=0)
    neighbours = _neighbours(_unit(rows), population)
    if len(population.times) == 1:
        return (neighbours,)
    volumes = []
    for phase in (0, len(population.times) - 1):
        described = []
        for subject in np.unique(population.subjects):
            own = np.flatnonzero((population.subjects == subject) & (population.phases == phase))
            chosen = own[np.abs(population.places[own] - np.linspace(0, 1, HEIGHTS)[:, None]).argmin(axis=1)]
            described.append(rows[chosen].ravel())
        volumes.append(_unit(np.stack(described) - np.mean(described, axis=0)))
    likeness = volumes[0] @ volumes[1].T
    same = np.eye(len(likeness), dtype=bool)
    first = float((likeness.argmax(axis=1) == np.arange(len(likeness))).mean())
    return auc(likeness[same], likeness[~same]), first, neighbours


def _neighbours(rows: np.ndarray, population: Population) -> float:
    """AUC of (slice, next slice of its volume) against (slice, slice of another patient nearest in height to that next)."""
    together, apart = [], []
    for place in range(len(rows) - 1):
        after = place + 1
        if (
            population.subjects[place] != population.subjects[after]
            or population.phases[place] != population.phases[after]
        ):
            continue
        together.append(float(rows[place] @ rows[after]))
        for other in np.unique(population.subjects[population.subjects != population.subjects[place]]):
            own = np.flatnonzero((population.subjects == other) & (population.phases == population.phases[place]))
            if len(own):
                nearest = own[np.abs(population.places[own] - population.places[after]).argmin()]
                apart.append(float(rows[place] @ rows[nearest]))
    return auc(np.array(together), np.array(apart))


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
