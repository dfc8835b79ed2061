"""Was this patient trained on? The cheapest way to know it from codes: encode the image, and look for it among those released.

A training slice that is sent as it is has the code that the encoder gives it whenever it is asked, so a member lies at distance
0. Where only augmented views are sent, the adversary asks for augmented copies as well and keeps the nearest. What of the
difference between members and others is left then, or under noise, is what this attack measures. Where a key turns the codes,
whoever asks under this run's key sees no difference; whoever asks under another one compares what the key leaves as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, final

import numpy as np
import torch

from fedprivseg.attacks.base import Indicator, Inference, InferenceMetric, Population
from fedprivseg.attacks.member_statistics import member_metrics
from fedprivseg.core.method_card import What
from fedprivseg.core.seeds import torch_generator
from fedprivseg.nets.augment import Augmentation, augment

COPIES = 8
"""How often the encoder is asked for an augmented copy of each picture, beside the picture itself."""

_WORDS: dict[What, str] = {"images": "image codes", "masks": "mask codes, knowing the mask"}


@final
class CodeLookup(Inference):
    """Nearest released training code."""

    name = "membership-by-code"
    title = "Membership by looking up the code"
    paper = "nearest-neighbour membership: Hilprecht et al., PoPETs 2019(4); here on codes"
    knows = (
        "the released training codes, the patient's image (for mask codes its outlines), pictures from elsewhere, how sites "
        "augment, and answers of the site's encoder"
    )
    needs_codes: ClassVar[bool] = True
    indicator: ClassVar[Indicator] = "membership"

    def infer(self, population: Population) -> tuple[InferenceMetric, ...]:
        """AUC by slice and by patient over image codes, and over mask codes where the site sends some.

        Of each the plain distance to the nearest code; that less the distance to the nearest code of the adversary's own
        pictures, which says how crowded the neighbourhood is; and the mean of this over augmented copies.
        """
        member, subjects = population.member, population.subjects
        if member.all() or not member.any():
            return ()
        found: list[InferenceMetric] = []
        for what, released in population.trained.items():
            pictures = _pictures(population, what, population.images, population.masks)
            others = _rows(population.query[what](_pictures(population, what, *population.elsewhere)))
            codes = [_rows(population.query[what](each)) for each in _views(population, what)]
            distances, foreign = (
                np.stack([nearest(each, among) for each in codes]) for among in (_rows(released), others)
            )
            hows = {
                "": -distances[0],
                ", calibrated": foreign[0] - distances[0],
                f", calibrated, mean of {COPIES + 1} views": (foreign - distances).mean(axis=0),
            }
            if what in population.query_elsewhere:
                rekeyed = population.query_elsewhere[what](pictures)
                hows[", asked under another key"] = -nearest(_rows(rekeyed), _rows(released))
                hows[", under another key by the lengths of cells"] = -nearest(_lengths(rekeyed), _lengths(released))
            for how, evidence in hows.items():
                found += member_metrics(f"{_WORDS[what]}{how}, ", evidence, member, subjects, population.seed)
        return tuple(found)


def nearest(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Euclidean distance of each row (N, d) to the nearest of `among` (M, d): (N,) float64."""
    squares = np.square(among).sum(axis=1)
    best = (squares - 2 * rows @ among.T).argmin(axis=1)
    # Taken again from the difference: the expansion above has no exact zero.
    return np.asarray(np.linalg.norm(rows - among[best], axis=1))


def _views(population: Population, what: What) -> Iterator[np.ndarray]:
    """What the encoder is asked: the pictures as they are, and `COPIES` times augmented as sites augment them."""
    images, masks = population.images, population.masks
    yield _pictures(population, what, images, masks)
    draws = torch_generator(population.seed, "lookup", what)
    for _ in range(COPIES):
        warped, labels = augment(torch.from_numpy(images)[:, None], torch.from_numpy(masks), Augmentation(), draws)
        yield _pictures(population, what, warped[:, 0].numpy(), labels.numpy())


def _pictures(population: Population, what: What, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """What the encoder reads: (N, 1, H, W) images, or (N, K, H, W) masks with a channel a structure."""
    if what == "images":
        return images[:, None]
    return (masks[:, None] == np.arange(1, population.structures + 1)[:, None, None]).astype(np.float32)


def _lengths(codes: np.ndarray) -> np.ndarray:
    """The lengths of a code's cells (N, h * w), sorted: no rotation of channels and no order of cells changes them."""
    return np.asarray(np.sort(np.linalg.norm(codes.astype(np.float64), axis=1).reshape(len(codes), -1), axis=1))


def _rows(codes: np.ndarray) -> np.ndarray:
    return codes.reshape(len(codes), -1).astype(np.float64)
