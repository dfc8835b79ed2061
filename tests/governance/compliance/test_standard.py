"""A standard is a data file of clauses and functions that judge them: every function is named, every name is a function."""

from __future__ import annotations

import inspect

import pytest

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.compliance import CHECKS, STANDARDS, use_clauses
from fedprivseg.governance.compliance.standard import read_standard


def test_every_check_judges_a_clause_and_every_clause_has_one():
    named = [clause.check for _, clauses in STANDARDS for clause, _ in clauses]
    written = [
        name
        for module in CHECKS
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert sorted(named) == sorted(written)


def test_a_clause_without_a_check_is_refused():
    with pytest.raises(RequestError, match="checks that do not exist: purposeful, "):
        read_standard("scgs_313008_2024", [use_clauses])
