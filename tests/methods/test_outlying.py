"""Sites whose codes are unlike the others', by numbers that can be checked by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from fakes import Rows

from fedprivseg.core.seeds import numpy_generator
from fedprivseg.methods.outlying import ROWS, handle, odd_codes, odd_losses, relative_error, spread_and_repeated

DRAWS = numpy_generator(0, "outlying")


def codes(spread=1.0, count=40, middle=0.0):
    return Rows((middle + spread * DRAWS.standard_normal((count, 2, 4, 4))).astype(np.float16))


def test_the_spread_is_the_standard_deviation_also_over_many_parts():
    rows = codes(3.0, 2 * ROWS + 7, middle=5.0)
    spread, repeated = spread_and_repeated(rows)
    assert spread == pytest.approx(rows.values.astype(np.float64).std(), rel=1e-9)
    assert repeated == 0
    assert spread_and_repeated(Rows(np.zeros((0, 2, 4, 4), np.float16))) == (0.0, 0.0)


def test_repeated_rows_are_counted_also_over_the_end_of_a_part():
    rows = codes(count=ROWS + 3)
    rows.values[1:] = rows.values[:1]
    assert spread_and_repeated(rows)[1] == pytest.approx((ROWS + 2) / (ROWS + 3))


@pytest.mark.parametrize(("spread", "odd"), [(1.0, False), (3.5, False), (10.0, True), (0.3, False), (0.1, True)])
def test_codes_that_spread_otherwise_are_odd_by_the_factor(spread, odd):
    found = odd_codes("mask", {"a": codes(), "b": codes(spread), "c": codes(), "d": codes()}, 4.0)
    assert set(found) == ({"b"} if odd else set())
    if odd:
        assert "its mask codes spread" in found["b"]


def test_codes_that_say_the_same_again_and_again_are_odd():
    stuck = codes()
    stuck.values[:] = stuck.values[:1]
    found = odd_codes("image", {"a": codes(), "b": stuck, "c": codes()}, 100.0)
    assert found == {"b": "98% of its image codes repeat the one before"}


def test_of_two_sites_none_is_the_odd_one_and_sites_without_codes_are_passed_over():
    assert odd_codes("image", {"a": codes(), "b": codes(50.0)}, 4.0) == {}
    assert odd_codes("image", {"a": codes(), "b": codes(50.0), "c": codes(count=0)}, 4.0) == {}
    assert odd_losses({"a": 0.1, "b": 9.0}, 4.0) == {}


def test_a_site_from_which_nothing_is_learned_is_odd_and_one_that_is_easy_is_not():
    assert odd_losses({"a": 0.2, "b": 1.0, "c": 0.2, "d": 0.01}, 4.0) == {
        "b": "the error on its mask codes is 5 times that of the median site"
    }


def test_the_error_is_in_variances_of_the_masks_own_codes():
    """A mean that is right everywhere explains nothing (1), the truth all (0); shuffled codes: twice their variance."""
    truth = codes(3.0, 200)
    mean = float(truth.values.astype(np.float64).mean())
    assert relative_error(truth, truth, lambda image: image) == 0
    assert relative_error(truth, truth, lambda image: np.full(image.shape, mean)) == pytest.approx(1, abs=0.01)
    shuffled = Rows(truth.values[DRAWS.permutation(200)])
    assert relative_error(truth, shuffled, lambda image: image) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("rule", ["named", "left-out"])
def test_the_rule_of_the_scenario_says_what_becomes_of_an_odd_site(rule):
    notes, left = [], []
    federation = SimpleNamespace(note=lambda *said: notes.append(said), leave_out=lambda *said: left.append(said))
    parameters = SimpleNamespace(outlying=rule)
    assert handle(parameters, federation, {}) is False
    assert handle(parameters, federation, {"b": "it is odd"}) is (rule == "left-out")
    assert notes == [("b", "outlying: it is odd")]
    assert left == ([("b", "outlying: it is odd")] if rule == "left-out" else [])
