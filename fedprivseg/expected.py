"""What may answer an order: the one declaration that a site's gate and the server's intake read.

A method declares an `Expected` for each of its actions (`methods.method.Method.declares`). The gate lets nothing else out
(`policy.declaration`), and the server takes nothing else in. All of it is closed: names, types, shapes, the words of the
history and the numbers of the shard follow from the order, the parameters and the grid, and from nothing that only the site
knows. What is left to a site are the values of its arrays, and lengths that count its slices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedprivseg.records import Kind

MOST_SHARDS = 100_000
"""A stream has at most so many shards: a site must not make the server ask for ever."""

LONGEST = 1 << 24
"""The longest that a free length of an array may be, unless its `Array` says less."""


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
    """

    kind: Kind
    purpose: str
    arrays: Mapping[str, Array]
    history: tuple[str, ...] = ()
    views: int = 0
    shards: int = 0


DESCRIBE = "describe"
"""The one order that every site knows without a method: who it is and how much it brings."""

DESCRIPTION = Expected(
    Kind.STATUS,
    "describe",
    {
        key: Array("int64", (1,), least=0, most=10_000_000)
        for key in ("subjects_train", "subjects_test", "slices_train", "slices_test")
    },
)
"""What answers it."""
