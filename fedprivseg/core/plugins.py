"""Parts that can be added to this package: methods, attacks, protections and data sets, ours and those of other packages.

Another package adds a part by an entry point in the group ``fedprivseg.<parts>``, whose name is the name of the part. It is
loaded when it is asked for or listed, and not before. A plug-in's code runs wherever ours does, also at the sites: that is why
its package and version are listed, and stand in the result of a run that used it. What is installed changes no scenario.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any, Generic, Protocol, TypeVar, final

from fedprivseg.core.errors import RequestError, ScenarioError
from fedprivseg.core.validation import suggestion


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Part = TypeVar("Part", bound=_Named)
"""A class, or an object, with a name."""


@final
@dataclass(frozen=True)
class Origin:
    """Where a part comes from: a distribution as pip knows it."""

    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


@cache
def _ours() -> Origin:
    return Origin("fedprivseg", version("fedprivseg"))


@final
class Registry(Generic[Part]):
    """All parts of one sort, by name: ours first, then plug-ins.

    Args:
        sort: what one is called, such as ``method``. Entry points are in the group ``fedprivseg.<sort>s``.
        base: what each must be a final subclass of.
        own: ours.
    """

    def __init__(self, sort: str, base: type, own: tuple[Part, ...]) -> None:
        self.sort, self._base = sort, base
        self.own = {part.name: part for part in own}

    def __iter__(self) -> Iterator[Part]:
        """Every part. Raises RequestError for a plug-in that is broken or has the name of another part."""
        return iter([*self.own.values(), *map(self._loaded, self._plugins.values())])

    def __len__(self) -> int:
        """How many parts there are; nothing is loaded."""
        return len(self.names)

    def __contains__(self, part: object) -> bool:
        """Whether it is one of the parts. Raises RequestError as iterating does."""
        return any(part is each for each in self)

    @property
    def names(self) -> list[str]:
        """The names of all parts; nothing is loaded. Raises RequestError for a name that two parts have."""
        return [*self.own, *self._plugins]

    def find(self, name: str) -> Part:
        """The part of that name. Raises ScenarioError that names the known ones, RequestError for a broken plug-in."""
        if name in self.own:
            return self.own[name]
        if name in self._plugins:
            return self._loaded(self._plugins[name])
        hint = suggestion(name, self.names)
        raise ScenarioError(f"unknown {self.sort} {name!r}{hint}; the {self.sort}s are: {', '.join(self.names)}")

    def origin(self, name: str) -> Origin:
        """Where the part of that name, which must be there, comes from."""
        return _ours() if name in self.own else _origin(self._plugins[name])

    def packages(self, names: Iterable[str]) -> dict[str, str]:
        """The packages, with their versions, of those of the named parts that are plug-ins."""
        origins = [self.origin(name) for name in names]
        return {each.package: each.version for each in origins if each != _ours()}

    @cached_property
    def _plugins(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for entry in sorted(entry_points(group=f"fedprivseg.{self.sort}s"), key=lambda each: each.name):
            taken = _ours() if entry.name in self.own else _origin(found[entry.name]) if entry.name in found else None
            if taken is not None:
                raise RequestError(
                    f"{self._words(entry)} has the name of a {self.sort} of {taken}; a name stands for one {self.sort}. "
                    f"{_remedy(entry)}"
                )
            found[entry.name] = entry
        return found

    def _loaded(self, entry: EntryPoint) -> Part:
        try:
            part = entry.load()
        except Exception as fault:  # whatever a stranger's module raises when it is imported
            raise RequestError(
                f"{self._words(entry)} cannot be loaded: {type(fault).__name__}: {fault}. {_remedy(entry)}"
            ) from fault
        if wrong := self._wrong(part, entry):
            raise RequestError(f"{self._words(entry)} {wrong}. {_remedy(entry)}")
        return part

    def _wrong(self, part: Any, entry: EntryPoint) -> str:
        """What is wrong with a plug-in, empty if nothing is."""
        if not (isinstance(part, type) and issubclass(part, self._base)):
            return (
                f"is no {self._base.__name__}: it must name a subclass of {self._base.__module__}.{self._base.__name__}"
            )
        if inspect.isabstract(part):
            lacking = [name for name, each in inspect.getmembers(part) if getattr(each, "__isabstractmethod__", False)]
            return f"does not define {', '.join(lacking)}"
        if getattr(part, "name", None) != entry.name:
            return f"names a class whose own name is {getattr(part, 'name', None)!r}; make the two equal"
        return ""

    def _words(self, entry: EntryPoint) -> str:
        return f"the plug-in {entry.name!r} (entry point {entry.value} in {entry.group}) of package {_origin(entry)}"


def _origin(entry: EntryPoint) -> Origin:
    assert entry.dist is not None, "entry points of installed packages have one"
    return Origin(entry.dist.name, entry.dist.version)


def _remedy(entry: EntryPoint) -> str:
    return f"Correct it, or uninstall it: pip uninstall {_origin(entry).package}"
