"""Maps from updates to images that an adversary learns by rehearsing: kernel ridge regression on updates of its own images.

The adversary knows the weights before and how the site trains. So it can train as the site does on images of its own in the
place of the site's, and see what update comes of them. From some hundreds of such pairs it learns the inverse map, by kernel
ridge regression with a Gaussian kernel. What the map reconstructs beyond the mean of the adversary's images it has from the
update; an update unlike all rehearsals, such as noise, is far from each of them and gives that mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch

from fedprivseg.attacks.base import UpdateView
from fedprivseg.core.seeds import numpy_generator, torch_generator
from fedprivseg.nets.augment import Augmentation, augment
from fedprivseg.nets.baseline import Weights

PASSES = 3
"""Slices that pass the network in rehearsals, for each step of the effort; a step of one slice counts as one of two."""

FEWEST = 16
"""Rehearsals at least, however long one takes."""

HELD_OUT = 0.15
"""Share of the adversary's images, the last ones, whose rehearsals decide on the kernel's width and the penalty."""

WIDTHS = (0.3, 1.0, 3.0)
"""Of the kernel, tried: squared, in median squared distances of two rehearsals."""

PENALTIES = tuple(10.0**power for power in range(-6, 2))

WARP = Augmentation(
    rotation=20.0, scale=0.2, shift=0.08, flip=False, elastic=0.05, gamma=0.3, contrast=0.3, brightness=0.08, noise=0.0,
    blur=0.0, bias=0.2,
)  # fmt: skip
"""How the images are multiplied: much, since they come from few patients (with half of it, the statistics of one ACDC slice
explain 0.34 of the squared error instead of 0.40), but without mirrors, which a map from so few pairs cannot learn."""

Features = Callable[[Weights], np.ndarray]
"""An update, weights before minus after -> what the map looks at, (F,) float32."""

Invert = Callable[[Weights], np.ndarray]
"""An update -> images (B, 1, H, W) float32 in 0..1."""


@final
@dataclass(frozen=True)
class OwnImages:
    """The adversary's own images in the place of the site's, one batch a rehearsal; the same for every network.

    Attributes:
        pictures: (N, B, H, W) float32.
        fitted: how many of the N, the first ones, choose the map; the others, of other images, judge the choice.
        mean: (H, W), of all the adversary's images, which the map adds to.
    """

    pictures: np.ndarray
    fitted: int
    mean: np.ndarray

    @property
    def beyond(self) -> np.ndarray:
        """What of the pictures is not the mean, (N, B * H * W) float64."""
        return (self.pictures - self.mean).reshape(len(self.pictures), -1).astype(np.float64)

    @cached_property
    def products(self) -> np.ndarray:
        """Of `beyond`, each with each: (N, N)."""
        beyond = self.beyond
        return np.asarray(beyond @ beyond.T)


def rehearsals(view: UpdateView) -> int:
    """How many the effort allows."""
    return max(FEWEST, PASSES * view.effort.steps // (view.work.steps * max(2, view.work.batch)))


def own_images(view: UpdateView, name: str) -> OwnImages:
    """Those that are rehearsed for the slices of `view`. name: of the attack, for its draws."""
    seed, auxiliary, slices, count = (
        view.seed("rehearsals", *view.slices),
        view.auxiliary,
        len(view.slices),
        rehearsals(view),
    )
    cut = max(1, min(round(len(auxiliary) * (1 - HELD_OUT)), len(auxiliary) - 1))
    fitted = max(2, min(round(count * (1 - HELD_OUT)), count - 1))
    own = _warped(auxiliary[:cut], (fitted, slices), seed, name, "own")
    rest = _warped(auxiliary[cut:], (count - fitted, slices), seed, name, "held out")
    return OwnImages(np.concatenate([own, rest]), fitted, auxiliary.mean(axis=0))


def rehearse(
    view: UpdateView, own: OwnImages, features: Callable[[Weights], Features], name: str
) -> tuple[np.ndarray, Features]:
    """Train as the site would on each batch; the update of `view` itself is not looked at.

    Args:
        view: whose slices are replaced.
        own: by what.
        features: the first rehearsed update -> the features of all updates like it.
        name: of the attack, for its progress.

    Returns:
        The features (N, F) of the updates, and what made them.
    """
    first = view.rehearse(own.pictures[0])
    of = features(first)
    rows = [of(first)]
    for batch in own.pictures[1:]:
        rows.append(of(view.rehearse(batch)))
        view.progress(name, len(rows), len(own.pictures))
    return np.stack(rows), of


def learn(own: OwnImages, made: np.ndarray, features: Features) -> Invert:
    """The inverse map that reconstructs the held-out rehearsals best, by squared error, fitted to all of them.

    Args:
        own: the images of the rehearsals.
        made: the features (N, F) of their updates.
        features: of an update, as in `made`.
    """
    fitted, products = own.fitted, own.products  # to judge needs no more of the pictures
    centre = made.mean(axis=0)
    # A value that is the same in all rehearsals, as a dead channel's, would blow up on the first update where it is not.
    spread = np.maximum(made.std(axis=0), 1e-3 * made.std())
    rehearsed = (made - centre) / np.maximum(spread, 1e-30)
    distances = _distances(rehearsed, rehearsed)
    middle = float(np.median(distances[np.triu_indices(fitted, 1)]))

    def judged(kernel: np.ndarray, penalty: float) -> tuple[float, float]:
        """(squared error on the held-out, less what no choice changes; the factor beyond the mean that makes it least)."""
        weights = _duals(kernel[:fitted, :fitted], kernel[:fitted, fitted:], penalty).T
        size = float((weights @ products[:fitted, :fitted] * weights).sum())
        right = float((weights * products[fitted:, :fitted]).sum())
        factor = max(0.0, right / max(size, 1e-30))
        return factor**2 * size - 2 * factor * right, factor

    tried = dict[tuple[float, float], tuple[float, float]]()
    for width in WIDTHS:
        kernel = _kernel(distances, width * middle)
        tried |= {(width, penalty): judged(kernel, penalty) for penalty in PENALTIES}
    width, penalty = min(tried, key=lambda choice: tried[choice][0])
    factor = tried[width, penalty][1]
    kernel = _kernel(distances, width * middle)

    def invert(update: Weights) -> np.ndarray:
        seen = ((features(update) - centre) / np.maximum(spread, 1e-30))[None]
        # The weights of rehearsals in one update: it takes far fewer sums than those in every pixel.
        weights = _duals(kernel, _kernel(_distances(rehearsed, seen), width * middle), penalty)
        found = factor * weights.T @ own.beyond
        return np.clip(own.mean + found.reshape(-1, *own.mean.shape), 0, 1).astype(np.float32)[:, None]

    return invert


def concatenated(parts: Sequence[np.ndarray]) -> np.ndarray:
    """All numbers as one vector, float32."""
    return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)


def _warped(images: np.ndarray, shape: tuple[int, int], seed: int, *names: str) -> np.ndarray:
    """(N, B, H, W): warped images, every one as often as any other."""
    total = shape[0] * shape[1]
    draws = numpy_generator(seed, *names)
    rounds = [draws.permutation(len(images)) for _ in range(-(-total // len(images)))]
    chosen = torch.from_numpy(images[np.concatenate(rounds)[:total]])[:, None]
    masks = torch.zeros(total, *images.shape[1:], dtype=torch.uint8)
    warped, _ = augment(chosen, masks, WARP, torch_generator(seed, *names, "warp"))
    return warped.numpy().reshape(*shape, *images.shape[1:])


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squared distances (A, B) of two sets of vectors, in float64."""
    products = (one @ other.T).astype(np.float64)
    return np.maximum(np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1) - 2 * products, 0)


def _kernel(distances: np.ndarray, width: float) -> np.ndarray:
    return np.asarray(np.exp(-distances / (2 * max(width, 1e-12))))


def _duals(kernel: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    return np.linalg.solve(kernel + penalty * np.eye(len(kernel)), targets)
