"""What can be inferred from a code about its patient: disease, sex? A probe is trained on patients whose attribute is known."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, final

import numpy as np

from fedprivseg.attacks.base import Indicator, Inference, InferenceMetric, Population, pooled
from fedprivseg.core.measures import share_interval

SIDE = 6
LEAST = 6
"""Fewest patients with a known attribute, and of two kinds, for which a probe is worth its name."""


@final
class Attributes(Inference):
    """A ridge classifier on pooled codes, the attribute of each patient given by a probe that was trained on the others."""

    name = "attributes"
    title = "Attribute inference"
    paper = "Alain and Bengio 2017 (linear probes); Li et al. (TIPRDC), KDD 2020"
    knows = (
        "the released codes, which of them are of one patient and time point, and the attribute of the other patients"
    )
    needs_codes: ClassVar[bool] = True
    indicator: ClassVar[Indicator] = "attribute"

    def infer(self, population: Population) -> tuple[InferenceMetric, ...]:
        """Accuracy for each attribute, against the commonest value and against the same probe on raw images."""
        assert population.codes is not None
        found = []
        for name, words in population.attributes.items():
            known = np.array([place for place, word in enumerate(words) if word])
            values = [words[place] for place in known]
            if len(known) < LEAST or len(set(values)) < 2:
                continue
            commonest = Counter(values).most_common(1)[0][1] / len(values)
            hits, raw = (
                np.equal(leave_one_out(_people(rows, population)[known], values), values).astype(np.float64)
                for rows in (pooled(population.codes, SIDE), pooled(population.images[:, None], 2 * SIDE))
            )
            accuracy, count = float(hits.mean()), f"{len(known)} patients"
            low, high = share_interval(hits, known)
            found.append(
                InferenceMetric(
                    f"{name}: accuracy",
                    accuracy,
                    commonest,
                    float(raw.mean()),
                    count,
                    counts=accuracy - commonest,
                    low=low,
                    high=high,
                )
            )
        return tuple(found)


def leave_one_out(rows: np.ndarray, words: list[str], strength: float = 1.0) -> list[str]:
    """The word of each row that ridge regression on the other rows gives it.

    Args:
        rows: (n, d).
        words: of each row, the true one.
        strength: of the ridge, times the mean squared norm of a row.
    """
    kinds = sorted(set(words))
    wanted = np.array([[1.0 if word == kind else 0.0 for kind in kinds] for word in words])
    found = []
    for place in range(len(rows)):
        rest = np.arange(len(rows)) != place
        mean, spread = rows[rest].mean(axis=0), rows[rest].std(axis=0) + 1e-9
        given, own = (rows[rest] - mean) / spread, (rows[place] - mean) / spread
        kernel = given @ given.T
        centre = wanted[rest].mean(axis=0)
        weights = np.linalg.solve(
            kernel + strength * np.trace(kernel) / len(kernel) * np.eye(len(kernel)), wanted[rest] - centre
        )
        found.append(kinds[int((own @ given.T @ weights + centre).argmax())])
    return found


def _people(rows: np.ndarray, population: Population) -> np.ndarray:
    """One row a subject: the means over its slices at each time point."""
    return np.stack(
        [
            np.concatenate(
                [
                    rows[(population.subjects == subject) & (population.phases == phase)].mean(axis=0)
                    for phase in range(len(population.times))
                ]
            )
            for subject in np.unique(population.subjects)
        ]
    )
