"""Images from an update of weights by a map that was learned on updates of the adversary's own images (`rehearsal`).

The map looks at the direction of each array, as lengths depend on clipping and rates, and at the statistics of the batch where
the network releases them. The adversary knows, generously, the outlines of the slices: all rehearsals share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import nn

from fedprivseg.attacks.base import UpdateAttack, UpdateView
from fedprivseg.attacks.rehearsal import (
    Features,
    Invert,
    OwnImages,
    concatenated,
    learn,
    own_images,
    rehearsals,
    rehearse,
)
from fedprivseg.attacks.statistics_inversion import statistics_features
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.nets.baseline import Weights
from fedprivseg.nets.local_training import Work

KEPT = 1024
"""Numbers that are kept of an array of more than as many: random signed sums (count sketch, Charikar et al., ICALP 2002)."""

NAME = "learned-inversion"


@final
@dataclass(frozen=True)
class Sketch:
    """Directions of updates as vectors of a few thousand numbers.

    Attributes:
        sums: of a large array, where each of its values is added, and with what sign; None for a small one.
    """

    sums: Mapping[str, tuple[np.ndarray, np.ndarray] | None]

    @classmethod
    def of(cls, update: Weights, seed: int) -> Sketch:
        """The sketch of updates that look like this one; running statistics, which have no direction, are left out."""
        sums: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}
        for name in sorted(name for name in update if "running_" not in name):
            size, draws = update[name].size, numpy_generator(seed, NAME, "sketch", name)
            sums[name] = None
            if size > KEPT:
                sums[name] = draws.integers(0, KEPT, size), draws.choice(np.array([-1.0, 1.0]), size)
        return cls(sums)

    def __call__(self, update: Weights) -> np.ndarray:
        """(F,) float32; each array's part has length 1, or 0 where the update does not touch it."""
        parts = []
        for name, places in self.sums.items():
            values = update[name].ravel().astype(np.float64)
            part = values if places is None else np.bincount(places[0], values * places[1], KEPT)
            parts.append(part / max(float(np.linalg.norm(part)), 1e-30))
        return concatenated(parts)


@final
class LearnedInversion(UpdateAttack):
    """Rehearses, learns the inverse map, and applies it; one map serves all updates of the same slices and network, and what is
    rehearsed with serves all networks."""

    name = NAME
    title = "Learned inversion"
    paper = "Wu et al. (Learning to Invert), UAI 2023"
    knows = "the released update, the weights before it, how the site trains, the outlines, and pictures from elsewhere"

    def __init__(self) -> None:
        self._maps: dict[tuple[Callable[[], nn.Module], tuple[int, ...], Work], Invert] = {}
        self._own: dict[tuple[tuple[int, ...], int], OwnImages] = {}

    def reconstruct(self, view: UpdateView) -> np.ndarray:
        """What the map of these slices makes of the update."""
        alike = view.build, view.slices, view.work
        if alike not in self._maps:
            drawn = view.slices, rehearsals(view)
            if drawn not in self._own:
                self._own[drawn] = own_images(view, NAME)
            self._maps[alike] = map_of(view, self._own[drawn])
        return self._maps[alike](view.update)


def map_of(view: UpdateView, own: OwnImages) -> Invert:
    """The map for updates of the slices of `view`, whose own update is not looked at. Rehearsals take as many steps as it; own:
    their images."""
    statistics = statistics_features(view.build(), view.work.steps)
    seed = view.seed("rehearsals", *view.slices)

    def features(first: Weights) -> Features:
        sketch = Sketch.of(first, seed)
        return lambda update: concatenated([sketch(update), statistics(update)])

    return learn(own, *rehearse(view, own, features, NAME))
