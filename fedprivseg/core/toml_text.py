"""TOML that people write: files, and the values of ``--set``. What is read here is plain and can be written again."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedprivseg.core.errors import ScenarioError

MOST_DEEP = 32
"""How deep tables and arrays may nest. A scenario nests five deep; Python's own readers and writers give up near a thousand."""

_WHOLE = range(-(2**63), 2**63)

Setting = str | tuple[str, Any]
"""One value to change: the text ``key=value`` as after ``--set``, or the dotted key and the value itself, of any type."""


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, UTF-8 with or without a byte order mark. Raises ScenarioError if the file is absent, does not
    parse, or holds what `parse_toml` refuses."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ScenarioError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise ScenarioError(f"{path} is a folder; give a TOML file") from None
    except UnicodeDecodeError as fault:
        raise ScenarioError(
            f"{path} is not UTF-8 text (byte {fault.start} is {fault.object[fault.start]:#04x}); save it as UTF-8"
        ) from None
    except OSError as fault:
        raise ScenarioError(f"{path} cannot be read ({fault.strerror})") from None
    return parse_toml(text, str(path))


def read_with_base(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of a scenario file, laid over those of the file that its ``base`` names, if it names one.

    ``base`` is a path relative to the file that states it; a base may have a base. Tables merge key by key, and the file's own
    keys win; a list replaces the base's. Another ``method.name`` takes the base's variant and parameters away, as in
    `apply_settings`.

    Args:
        path: the file.
        above: the files, resolved, that have this one as their base.

    Raises:
        ScenarioError: as `read_toml`; naming both files if the base cannot be read or leads back to the file.
    """
    own = read_toml(path)
    base = own.pop("base", None)
    if base is None:
        return own
    if not isinstance(base, str):
        raise ScenarioError(f'{path}: base must be the path of a scenario file, such as "fedavg.toml"; given {base!r}')
    place = path.parent / base
    if place.resolve() in (seen := (*above, path.resolve())):
        raise ScenarioError(f"{path}: its base {place} leads back to it; take one `base` out")
    try:
        below = read_with_base(place, seen)
    except ScenarioError as fault:
        raise ScenarioError(f"{path}: its base cannot be used: {fault}") from None
    mine, theirs = own.get("method"), below.get("method")
    if (
        isinstance(mine, dict)
        and isinstance(theirs, dict)
        and mine.get("name", theirs.get("name")) != theirs.get("name")
    ):
        del below["method"]
    return _merged(below, own)


def _merged(below: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in own.items():
        under = found.get(key)
        found[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return found


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The tables of `text`. where: what an error calls it.

    Raises ScenarioError if it does not parse, nests deeper than `MOST_DEEP`, or holds a whole number of more than 64 bits
    (TOML's limit), NaN, infinity, or text that no file name could hold.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise ScenarioError(f"{where} is not valid TOML: {fault}") from None
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError:  # Python reads no number of more than 4,300 digits
        raise _too_large(where) from None
    _check(content, where)
    return content


def apply_settings(content: dict[str, Any], settings: Sequence[Setting]) -> dict[str, Any]:
    """`content` with `settings` applied; keys are dotted (``grid.height=160``). After ``=`` stands a TOML value, or else text
    as it is. Another ``method.name`` takes variant and parameters of the file's own method away, which mean nothing to it.
    Raises ScenarioError as `parse_toml` does, and for a setting without a key."""
    pairs = [_parted(setting) if isinstance(setting, str) else setting for setting in settings]
    for key, value in sorted(pairs, key=lambda each: each[0] != "method.name"):
        table = content
        *tables, last = key.split(".")
        if len(tables) >= MOST_DEEP:
            raise _too_deep(f"the setting {shortened(key)}")
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ScenarioError(f"--set {shortened(key)}: {part!r} is a value, not a table")
        if key == "method.name" and value != table.get(last):
            table.clear()
        table[last] = value
        _check({key: value}, f"the setting {shortened(key)}")
    return content


def shortened(text: str, most: int = 200) -> str:
    """`text`, or its beginning and its length if it has more than `most` characters."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def _parted(setting: str) -> tuple[str, Any]:
    """Key and value of ``key=value``."""
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ScenarioError(f"--set wants key=value, such as grid.height=160; given {shortened(setting)!r}")
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return key, text
    except RecursionError:
        raise _too_deep(f"the setting {shortened(key)}") from None
    except ValueError:
        raise _too_large(f"the setting {shortened(key)}") from None
    return key, found["value"] if len(found) == 1 else text  # a second line of the text is no second setting


def _check(content: dict[str, Any], where: str) -> None:
    """Raises ScenarioError for the first value in `content` that goes beyond what `parse_toml` allows."""
    waiting: list[tuple[Any, int]] = [(content, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list | tuple):
            if depth > MOST_DEEP:
                raise _too_deep(where)
            waiting += [(each, depth + 1) for each in value]
            waiting += [(each, depth + 1) for each in value.values()] if isinstance(value, dict) else []
        elif isinstance(value, int) and value not in _WHOLE:
            raise _too_large(where)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ScenarioError(f"{where} holds {value}, which is no number; give a finite one")
        elif isinstance(value, str) and _unspeakable(value):
            raise ScenarioError(f"{where} holds {shortened(value)!r}, which is no text in UTF-8 without NUL; rename it")


def _unspeakable(text: str) -> bool:
    """Whether `text` holds NUL, or half a character, as which Python shows a byte of a file name that is not UTF-8."""
    return "\0" in text or any("\ud800" <= character <= "\udfff" for character in text)


def _too_deep(where: str) -> ScenarioError:
    return ScenarioError(f"{where} nests tables or arrays more than {MOST_DEEP} deep; write it flatter")


def _too_large(where: str) -> ScenarioError:
    return ScenarioError(
        f"{where} holds a whole number of more than 64 bits; allowed are {_WHOLE.start} to {_WHOLE.stop - 1}"
    )
