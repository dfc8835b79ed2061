"""What somebody wrote against the model of it: every fault in a sentence, with its place, the value and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, StringConstraints, ValidationError

from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.toml_text import shortened

Model = TypeVar("Model", bound=BaseModel)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,47}$")]
"""What sites, scenarios and methods are called."""


def validated(model: type[Model], content: Mapping[str, Any], where: Path | str) -> Model:
    """`content` as `model`. Raises ScenarioError that lists every fault with its place, the value and what is allowed."""
    try:
        return model.model_validate(content)
    except ValidationError as fault:
        lines = [_fault_line(model, error) for error in fault.errors()]
        raise ScenarioError(f"{where}: " + "; ".join(lines)) from None


def _fault_line(model: type[BaseModel], error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "scenario"
    if error["type"] == "extra_forbidden":
        allowed = _keys_at(model, error["loc"][:-1])
        key = str(error["loc"][-1])
        return f"unknown key {place!r}{suggestion(key, allowed)}; allowed here: {', '.join(allowed)}"
    if error["type"] == "missing":
        return f"{place!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    shown = "" if isinstance(given, dict) else f"; given {shortened(repr(given))}"
    return f"{place}: {message}{shown}"


def _keys_at(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    for part in place:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = next((arg for arg in getattr(annotation, "__args__", ()) if isinstance(arg, type)), annotation)
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return sorted(model.model_fields)


def suggestion(given: str, allowed: Sequence[str]) -> str:
    """What was probably meant, to stand behind what was given; empty if nothing is near."""
    near = difflib.get_close_matches(given, allowed, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
