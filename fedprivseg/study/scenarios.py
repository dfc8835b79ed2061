"""A request, completely checked: the scenario of a file with its sites, method, variant, protections and policies.

Nothing here loads torch, Flower or Ray; a mistake is refused before anything heavy is imported, an image library included.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from fedprivseg.core.config import Scenario, read_scenario
from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.expected import DESCRIBE
from fedprivseg.core.stage_config import EVERY
from fedprivseg.core.task import SegmentationTask
from fedprivseg.core.toml_text import Setting
from fedprivseg.core.validation import suggestion
from fedprivseg.governance.policy.preview import effective
from fedprivseg.methods import resolve
from fedprivseg.protections import resolve as resolve_protection


def load_scenario(path: Path | str, settings: Sequence[Setting] = (), *, sites_folder: Path | None = None) -> Scenario:
    """The scenario of a file, completely resolved: sites read, method known, its variant's parameters written out.

    settings: ``key=value`` texts as after ``--set``, or pairs of a dotted key and a value. Raises ScenarioError.
    """
    return resolved(read_scenario(Path(path), settings, sites_folder=sites_folder))


def resolved(scenario: Scenario) -> Scenario:
    """`scenario` with all that follows from it written out: variant, parameters, protections, task and layout of the data. One
    that is resolved stays as it is. Raises ScenarioError for what does not fit together."""
    method = resolve(scenario.method)
    parameters = method.parameters.model_dump(mode="json")
    written = scenario.method.model_copy(update={"variant": method.variant, "parameters": parameters})
    protections = tuple(
        config.model_copy(update={"parameters": resolve_protection(config).model_dump(mode="json")})
        for config in scenario.protections
    )
    for site in scenario.sites:
        # A policy that cannot be read is a fault of the request, found here and not at a gate.
        effective(scenario, site)
    for at in scenario.study.consent.withdraws.values() if scenario.study.consent else ():
        if at not in method.actions:
            raise ScenarioError(
                f"study.consent.withdraws: {at!r}; the orders of {method.name} are: {', '.join(sorted(method.actions))}"
            )
    _refuse_actions(scenario, method.name, {*method.actions, DESCRIBE})
    for config in protections:
        if unsent := sorted(set(config.of) - method.declared):
            sent = ", ".join(sorted(kind for kind in method.declared if kind.protectable)) or "none"
            raise ScenarioError(
                f"protection {config.name!r} is for {', '.join(unsent)}, which method {method.name!r} does not send; of the "
                f"kinds that it sends may be protected: {sent}. Change its `of` or delete it; the method's own parameters may "
                "protect what it sends (dp, summation)"
            )
    form, task = _format_and_task(scenario)
    for site in scenario.sites:
        site.refuse_labels(task)
    method.check(task)
    method.check_sites(len(scenario.sites))
    study = scenario.study.model_copy(update={"data": scenario.study.data or task.modality})
    data = scenario.data.model_copy(update={"format": form})
    parts = {"task": task, "data": data, "study": study, "method": written, "protections": protections}
    return scenario.model_copy(update=parts)


def _refuse_actions(scenario: Scenario, method: str, actions: set[str]) -> None:
    """Raises ScenarioError if the scenario speaks of orders that its method does not give."""
    named = {f"stages.{action}": action for action in scenario.stages if action != EVERY}
    named |= {f"faults[{place}].action": fault.action for place, fault in enumerate(scenario.faults)}
    for place, action in named.items():
        if action not in actions:
            raise ScenarioError(
                f"{place}: {method} gives no order {action!r}{suggestion(action, sorted(actions))}; "
                f"its orders are: {', '.join(sorted(actions))}"
            )


def _format_and_task(scenario: Scenario) -> tuple[str, SegmentationTask]:
    """The layout of the scenario's data, and their task in the words that the scenario states. Raises ScenarioError if it
    states another."""
    from fedprivseg.imaging.sources import format_and_task  # an image library: last, when all else is right

    form, own = format_and_task(scenario.data)
    if "task" not in scenario.model_fields_set:
        return form, own
    for what, stated, there in (
        ("structures", scenario.task.names, own.names),
        ("time_points", scenario.task.times, own.times),
    ):
        if what in scenario.task.model_fields_set and stated != there:
            raise ScenarioError(
                f"task.{what} are {', '.join(stated) or 'none'}, and the data have {', '.join(there)}, in this order; state "
                "these, or leave the key out"
            )
    return form, SegmentationTask.model_validate({**own.model_dump(), **scenario.task.model_dump(exclude_unset=True)})


TELLING = 3
"""How many differences between two scenarios are worth a sentence."""

_FIRST = ("method.name", "method.variant", "seed", "data", "sites", "study", "policy", "protections", "grid", "method")


def what_differs(there: Scenario, here: Scenario) -> str:
    """The most telling differences between two scenarios in words, with both values: the method first."""
    found = _differences(there.model_dump(mode="json"), here.model_dump(mode="json"))
    if any(place in ("method.name", "method.variant") for place, _, _ in found):
        # They bring parameters of their own along, which tell nothing more.
        found = [each for each in found if not each[0].startswith("method.parameters.")]
    found.sort(key=lambda each: next((n for n, first in enumerate(_FIRST) if _below(each[0], first)), len(_FIRST)))
    told = [f"{place} is {_shown(one)} there and {_shown(other)} here" for place, one, other in found[:TELLING]]
    more = len(found) - TELLING
    return "; ".join([*told, *([f"and {more} more"] if more > 0 else [])])


def _differences(one: object, other: object, place: str = "") -> list[tuple[str, object, object]]:
    """(place, value there, value here); the engine and ``compare`` are left out, since they change no result."""
    if place == "compare":
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(set(one) | set(other))
        return [d for key in keys for d in _differences(one.get(key), other.get(key), f"{place}.{key}".lstrip("."))]
    if _named(one) and _named(other):
        if [each["name"] for each in one] != [each["name"] for each in other]:
            return [(place, [each["name"] for each in one], [each["name"] for each in other])]
        return [d for a, b in zip(one, other, strict=True) for d in _differences(a, b, f"{place}.{a['name']}")]
    return [] if one == other or place == "engine" else [(place, one, other)]


def _named(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(each, dict) and "name" in each for each in value)


def _below(place: str, first: str) -> bool:
    return place == first or place.startswith(f"{first}.")


def _shown(value: object) -> str:
    return "not set" if value is None else textwrap.shorten(json.dumps(value), 60, placeholder=" ...")
