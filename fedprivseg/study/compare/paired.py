"""Subjects paired with those of a reference: the median difference, and whether it could be chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

Subjects = Mapping[tuple[str, str], float]
"""(site, subject) -> a value, seeds averaged."""


@dataclass(frozen=True)
class Difference:
    """Subjects paired with those of the reference.

    Attributes:
        median: over subjects, of Dice minus the reference's.
        p: Wilcoxon's, two-sided; None where all differences are 0.
        p_holm: the same after Holm's correction for the number of methods compared.
        subjects: how many pairs.
    """

    median: float
    p: float | None
    p_holm: float | None
    subjects: int


def differences(methods: Mapping[str, Subjects], reference: str) -> dict[str, Difference]:
    """Every other method against `reference`, corrected for their number.

    Args:
        methods: label -> its subjects.
        reference: one of the labels.
    """
    found = {label: paired(own, methods[reference]) for label, own in methods.items() if label != reference}
    corrected = holm({label: each.p for label, each in found.items() if each.p is not None})
    return {label: replace(each, p_holm=corrected.get(label)) for label, each in found.items()}


def paired(own: Subjects, base: Subjects) -> Difference:
    """Wilcoxon's signed-rank test over subjects that both have (Wilcoxon, Biometrics Bulletin 1(6):80, 1945)."""
    from scipy.stats import wilcoxon

    pairs = np.array([own[subject] - base[subject] for subject in sorted(set(own) & set(base))])
    if not len(pairs):
        return Difference(float("nan"), None, None, 0)
    p = float(wilcoxon(pairs).pvalue) if np.any(pairs != 0) else None
    return Difference(float(np.median(pairs)), p, None, len(pairs))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6(2):65, 1979)."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(values) - rank)))
        corrected[name] = largest
    return corrected


def smallest_p(subjects: int) -> float:
    """The least that an exact two-sided signed-rank test of so many pairs can give: all have one sign, 2 of 2^n cases."""
    return min(1.0, 2.0 ** (1 - subjects))
