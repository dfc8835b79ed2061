"""Dice against leakage: what an attack's record says in one number, who is dominated, and how much a front covers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedprivseg.core.kinds import kind_named

Point = tuple[float, float]
"""(leakage, Dice)."""

FLOOR = "local-only"
"""The method that every way of sharing has to beat: each site alone."""

REFERENCE: Point = (1.0, 0.0)
"""The worst: the images themselves are out, and nothing is segmented. A hypervolume is measured from here."""


@dataclass(frozen=True)
class Front:
    """The methods of one group that no other of the group is preferred to.

    Attributes:
        group: its name; ``all`` has every method that shares something.
        labels: who is on it, by leakage.
        of: how many have a leakage that is known.
        hypervolume: the area that it covers, 0 to 1 (`hypervolume`).
        unknown: who is not counted, because its leakage is not known or was not measured.
    """

    group: str
    labels: tuple[str, ...]
    of: int
    hypervolume: float
    unknown: tuple[str, ...]


def pareto(points: Iterable[Point]) -> list[Point]:
    """Those of `points` to which no other is preferred in both: less leakage and more Dice; by leakage."""
    front: list[Point] = []
    for leakage, dice in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or dice > front[-1][1]:
            front.append((leakage, dice))
    return front


def dominated(point: Point, others: Iterable[Point]) -> bool:
    """Whether one of `others` leaks no more and segments no worse, and is better in one of both."""
    return any(one != point and one[0] <= point[0] and one[1] >= point[1] for one in others)


def hypervolume(points: Iterable[Point], reference: Point = REFERENCE) -> float:
    """The area of what `points` dominate, up to `reference`: exact, by the steps of their front.

    Zitzler and Thiele, IEEE Transactions on Evolutionary Computation 3(4):257, 1999; less leakage and more Dice are better.

    Args:
        points: (leakage, Dice); those that are no better than the reference in one of both add nothing.
        reference: the worst (leakage, Dice).
    """
    front = pareto(point for point in points if point[0] < reference[0] and point[1] > reference[1])
    ends = [*(leakage for leakage, _ in front), reference[0]][1:]
    return sum((end - leakage) * (dice - reference[1]) for (leakage, dice), end in zip(front, ends, strict=True))


def shares_nothing(method: str, exports: Iterable[str]) -> bool:
    """Whether a method needs nothing to leave that was made of training subjects or of slices, only scores and counts.

    ``local-only`` needs nothing either: where its networks leave it is to be measured at the other sites.
    """
    return method == FLOOR or not any(kind_named(each).derived_from in ("slices", "train") for each in exports)


def group_of(exports: Iterable[str]) -> str:
    """What kind of sharing it is, by what leaves."""
    lineages = {kind_named(each).lineage for each in exports}
    if "raw" in lineages:
        return "raw data"
    words = {"code": "codes", "weights": "averaging"}
    found = [word for lineage, word in words.items() if lineage in lineages]
    if found == ["codes"]:
        return "codes-only"
    return " and ".join(found) or "nothing shared"


def fronts(points: Sequence[tuple[str, str, Point | None]]) -> tuple[Front, ...]:
    """The front of every group, and of all together first.

    Args:
        points: label, group and (leakage, Dice) of each method that shares something; None where it is not known.
    """
    groups = sorted({group for _, group, _ in points})
    return tuple(
        _front(group, [(label, point) for label, own, point in points if group in ("all", own)])
        for group in (["all", *groups] if points else [])
    )


def _front(group: str, points: Sequence[tuple[str, Point | None]]) -> Front:
    known = [(label, point) for label, point in points if point is not None]
    best = pareto(point for _, point in known)
    return Front(
        group=group,
        labels=tuple(next(label for label, own in known if own == point) for point in best),
        of=len(known),
        hypervolume=hypervolume(best),
        unknown=tuple(label for label, point in points if point is None),
    )
