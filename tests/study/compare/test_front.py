"""Fronts and hypervolumes: by hand, and against counting points of a fine lattice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprivseg.study.compare.front import dominated, fronts, group_of, hypervolume, pareto, shares_nothing

POINTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=8)


def test_pareto_front_by_hand():
    points = [(0.5, 0.9), (0.1, 0.5), (0.3, 0.5), (0.2, 0.8), (0.6, 0.85), (0.5, 0.7)]
    assert pareto(points) == [(0.1, 0.5), (0.2, 0.8), (0.5, 0.9)]


def test_hypervolume_by_hand():
    # From 0.2 to 0.5 at 0.6, from 0.5 to 1 at 0.8; the third is dominated.
    assert hypervolume([(0.5, 0.8), (0.2, 0.6), (0.6, 0.7)]) == pytest.approx(0.3 * 0.6 + 0.5 * 0.8)
    assert hypervolume([(0.0, 1.0)]) == 1
    assert hypervolume([]) == hypervolume([(1.0, 0.9)]) == hypervolume([(0.2, 0.0)]) == 0


@given(POINTS)
def test_hypervolume_is_the_share_of_dominated_cells(points):
    """All coordinates are multiples of 1/20, so that whole cells of that lattice are dominated or not."""
    middles = (np.arange(20) + 0.5) / 20
    covered = np.zeros((20, 20), bool)
    for leakage, dice in points:
        covered |= np.logical_and.outer(middles > leakage / 20, middles < dice / 20)
    assert hypervolume((x / 20, y / 20) for x, y in points) == pytest.approx(covered.mean())


@given(POINTS)
def test_the_front_is_what_nothing_dominates(points):
    assert {*pareto(points)} == {point for point in points if not dominated(point, points)}


def test_groups_are_by_what_leaves():
    assert group_of(["image-code", "metric", "status"]) == "codes-only"
    assert group_of(["masked-weights", "mask-share", "metric"]) == "averaging"
    assert group_of(["weights", "image-code"]) == "codes and averaging"
    assert group_of(["raw", "metric"]) == "raw data"
    assert shares_nothing("mine", ["metric", "status"])
    assert shares_nothing("local-only", ["metric", "weights"])  # they leave to be measured elsewhere
    assert not shares_nothing("mine", ["metric", "mask-code"])


def test_what_is_not_known_is_in_no_front_and_is_named():
    found = fronts([("a", "x", (0.2, 0.5)), ("b", "x", None), ("c", "y", (0.1, 0.6))])
    assert [(each.group, each.labels, each.of, each.unknown) for each in found] == [
        ("all", ("c",), 2, ("b",)),
        ("x", ("a",), 1, ("b",)),
        ("y", ("c",), 1, ()),
    ]
    assert fronts([]) == ()
