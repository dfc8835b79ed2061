"""The headline of several runs: each attack is averaged first, below chance too; then the worst is taken."""

from __future__ import annotations

import numpy as np
import pytest

from fedprivseg.core.leakage_result import InferenceResult, Leakage
from fedprivseg.core.measures import mean_interval
from fedprivseg.study.compare.pooled_leakage import pooled_leakage


def inferred(metric: str, auc: float | None, site: str = "centre1", indicator: str = "membership") -> InferenceResult:
    return InferenceResult(
        attack=indicator,
        title="Membership inference",
        paper="",
        site=site,
        knows="",
        indicator=indicator,
        metric=metric,
        value=auc or 0.0,
        low=0.4,
        high=0.9,
        chance=0.5,
        raw=None,
        count="",
        counts=auc,
    )


def leakage(*inferences: InferenceResult) -> Leakage:
    return Leakage(
        scenario_sha256="",
        method="m",
        variant="",
        protections=(),
        budget="small",
        sites=("centre1",),
        auxiliary="",
        reconstructions=(),
        inferences=inferences,
        left_out=(),
        seconds=0.0,
    )


def test_the_luckiest_draw_is_not_the_worst_attack() -> None:
    """AUC 0.8 and 0.4 are 0.6 and -0.2 above chance, 0.2 in the mean; twice 0.65 is 0.3."""
    runs = [leakage(inferred("slices", auc), inferred("patients", 0.65)) for auc in (0.8, 0.4)]
    found = pooled_leakage(runs)
    assert found.value == pytest.approx(0.3)
    assert found.by == "Membership inference (patients)"
    assert found.interval == pytest.approx((0.3, 0.3))
    assert max(run.headline.value for run in runs) == pytest.approx(0.6), "each run tells its own worst"


def test_what_is_chance_on_average_is_chance() -> None:
    draws = np.random.default_rng(0).uniform(0.2, 0.8, 200)
    found = pooled_leakage([leakage(inferred("slices", auc)) for auc in draws])
    assert found.value == pytest.approx(max(0.0, float(2 * draws.mean() - 1)))
    low, high = mean_interval([2 * draws - 1])
    assert found.interval == pytest.approx((max(low, 0), high))


def test_one_run_has_the_interval_of_its_sites_and_one_site_that_of_its_patients() -> None:
    """0.8 and 0.4 above chance; an interval of the worst site's patients could lie beyond their mean. Of 0.4 to 0.9 the part
    above chance is 0 to 0.8."""
    both = pooled_leakage([leakage(inferred("slices", 0.9, "centre1"), inferred("slices", 0.7, "centre2"))])
    assert both.value == pytest.approx(0.6)
    assert both.interval == pytest.approx(tuple(np.clip(mean_interval([np.array([0.8, 0.4])]), 0, 1)))
    assert pooled_leakage([leakage(inferred("slices", 0.9))]).interval == pytest.approx((0.0, 0.8))


def test_an_attack_that_counts_in_some_runs_is_not_left_out() -> None:
    """0.8 in the one run where it counts; where none counts nothing is known."""
    both = leakage(inferred("slices", 0.6), inferred("patients", 0.9))
    other = leakage(inferred("slices", 0.6), inferred("patients", None))
    assert pooled_leakage([both, other]).value == pytest.approx(0.8)
    assert pooled_leakage([leakage(inferred("slices", None))]) is None
    assert pooled_leakage([leakage(inferred("sex", 0.9, indicator="attribute"))]) is None
    assert pooled_leakage([]) is None
