"""A standard: a data file of clauses, each with the name of the function that judges it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from types import ModuleType
from typing import Any, final

from fedprivseg.core.errors import RequestError
from fedprivseg.core.model import Frozen
from fedprivseg.governance.compliance.evidence import Evidence
from fedprivseg.governance.compliance.verdict import Verdict

Check = Callable[[Evidence], Verdict]


@final
class Clause(Frozen):
    """One clause: its number, what it asks in a few words, and the name of the function that judges it."""

    id: str
    asks: str
    check: str


@final
class Standard(Frozen):
    """The clauses of a standard, in its order. given: arguments of checks, such as other numbers of the standard."""

    title: str
    clauses: tuple[Clause, ...]
    given: dict[str, dict[str, Any]]


def read_standard(name: str, checks: Sequence[ModuleType]) -> tuple[str, tuple[tuple[Clause, Check], ...]]:
    """A standard's title, and each clause with its check.

    Args:
        name: of the data file beside this module.
        checks: the modules in which the functions stand that it names.

    Raises:
        RequestError: one of these functions stands in none of the modules.
    """
    text = resources.files("fedprivseg.governance.compliance").joinpath(f"{name}.toml").read_text("utf-8")
    standard = Standard.model_validate(tomllib.loads(text))
    known = {
        each: function
        for module in checks
        for each, function in vars(module).items()
        if getattr(function, "__module__", "") == module.__name__
    }
    if unknown := [clause.check for clause in standard.clauses if clause.check not in known]:
        raise RequestError(f"{name}.toml names checks that do not exist: {', '.join(unknown)}")
    checked = [(each, partial(known[each.check], **standard.given.get(each.check, {}))) for each in standard.clauses]
    return standard.title, tuple(checked)
