"""Holm's correction and the least p, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon

from fedprivseg.study.compare.paired import differences, holm, smallest_p


def test_holm_by_hand():
    # Sorted .01, .02, .04 of three: .01 * 3, max(.03, .02 * 2), max(.04, .04 * 1).
    assert holm({"a": 0.04, "b": 0.01, "c": 0.02}) == pytest.approx({"b": 0.03, "c": 0.04, "a": 0.04})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


@pytest.mark.parametrize("subjects", [3, 9, 12])
def test_no_exact_test_gives_less_than_the_least_p(subjects):
    assert wilcoxon(np.arange(1.0, subjects + 1)).pvalue == pytest.approx(smallest_p(subjects))


def test_only_subjects_that_both_have_are_paired():
    base = {("a", str(n)): 0.5 for n in range(6)}
    own = {("a", str(n)): 0.5 + 0.01 * (n + 1) for n in range(2, 9)}
    found = differences({"own": own, "base": base, "same": base}, "base")
    assert found["own"].subjects == 4
    assert found["own"].median == pytest.approx(np.median([0.03, 0.04, 0.05, 0.06]))
    assert found["own"].p == found["own"].p_holm == pytest.approx(0.125)
    assert (found["same"].p, found["same"].p_holm) == (None, None)  # no difference at all
