"""What runs are called beside each other: by what tells them apart, and no more.

The method first; then, only among runs that share all before it, its variant, its protections, one or two settings that
differ, the scenario's own name, and in the end the folder. A name is computed from the scenarios, so that it says what ran and
not what somebody called it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

LONGEST = 56
"""Characters of a name; a name that would be longer takes the scenario's own name, or the folder, instead of settings."""

_WORD = 20
"""Characters of a value that may stand in a name."""

_SETTINGS = 3
"""How many settings a name may hold."""

_NOT_METHOD = ("name", "question", "seed", "engine", "data", "sites", "report", "resources", "attack")


@dataclass(frozen=True)
class Named:
    """A run, or several that differ in their seed alone, and the name so far.

    Attributes:
        scenario: the resolved scenario.
        folder: of the (first) run.
        place: its number among those that are named together.
        name: what it is called.
    """

    scenario: Mapping[str, Any]
    folder: Path
    place: int
    name: str


def names_of(runs: Sequence[tuple[Mapping[str, Any], Path]]) -> list[str]:
    """One name each, in their order, no two the same.

    Args:
        runs: resolved scenario (a mapping with ``method``, ``protections``, ...) and run folder of each.
    """
    called = [
        Named(scenario, folder, place, str(scenario["method"]["name"])) for place, (scenario, folder) in enumerate(runs)
    ]
    for refine in (_by_variant, _by_protections, _by_settings, _by_scenario, _by_folder):
        called = _refined(called, refine)
    return [each.name for each in sorted(called, key=lambda each: each.place)]


def _refined(runs: Sequence[Named], refine: Callable[[list[Named]], list[Named]]) -> list[Named]:
    """The runs, with `refine` applied to each lot of those that share a name."""
    lots: dict[str, list[Named]] = {}
    for run in runs:
        lots.setdefault(run.name, []).append(run)
    return [each for lot in lots.values() for each in (refine(lot) if len(lot) > 1 else lot)]


def _with(runs: Sequence[Named], words: Sequence[str], separator: str = ", ") -> list[Named]:
    """The runs with the word of each after its name, unless all have the same; "" adds nothing."""
    if len(set(words)) == 1:
        return list(runs)
    return [
        replace(run, name=f"{run.name}{separator}{word}") if word else run
        for run, word in zip(runs, words, strict=True)
    ]


def _by_variant(runs: list[Named]) -> list[Named]:
    variants = [str(run.scenario["method"].get("variant", "")) for run in runs]
    return _with(runs, ["" if variant == "default" else variant for variant in variants], " ")


def _by_protections(runs: list[Named]) -> list[Named]:
    return _with(runs, [" + ".join(str(one["name"]) for one in run.scenario.get("protections", ())) for run in runs])


def _by_settings(runs: list[Named], left: int = _SETTINGS) -> list[Named]:
    """Told apart by the most telling setting that differs, and those that still share a name by another one."""
    settings = [settings_of(run.scenario) for run in runs]
    differing = [
        key
        for key in {key for own in settings for key in own}
        if len({own.get(key, "") for own in settings}) > 1 and all(len(own.get(key, "")) <= _WORD for own in settings)
    ]
    if not differing or not left:
        return runs
    chosen = min(differing, key=lambda key: _telling(key, settings))
    word = chosen.split(".")[-1].replace("_", " ")
    values = [own.get(chosen, "") for own in settings]
    told = _with(runs, [f"{word} {value}" if value else "" for value in values])
    again = _refined(told, lambda alike: _by_settings(alike, left - 1))
    return runs if any(len(each.name) > LONGEST for each in again) else again


def _telling(key: str, settings: Sequence[Mapping[str, str]]) -> tuple[bool, bool, int, bool, str]:
    """Least for what says most: words and what only some runs have, then numbers; of these what tells most apart, then where
    networks begin, and of these the first by the alphabet, so that the order of the runs changes no name."""
    values = [own.get(key, "") for own in settings]
    numbers = all(values) and all(map(_is_number, values))
    return key.split(".")[0] in _NOT_METHOD, numbers, -len(set(values)), key.split(".")[-1] != "start", key


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _by_scenario(runs: list[Named]) -> list[Named]:
    return _with(runs, [f"“{run.scenario['name']}”" for run in runs], " ")


def _by_folder(runs: list[Named]) -> list[Named]:
    """By the fewest last parts of their folders' paths that tell all apart."""
    paths = [run.folder.resolve().parts for run in runs]
    for count in range(1, max(map(len, paths)) + 1):
        tails = ["/".join(parts[-count:]) for parts in paths]
        if len(set(tails)) == len(tails):
            break
    return _with(runs, tails, " in ")


def settings_of(scenario: Mapping[str, Any]) -> dict[str, str]:
    """What a scenario sets, as dotted key -> text; a table in a list is called by its ``name``; what is off (empty,
    false, 0, a random start) is left out.

    Example:
        ``{"protections": [{"name": "noise", "sigma": 0.5}], "dp": None}`` is ``{"protections.noise.sigma": "0.5"}``.
    """
    found: dict[str, str] = {}

    def walk(key: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                walk(f"{key}.{name}" if key else str(name), inner)
        elif (
            isinstance(value, (list, tuple))
            and value
            and all(isinstance(one, Mapping) and "name" in one for one in value)
        ):
            for one in value:
                walk(f"{key}.{one['name']}", {name: inner for name, inner in one.items() if name != "name"})
        elif value in (None, "", "none", "random", 0) or value == [] or value == ():
            return
        elif isinstance(value, bool):
            found[key] = "on"
        elif isinstance(value, float):
            found[key] = f"{value:g}"
        else:
            found[key] = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

    hidden = ("name", "question", "seed", "engine", "data", "compare")
    walk("", {key: value for key, value in scenario.items() if key not in hidden})
    return found
