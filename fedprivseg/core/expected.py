"""What may answer an order: the one declaration that a site's gate and the server's intake read.

A method declares an `Expected` for each of its actions (`methods.method.Method.declares`). The gate lets nothing else out and
the server takes nothing else in, by the same rules (`policy.declaration`). All of it is closed: names, types, shapes, the words
of the history and the numbers of the shard follow from the order, the parameters and the grid, and from nothing that only the
site knows. What is left to a site are the values of its arrays, within their bounds, and lengths that count its slices.

A declaration also says whatever the server half of a method relies on, so that no site can send what would stop the run of the
others: ranges, and a check of counts that have to agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedprivseg.core.kinds import STATUS, KindSpec
from fedprivseg.core.records import Payload

MOST_SHARDS = 100_000
"""A stream has at most so many shards: a site must not make the server ask for ever."""

LONGEST = 1 << 24
"""The longest that a free length of an array may be, unless its `Array` says less."""

MOST_CODE = 2.0**15
"""Largest size of a value of a code: half of what float16 holds, so that a predicted code on a site's own scale has room in it.
Codes pass a batch norm and lie below 100; the noise of a protection may be a few thousand."""

MOST_WEIGHT = 1e6
"""Largest size of a value of an update: weights, running variances, mean gradients. Trained ones lie far below. With it the
squared distance of two updates of 10 million values is at most 4e19, which float32 holds, so no sum, norm or distance
overflows at the server."""

MOST_LOSS = 1e6
"""Largest mean loss. A cross-entropy of logits beyond that is that of a network that cannot be used."""

MOST_BUDGET = 1e9
"""Largest epsilon or noise multiplier that a site may say it spent or drew."""

MOST_MM = 1e4
"""Largest distance in mm: ten metres, more than any scanner's field of view."""

MOST_SUBJECTS, MOST_SLICES = 1_000_000, 1_000
"""Most subjects that a site may say it brings on one side, and most slices of one of them, all time points together."""


@dataclass(frozen=True)
class Array:
    """One array of a payload.

    Attributes:
        dtype: its type by name, such as ``float16``.
        shape: its length along each axis; None where a length is free, from 0 to `longest`.
        least: the least that a value may be; values of arrays without bounds are not looked at.
        most: the most that a value may be.
        longest: the longest that a free length may be.
    """

    dtype: str
    shape: tuple[int | None, ...]
    least: float = -math.inf
    most: float = math.inf
    longest: int = LONGEST


Check = Callable[[Payload, Mapping[str, int]], str | None]
"""``check(payload, facts)``: what is wrong with a payload that is otherwise as expected, in words, or None. facts: what its
site said in the roll call (`methods.method.Federation.facts`). For what no array shows by itself: counts that have to agree."""


def _nothing(payload: Payload, facts: Mapping[str, int]) -> None:
    return None


@dataclass(frozen=True)
class Expected:
    """The one form that the answer to an order may have.

    Attributes:
        kind: what it is.
        purpose: what for, in one word.
        arrays: its arrays by name: these and no others.
        history: what was done to the data, oldest first: these words and no others.
        views: for a shard of a stream, how many views of each slice the stream holds; 0: it is no shard of a stream, and
            says that it is the last of as many as the order's number counts.
        shards: how many shards the stream has, where that is known; 0: more than the order's number, up to `MOST_SHARDS`.
        check: what the server asks besides, by the counts of its roll call. Declarations that differ in it alone are equal.
    """

    kind: KindSpec
    purpose: str
    arrays: Mapping[str, Array]
    history: tuple[str, ...] = ()
    views: int = 0
    shards: int = 0
    check: Check = field(default=_nothing, compare=False)


DESCRIBE = "describe"
"""The one order that every site knows without a method: who it is and how much it brings."""


def _plausible(payload: Payload, facts: Mapping[str, int]) -> str | None:
    """Every subject has slices, and not more than a scan can have."""
    for side in ("train", "test"):
        subjects, slices = (int(payload.arrays[f"{name}_{side}"][0]) for name in ("subjects", "slices"))
        if not subjects <= slices <= subjects * MOST_SLICES:
            return f"it tells of {slices} slices of {subjects} subjects ({side}); a subject has 1 to {MOST_SLICES}"
    return None


DESCRIPTION = Expected(
    STATUS,
    "describe",
    {
        f"{name}_{side}": Array("int64", (1,), 0, MOST_SUBJECTS * (MOST_SLICES if name == "slices" else 1))
        for name in ("subjects", "slices")
        for side in ("train", "test")
    },
    check=_plausible,
)
"""What answers it."""
