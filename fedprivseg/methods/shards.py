"""How a stream of codes or slices is cut into shards: slices view by view, at most so many a shard.

The site cuts by it, the server and the site's gate check by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from fedprivseg.core.expected import Check
from fedprivseg.core.records import Payload


def shards_of(count: int, most: int, views: int) -> int:
    """How many shards of at most `most` slices the `views` views of `count` slices make; of no slices, one without rows."""
    return part_of(0, count, most)[2] * (views if count else 1)


def part_of(number: int, count: int, most: int) -> tuple[int, slice, int]:
    """What a shard of a stream holds that goes through slices view by view.

    Args:
        number: of the shard.
        count: how many slices there are.
        most: most slices in a shard.

    Returns:
        The view, the places of its slices, and how many shards a view has (at least one).
    """
    parts = max(1, -(-count // most))
    view, part = divmod(number, parts)
    return view, slice(part * most, min((part + 1) * most, count)), parts


def in_parts(side: Literal["train", "test"], views: int, most: int) -> Check:
    """The check of a stream of codes or slices: every shard holds the rows that `part_of` gives it, for as many slices as the
    site said in the roll call. Streams of the same slices then have equally many rows. A site without such slices sends one
    shard without rows.

    Args:
        side: of whose slices.
        views: of each slice.
        most: most slices in a shard.
    """

    def check(payload: Payload, facts: Mapping[str, int]) -> str | None:
        count = facts[f"slices_{side}"]
        _, places, _ = part_of(payload.shard, count, most)
        shards, rows = shards_of(count, most, views), max(0, places.stop - places.start)
        (array,) = payload.arrays.values()
        if not count and len(array):
            return f"it said that it has no slices of that side, and sends {len(array)}"
        if (len(array), payload.shards) == (rows, shards):
            return None
        return (
            f"shard {payload.shard} of {payload.shards} holds {len(array)} rows; of {count} slices in {views} views it is one "
            f"of {shards} and holds {rows}"
        )

    return check
