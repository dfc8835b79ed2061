"""Whether masks are those of a heart: what a label is shows in the anatomy, whatever a file says.

In a short-axis slice the myocardium is a ring around the LV; the RV lies beside it and touches it with the septum alone. So
the label that stands for the LV is the one whose border is all myocardium, and the LV is larger at ED than at ES. The *share*
of a label's border is counted slice by slice: of all pairs of neighbouring pixels (edge to edge, in the plane) of which one
has the label and the other has not, those whose other pixel has the second label. A pixel at the edge of the picture has
background beside it.

Measured on 39 subjects of ACDC and M&Ms and 33 phantoms, ED and ES: the share of the LV's border that touches myocardium is
0.94 or more in every real slice, 0.53 or more in every slice of the phantom (where the outflow opens the ring), and 0.94 or
more over a whole mask; the share of any other pair of labels is 0.50 or less in every slice. The LV at ES has 0.15 to 0.90 of
its volume at ED. So `ENCLOSED` lies far from both, and what is warned of is not a matter of degree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

STRUCTURES = ("LV", "MYO", "RV")
"""What the labels 1, 2, 3 of M&Ms stand for."""

PHASES = ("ED", "ES")
"""End-diastole and end-systole, the two annotated phases."""

ENCLOSED = 0.75
"""The share of a label's border from which on the second label encloses it."""

_FEWEST = 12
"""Pairs of pixels below which a border is a stray speck; the smallest LV of a real slice has 12."""

_KNOWN_ORDERS = {STRUCTURES: "that of M&Ms", ("RV", "MYO", "LV"): "that of ACDC"}


@dataclass(frozen=True)
class Issue:
    """One implausible thing. kind: a key of `release.WARNINGS`. what: the particulars, without code or path."""

    kind: str
    what: str


def implausible(
    masks: Mapping[str, np.ndarray], voxel_ml: float, order: Sequence[str] = STRUCTURES
) -> tuple[Issue, ...]:
    """What does not look like a heart in the masks of one subject; empty for a sound one.

    Args:
        masks: Phase -> mask (X, Y, Z) uint8 of the labels 0 background, 1 LV, 2 MYO, 3 RV; what is neither ED nor ES is judged
            alone.
        voxel_ml: The volume of a voxel in ml, above 0.
        order: What 1, 2, 3 stood for in the file, if it was put in order: what is said is said of the file's labels.
    """
    found: list[Issue] = []
    ml: dict[str, float] = {}
    for phase, mask in masks.items():
        if absent := [name for label, name in enumerate(STRUCTURES, start=1) if not (mask == label).any()]:
            found.append(Issue("missing-structure", f"{phase} has no voxel of {' and '.join(absent)}"))
            continue
        cavity, doubt = _ring(phase, mask, order)
        found += [doubt] if doubt else []
        ml[phase] = int((mask == cavity).sum()) * voxel_ml
    if set(PHASES) <= set(ml) and ml["ES"] >= ml["ED"]:
        what = (
            f"the LV has {ml['ED']:.0f} ml at ED and {ml['ES']:.0f} ml at ES; are the two exchanged, in table or mask?"
        )
        found.append(Issue("phase-order", what))
    return tuple(found)


def _ring(phase: str, mask: np.ndarray, stated: Sequence[str]) -> tuple[int, Issue | None]:
    """Which label is the LV by the anatomy of `mask`, all of whose structures are there, and what is wrong with it."""
    touching = _borders(mask)
    borders = touching.sum(axis=2)
    shares = touching / np.maximum(borders, 1)[:, :, None]
    lv, myo = 1, 2
    rings: Counter[tuple[int, int]] = Counter()
    for z in range(len(shares)):
        for cavity, wall in np.argwhere(shares[z, 1:, 1:] >= ENCLOSED) + 1:
            if borders[z, cavity] >= _FEWEST:
                rings[int(cavity), int(wall)] += 1
    right = rings.pop((lv, myo), 0)
    if rings:
        (cavity, wall), slices = rings.most_common(1)[0]
        what = f"{phase}: in {slices} of {slices + right} slices {_orders(cavity, wall, stated)}"
        return cavity if slices > right else lv, Issue("label-order", what)
    share = touching[:, lv, myo].sum() / max(borders[:, lv].sum(), 1)
    if share < ENCLOSED:
        what = f"{phase}: myocardium makes {share:.0%} of the LV's border; in a heart it is nearly all"
        return lv, Issue("open-myocardium", what)
    return lv, None


def _orders(cavity: int, wall: int, stated: Sequence[str]) -> str:
    """What it means that label `wall` encloses label `cavity`, said of the labels in a file that were read as `stated`."""
    read = [stated.index(name) + 1 for name in STRUCTURES]  # place in STRUCTURES -> label in the file
    (other,) = {1, 2, 3} - {cavity, wall}
    names = {read[cavity - 1]: "LV", read[wall - 1]: "MYO", read[other - 1]: "RV"}
    order = tuple(names[label] for label in (1, 2, 3))
    known = f" ({_KNOWN_ORDERS[order]})" if order in _KNOWN_ORDERS else ""
    labels = ", ".join(f'{label} = "{name}"' for label, name in enumerate(order, start=1))
    return (
        f"label {read[wall - 1]} encloses label {read[cavity - 1]} as myocardium encloses the LV, so the order looks like "
        f"{_listed(order)}{known}; it was read as {_listed(stated)}. Correct the mask, or, if all masks of the site are so, "
        f"state labels = {{ {labels} }} in its site.toml and check with --sites"
    )


def _listed(order: Sequence[str]) -> str:
    return ", ".join(f"{label} {name}" for label, name in enumerate(order, start=1))


def _borders(mask: np.ndarray) -> np.ndarray:
    """(Z, 4, 4) counts: in slice z, pairs of neighbours of which one has label a and the other b; 0 for a = b."""
    rows, columns = (np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    heart = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels = np.pad(heart, ((1, 1), (1, 1), (0, 0))).astype(np.intp)
    depth = labels.shape[2]
    place = np.arange(depth) * 16
    counts = np.zeros(depth * 16, np.int64)
    for one, other in ((labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])):
        counts += np.bincount((place + 4 * one + other).ravel(), minlength=depth * 16)
    both = counts.reshape(depth, 4, 4)
    both = both + both.transpose(0, 2, 1)
    both[:, range(4), range(4)] = 0
    return both
