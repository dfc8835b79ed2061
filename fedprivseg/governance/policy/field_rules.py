"""How one field of two policies meets, and how a change of it reads: the rule that stands beside each field of `SitePolicy`.

Of two policies together only what both allow is allowed, and what either demands is demanded. So each rule is one of five:
what is allowed meets in what both allow (`allowed`), what is demanded in all of it (`demanded`), a choice in its strict
side (`choice`), a number in the smaller one (`limit`), a group of numbers in the smaller of each (`limits`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FieldRule:
    """The rule of one field.

    Attributes:
        meet: the value that is as strict as each of two.
        words: sentences that say what changes from one value to another that differs.
        read_by: the rule ids of the gate, or the part of the package, that enforce the field.
    """

    meet: Callable[[Any, Any], Any]
    words: Callable[[Any, Any], Iterable[str]]
    read_by: tuple[str, ...]


def allowed(verb: str, *read_by: str) -> FieldRule:
    """The rule of a list of what may `verb`."""

    def words(before: tuple[str, ...], after: tuple[str, ...]) -> Iterable[str]:
        for said, names in (("No longer may", set(before) - set(after)), ("Now may", set(after) - set(before))):
            if names:
                yield f"{said} {verb}: {', '.join(sorted(names))}."

    return FieldRule(lambda one, other: tuple(each for each in one if each in other), words, read_by)


def demanded(now: str, before: str, *read_by: str, show: Callable[[Any], str] = str) -> FieldRule:
    """The rule of a list of demands: `now` and `before` begin the sentence for one that comes and one that goes."""

    def words(old: tuple[Any, ...], new: tuple[Any, ...]) -> Iterable[str]:
        yield from (f"{now}: {show(each)}." for each in new if each not in old)
        yield from (f"{before}: {show(each)}." for each in old if each not in new)

    return FieldRule(lambda one, other: one + tuple(each for each in other if each not in one), words, read_by)


def choice(strict: str, strictly: str, otherwise: str, *read_by: str) -> FieldRule:
    """The rule of a choice of two, of which `strict` is one; the sentences say that it is now made strictly, or otherwise."""
    return FieldRule(
        lambda one, other: one if one == other else strict,
        lambda _, after: (strictly if after == strict else otherwise,),
        read_by,
    )


def limit(sentence: str, *read_by: str, unlimited: Any = None, show: Callable[[Any], str] = str) -> FieldRule:
    """The rule of a number of which the smaller is stricter.

    Args:
        sentence: with ``{before}`` and ``{after}``.
        unlimited: the value for no limit.
        show: a value in words.
    """
    return FieldRule(
        lambda one, other: min(one, other, key=lambda each: float("inf") if each == unlimited else each),
        lambda before, after: (sentence.format(before=show(before), after=show(after)),),
        read_by,
    )


def limits(sentence: str, *read_by: str) -> FieldRule:
    """The rule of a model of numbers, each as in `limit`; `sentence` has ``{name}``, ``{before}`` and ``{after}``."""

    def meet(one: Any, other: Any) -> Any:
        return type(one)(**{name: min(value, getattr(other, name)) for name, value in one})

    def words(before: Any, after: Any) -> Iterable[str]:
        for name, value in before:
            if (new := getattr(after, name)) != value:
                yield sentence.format(name=name.replace("_", " "), before=f"{value:g}", after=f"{new:g}")

    return FieldRule(meet, words, read_by)
