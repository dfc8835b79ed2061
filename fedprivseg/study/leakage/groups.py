"""What is measured of patients, by groups of them: sex, age band, vendor, disease, where the release tells.

A mean over a hospital hides that an attack finds women and not men. Of fewer than `LEAST` patients nothing is told: such a mean
would be about persons. Who reads the table must not take that for a zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedprivseg.core.leakage_result import GroupLeakage
from fedprivseg.core.records import Subject
from fedprivseg.runtime.site.site_runtime import attributes_of

LEAST = 3
"""Fewest patients of a group of which anything is told."""


def grouped(people: Sequence[Subject]) -> dict[tuple[str, str], np.ndarray]:
    """(attribute, group) -> the places in `people` of those who belong to it, sorted by name; who is of no known group is in
    none."""
    found: dict[tuple[str, str], list[int]] = {}
    for attribute, words in attributes_of(people).items():
        for place, word in enumerate(words):
            if word:
                found.setdefault((attribute, word), []).append(place)
    return {key: np.array(found[key]) for key in sorted(found)}


def leakage_by_group(
    people: Sequence[Subject], subjects: np.ndarray, leakages: np.ndarray, hits: np.ndarray
) -> tuple[GroupLeakage, ...]:
    """The leakage of each group of the attacked.

    Args:
        people: all subjects of the side.
        subjects: (N,) int, whose each attacked slice is, positions in `people`.
        leakages: (M, S) of each attacked subject, in the order of ``np.unique(subjects)``, by metric; NaN where it has none.
        hits: (N,) bool, which slices were re-identified.
    """
    attacked = np.unique(subjects)
    rates = np.array([hits[subjects == one].mean() for one in attacked])
    found = []
    for (attribute, group), members in grouped(people).items():
        own = np.isin(attacked, members)
        if not own.any():
            continue
        told = own.sum() >= LEAST
        known = leakages[:, own][np.isfinite(leakages[:, own]).any(axis=1)]
        found.append(
            GroupLeakage(
                attribute=attribute,
                group=group,
                patients=int(own.sum()),
                leakage=float(np.nanmean(known, axis=1).max()) if told and len(known) else None,
                rank1=float(rates[own].mean()) if told else None,
            )
        )
    return tuple(found)
