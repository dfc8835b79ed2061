"""A standard: a data file of clauses, each with the name of the function that judges it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from types import ModuleType
from typing import Any, final

from pydantic import Field

from fedprivseg.core.errors import RequestError
from fedprivseg.core.model import Frozen
from fedprivseg.governance.compliance.evidence import Evidence
from fedprivseg.governance.compliance.verdict import Verdict

Check = Callable[[Evidence], Verdict]


@final
class Clause(Frozen):
    """One clause.

    Attributes:
        id: its number in the standard.
        asks: what it asks, in a few words.
        check: the function that judges it.
        given: arguments of that function, such as other numbers of the standard.
    """

    id: str
    asks: str
    check: str
    given: dict[str, Any] = Field(default_factory=dict)


@final
class Standard(Frozen):
    """The clauses of a standard, in its order."""

    title: str
    clauses: tuple[Clause, ...]


def read_standard(name: str, checks: Sequence[ModuleType]) -> tuple[str, tuple[tuple[Clause, Check], ...]]:
    """A standard whose file ``<name>.toml`` lies beside this module.

    Args:
        name: of the file.
        checks: the modules in which the functions that it names stand.

    Returns:
        Its title, and each clause with its check.

    Raises:
        RequestError: the file names a function that stands in none of the modules.
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
    return standard.title, tuple((clause, partial(known[clause.check], **clause.given)) for clause in standard.clauses)
