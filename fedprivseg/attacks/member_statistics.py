"""How well evidence tells members from others, and whether so few patients could tell that by chance.

Slices of one patient are no independent cases: intervals count patients, and the test exchanges whole patients between members
and others.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from fedprivseg.attacks.base import InferenceMetric
from fedprivseg.core.measures import auc, auc_interval, tpr_at
from fedprivseg.core.seeds import numpy_generator

MOST_CHOICES = 10_000
"""So many choices of members are all tried; of more, so many are drawn."""

RATES = (0.01, 0.001)
"""False positive rates at which a true positive rate is told, where there are slices enough to tell so small a rate."""


def member_metrics(
    name: str, evidence: np.ndarray, member: np.ndarray, subjects: np.ndarray, seed: int
) -> tuple[InferenceMetric, ...]:
    """AUC over slices and over patients with intervals and a permutation test, and true positive rates.

    Args:
        name: what the evidence is, before each metric's name; "" for an attack with but one.
        evidence: (N,) more of it speaks for a member.
        member: (N,) bool, the same for all slices of a subject.
        subjects: (N,) whose the slices are.
        seed: of what is drawn.
    """
    people = np.unique(subjects)
    groups = [evidence[subjects == one] for one in people]
    trained = np.array([bool(member[subjects == one][0]) for one in people])
    means = [np.array([group.mean()]) for group in groups]
    slices = f"{int(member.sum())} slices of members, {int((~member).sum())} of others"
    patients = f"{int(trained.sum())} members, {int((~trained).sum())} others"
    found = []
    for what, rows, count in (("slices", groups, slices), ("patients", means, patients)):
        value = _auc(rows, trained)
        low, high = auc_interval(value, int(trained.sum()), int((~trained).sum()))
        p = permutation_p(rows, trained, numpy_generator(seed, "permutations", name, what))
        found.append(
            InferenceMetric(f"{name}{what}: AUC", value, 0.5, None, count, counts=value, low=low, high=high, p=p)
        )
    for rate in RATES:
        if rate * (~member).sum() >= 1:
            passed = tpr_at(evidence[member], evidence[~member], rate)
            found.append(InferenceMetric(f"{name}slices: TPR at {100 * rate:g} % FPR", passed, rate, None, slices))
    return tuple(found)


def permutation_p(rows: list[np.ndarray], trained: np.ndarray, draws: np.random.Generator) -> float:
    """Share of the choices of as many patients, the true one among them, whose AUC is no less than that of `trained`.

    All choices are tried if they are no more than `MOST_CHOICES`, otherwise so many are drawn (Phipson and Smyth, Statistical
    Applications in Genetics and Molecular Biology 9:39, 2010: the true one is counted, so that p is never 0).

    Args:
        rows: of each patient its evidence, (n,).
        trained: (P,) bool.
    """
    reached, count, size = _auc(rows, trained) - 1e-12, len(trained), int(trained.sum())
    if comb(count, size) <= MOST_CHOICES:
        choices = [np.isin(np.arange(count), chosen) for chosen in combinations(range(count), size)]
        return float(np.mean([_auc(rows, choice) >= reached for choice in choices]))
    hits = sum(_auc(rows, draws.permutation(trained)) >= reached for _ in range(MOST_CHOICES - 1))
    return (1 + hits) / MOST_CHOICES


def _auc(rows: list[np.ndarray], trained: np.ndarray) -> float:
    inside, outside = (
        np.concatenate([row for row, own in zip(rows, trained, strict=True) if own == side]) for side in (True, False)
    )
    return auc(inside, outside)
