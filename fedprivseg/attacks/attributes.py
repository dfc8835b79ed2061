"""What does a code tell about its patient: disease, sex? A probe is trained on patients whose attribute is known."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, final

import numpy as np

from fedprivseg.attacks.people import Inference, InferenceResult, Population, pooled

SIDE = 6
LEAST = 6
"""Fewest patients with a known attribute, and of two kinds, for which a probe is worth its name."""


@final
class Attributes(Inference):
    """A ridge classifier on pooled codes, each patient told by a probe that was trained on the other ones."""

    name = "attributes"
    title = "Attribute inference"
    paper = "Alain and Bengio 2017 (linear probes); Li et al. (TIPRDC), KDD 2020"
    knows = "the released codes, and the attribute of the other patients"
    needs_codes: ClassVar[bool] = True

    def infer(self, crowd: Population) -> tuple[InferenceResult, ...]:
        """Accuracy for each attribute, against the commonest value and against the same probe on raw images."""
        assert crowd.codes is not None
        told = []
        for name, words in crowd.attributes.items():
            known = np.array([place for place, word in enumerate(words) if word])
            values = [words[place] for place in known]
            if len(known) < LEAST or len(set(values)) < 2:
                continue
            commonest = Counter(values).most_common(1)[0][1] / len(values)
            accuracy, raw = (
                float(
                    np.mean(
                        [
                            a == b
                            for a, b in zip(leave_one_out(_people(rows, crowd)[known], values), values, strict=True)
                        ]
                    )
                )
                for rows in (pooled(crowd.codes, SIDE), pooled(crowd.images[:, None], 2 * SIDE))
            )
            told.append(InferenceResult(f"{name}: accuracy", accuracy, commonest, raw, f"{len(known)} patients"))
        return tuple(told)


def leave_one_out(rows: np.ndarray, words: list[str], strength: float = 1.0) -> list[str]:
    """For each row (n, d) the word that ridge regression on the other rows gives it. strength: times the mean squared norm."""
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


def _people(rows: np.ndarray, crowd: Population) -> np.ndarray:
    """One row a subject: the means over its slices at each time point."""
    return np.stack(
        [
            np.concatenate(
                [
                    rows[(crowd.subjects == subject) & (crowd.phases == phase)].mean(axis=0)
                    for phase in range(len(crowd.times))
                ]
            )
            for subject in np.unique(crowd.subjects)
        ]
    )
