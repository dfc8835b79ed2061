"""Where a payload departs from what the method declares: names, types, shapes, bounds, history, numbers.

These are what a payload states beside the values of its arrays, and each could carry a patient's code out in words or numbers.
So nothing here is free: what is not declared is refused, and no reason repeats what was found, since a reason leaves the
site as well. Values of arrays are looked at only where the declaration bounds them; nobody can tell from weights
or codes what they were made to disclose.
"""

from __future__ import annotations

import math

import numpy as np

from fedprivseg.core.expected import MOST_SHARDS, Array, Expected
from fedprivseg.core.records import Decision, Payload

CLAUSE = "5.6.2-b"
_FEW = 6  # names that a reason lists; a network has hundreds


def departure(payload: Payload, expected: Expected | None, number: int) -> Decision | None:
    """The refusal of `payload` as an answer to an order; None if it is exactly what is declared.

    Args:
        payload: what would leave.
        expected: what the method declares of the answer; None if it declares nothing, and then nothing may leave.
        number: the order's number.
    """
    if expected is None:
        return _refused("absent", "The method does not declare what may answer this order.")
    if payload.kind != expected.kind:
        return _refused("kind", f"The method declares that '{expected.kind}' answers this order, not '{payload.kind}'.")
    if payload.purpose != expected.purpose:
        return _refused("purpose", f"The payload is for something else than '{expected.purpose}', as is declared.")
    return _numbers(payload, expected, number) or _history(payload, expected) or _arrays(payload, expected)


def _numbers(payload: Payload, expected: Expected, number: int) -> Decision | None:
    if payload.shard != number:
        return _refused("shard", f"The payload gives itself another number than the order's, which is {number}.")
    if not expected.views:
        if payload.shards != number + 1:
            return _refused("shards", f"The payload counts other shards than the {number + 1} that are declared.")
        return None
    if expected.shards and payload.shards != expected.shards:
        reason = f"The payload counts other shards than the {expected.shards} that this site's slices make."
        return _refused("shards", reason)
    if not number < payload.shards <= MOST_SHARDS:
        reason = f"The payload counts more or fewer shards than a stream has: from {number + 1} to {MOST_SHARDS}."
        return _refused("shards", reason)
    return None


def _history(payload: Payload, expected: Expected) -> Decision | None:
    if payload.history == expected.history:
        return None
    differ = sum(one != other for one, other in zip(payload.history, expected.history, strict=False))
    more = abs(len(payload.history) - len(expected.history))
    reason = (
        f"The history is not the one of {len(expected.history)} steps that method and protections declare: "
        f"{differ + more} of them differ, are missing or are more."
    )
    return _refused("history", reason)


def _arrays(payload: Payload, expected: Expected) -> Decision | None:
    if set(payload.arrays) != set(expected.arrays):
        unknown = len(set(payload.arrays) - set(expected.arrays))
        absent = len(set(expected.arrays) - set(payload.arrays))
        names = ", ".join(sorted(expected.arrays)[:_FEW]) + (", ..." if len(expected.arrays) > _FEW else "")
        reason = (
            f"{unknown} of the arrays have names that are not declared, and {absent} that are declared are missing."
        )
        return _refused("names", f"{reason} Declared are {len(expected.arrays)}: {names or 'none'}.")
    for name, form in sorted(expected.arrays.items()):
        found, which = payload.arrays[name], f"Array {name!r}"  # the name is one of those declared
        if found.dtype.name != form.dtype:
            return _refused("dtype", f"{which} is of another type than {form.dtype}, as is declared.")
        if not _fits(form, found.shape):
            axes = ", ".join("any" if length is None else str(length) for length in form.shape)
            return _refused(
                "shape", f"{which} has another shape than is declared: ({axes}), free up to {form.longest}."
            )
        if _beyond(form, found):
            return _refused(
                "range", f"{which} holds values beyond what is declared, from {form.least:g} to {form.most:g}."
            )
    return None


def _fits(form: Array, shape: tuple[int, ...]) -> bool:
    return len(shape) == len(form.shape) and all(
        have <= form.longest if want is None else have == want for want, have in zip(form.shape, shape, strict=True)
    )


def _beyond(form: Array, found: np.ndarray) -> bool:
    if not found.size or (form.least == -math.inf and form.most == math.inf):
        return False
    return bool(found.min() < form.least or found.max() > form.most)


def _refused(what: str, reason: str) -> Decision:
    return Decision(False, f"declaration.{what}", reason, CLAUSE)
