"""Images from an update of weights by a map that was learned on updates of the adversary's own images.

The adversary knows the weights before, how the site trains and, generously, the outlines of the slices. So it can rehearse:
train as the site does, under these very outlines, on images of its own in the place of the site's. From some hundreds of such
pairs it learns the inverse map, by kernel ridge regression with a Gaussian kernel. All rehearsals share the outlines, so what
the map reconstructs beyond the mean of the adversary's images it has from the update; and an update unlike all rehearsals, such
as noise, is far from each of them and gives that mean. Only the direction of each array counts: lengths depend on clipping and
rates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from fedprivseg.attacks.base import UpdateAttack, UpdateView
from fedprivseg.core.measures import ssim
from fedprivseg.core.seeds import numpy_generator, torch_generator
from fedprivseg.nets.augment import Augmentation, augment
from fedprivseg.nets.baseline import Weights

REHEARSALS = 2
"""For each step of the effort."""

HELD_OUT = 0.15
"""Share of the adversary's images, the last ones, whose rehearsals decide on the kernel's width and the penalty."""

KEPT = 1024
"""Numbers that are kept of an array of more than as many: random signed sums (count sketch, Charikar et al., ICALP 2002)."""

WIDTHS = (0.3, 1.0)
"""Of the kernel, tried: squared, in median squared distances of two rehearsals."""

PENALTIES = tuple(10.0**power for power in range(-2, 2))

WARP = Augmentation(
    rotation=10.0, scale=0.1, shift=0.04, flip=False, elastic=0.02, gamma=0.2, contrast=0.2, brightness=0.05, noise=0.0,
    blur=0.0, bias=0.0,
)  # fmt: skip
"""How the images are multiplied: less than for an inverter of codes, since a map from so few pairs cannot learn mirrors."""

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
        """The sketch of updates that look like this one."""
        sums: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}
        for name in sorted(update):
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
        return np.concatenate(parts).astype(np.float32)


Invert = Callable[[Weights], np.ndarray]
"""An update, weights before minus after -> images (B, 1, H, W) float32 in 0..1."""


def learn(view: UpdateView) -> Invert:
    """Learn the map for updates of the slices of `view`, whose own update is not looked at."""
    seed, auxiliary, slices = view.seed("rehearsals", *view.slices), view.auxiliary, len(view.slices)
    count = max(4, REHEARSALS * view.effort.steps)
    cut = max(1, min(round(len(auxiliary) * (1 - HELD_OUT)), len(auxiliary) - 1))
    fitted = max(2, min(round(count * (1 - HELD_OUT)), count - 1))
    own = _warped(auxiliary[:cut], (fitted, slices), seed, "own")
    rest = _warped(auxiliary[cut:], (count - fitted, slices), seed, "held out")
    pictures = np.concatenate([own, rest])
    first = view.rehearse(pictures[0])
    sketch = Sketch.of(first, seed)
    rows = [sketch(first)]
    for batch in pictures[1:]:
        rows.append(sketch(view.rehearse(batch)))
        view.progress(NAME, len(rows), count)
    sketches = np.stack(rows)
    centre = sketches.mean(axis=0)
    # A value that is the same in all rehearsals, as a dead channel's, would blow up on the first update where it is not.
    spread = np.maximum(sketches.std(axis=0), 1e-3 * sketches.std())
    rehearsed = (sketches - centre) / spread
    mean = auxiliary.mean(axis=0)
    beyond = (pictures - mean).reshape(count, -1)
    distances = _distances(rehearsed, rehearsed)
    middle = float(np.median(distances[np.triu_indices(fitted, 1)]))

    def likeness(choice: tuple[float, float]) -> float:
        kernel = _kernel(distances, choice[0] * middle)
        found = kernel[fitted:, :fitted] @ _duals(kernel[:fitted, :fitted], beyond[:fitted], choice[1])
        output = np.clip(found.reshape(-1, *mean.shape) + mean, 0, 1)
        return float(ssim(output, pictures[fitted:].reshape(-1, *mean.shape)).mean())

    width, penalty = max(((width, penalty) for width in WIDTHS for penalty in PENALTIES), key=likeness)
    duals = _duals(_kernel(distances, width * middle), beyond, penalty)

    def invert(update: Weights) -> np.ndarray:
        seen = ((sketch(update) - centre) / spread)[None]
        found = _kernel(_distances(seen, rehearsed), width * middle) @ duals
        return np.clip(mean + found.reshape(slices, *mean.shape), 0, 1).astype(np.float32)[:, None]

    return invert


@final
class LearnedInversion(UpdateAttack):
    """Rehearses, learns the inverse map, and applies it; one map serves all updates of the same slices."""

    name = NAME
    title = "Learned inversion"
    paper = "Wu et al. (Learning to Invert), UAI 2023"
    knows = "the released update, the weights before it, how the site trains, the outlines, and pictures from elsewhere"

    def __init__(self) -> None:
        self._maps: dict[tuple[int, ...], Invert] = {}

    def reconstruct(self, view: UpdateView) -> np.ndarray:
        """What the map of these slices makes of the update."""
        if view.slices not in self._maps:
            self._maps[view.slices] = learn(view)
        return self._maps[view.slices](view.update)


def _warped(images: np.ndarray, shape: tuple[int, int], seed: int, name: str) -> np.ndarray:
    """(N, B, H, W): warped images, every one as often as any other."""
    total = shape[0] * shape[1]
    draws = numpy_generator(seed, NAME, name)
    rounds = [draws.permutation(len(images)) for _ in range(-(-total // len(images)))]
    chosen = torch.from_numpy(images[np.concatenate(rounds)[:total]])[:, None]
    masks = torch.zeros(total, *images.shape[1:], dtype=torch.uint8)
    warped, _ = augment(chosen, masks, WARP, torch_generator(seed, NAME, name, "warp"))
    return warped.numpy().reshape(*shape, *images.shape[1:])


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squared distances (A, B) of two sets of vectors, in float64."""
    products = (one @ other.T).astype(np.float64)
    return np.maximum(np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1) - 2 * products, 0)


def _kernel(distances: np.ndarray, width: float) -> np.ndarray:
    return np.asarray(np.exp(-distances / (2 * max(width, 1e-12))))


def _duals(kernel: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    return np.linalg.solve(kernel + penalty * np.eye(len(kernel)), targets)
