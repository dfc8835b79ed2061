"""Leakage by group of patients: means of theirs, and nothing of fewer than three."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedprivseg.core.records import Subject
from fedprivseg.study.leakage.groups import grouped, leakage_by_group

NONE = Path("none")


def _people(*attributes):
    return [
        Subject(f"p{place}", 1, "test", True, {"ED": 0}, NONE, None, ("LV",), words)
        for place, words in enumerate(attributes)
    ]


def test_ages_are_in_bands_and_who_is_of_no_known_group_is_in_none():
    people = _people({"sex": "F", "age": "44"}, {"sex": "", "age": "45"}, {"sex": "F", "age": "x"}, {"age": "70"})
    found = {key: places.tolist() for key, places in grouped(people).items()}
    assert found == {
        ("age", "45 to 64"): [1],
        ("age", "65 and over"): [3],
        ("age", "under 45"): [0],
        ("sex", "F"): [0, 2],
    }


def test_means_are_over_patients_and_of_too_few_nothing_is_told():
    people = _people(*[{"sex": "F"}] * 3, *[{"sex": "M"}] * 2, {"sex": "F"})
    # Two slices of each of the first five; the last is not attacked.
    subjects = np.repeat(np.arange(5), 2)
    leakages = np.array([[0.1, 0.2, 0.6, 0.9, 0.9], [0.5, np.nan, 0.7, 0.9, 0.9]])
    hits = np.array([1, 1, 1, 0, 0, 0, 1, 1, 1, 1], bool)
    women, men = leakage_by_group(people, subjects, leakages, hits)
    assert (women.group, women.patients, men.group, men.patients) == ("F", 3, "M", 2)
    # By metric 0.3 and 0.6: the worse.
    assert women.leakage == pytest.approx(0.6)
    assert women.rank1 == pytest.approx((1 + 0.5 + 0) / 3)
    assert (men.leakage, men.rank1) == (None, None)
