"""A simulated site's slices with all that only the site knows of them, for who judges an attack. No method is given this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedprivseg.core.records import Subject
from fedprivseg.imaging.volumes import gridded
from fedprivseg.runtime.site.site_runtime import SiteRuntime


@dataclass(frozen=True)
class GroundTruth:
    """The slices of one side.

    Attributes:
        images: (N, H, W) float32.
        masks: (N, H, W) uint8.
        subjects: (N,) int32, positions in `people`.
        phases: (N,) uint8, 0 for ED and 1 for ES.
        places: (N,) float32, from 0 at the first slice of a volume to 1 at its last.
        people: whose slices they are.
    """

    images: np.ndarray
    masks: np.ndarray
    subjects: np.ndarray
    phases: np.ndarray
    places: np.ndarray
    people: tuple[Subject, ...]


def ground_truth(site: SiteRuntime, side: Literal["train", "test"]) -> GroundTruth:
    """The truth of `site.training()`'s or `site.testing()`'s slices, in their order."""
    people = site.train if side == "train" else site.test
    images, masks, subjects, phases, places = [], [], [], [], []
    for number, subject in enumerate(people):
        for phase, (image, mask) in enumerate(gridded(subject, site.grid, site.cache).values()):
            assert mask is not None  # both sides are labelled
            images.append(image)
            masks.append(mask)
            subjects.append(np.full(len(image), number, np.int32))
            phases.append(np.full(len(image), phase, np.uint8))
            places.append(np.linspace(0, 1, len(image), dtype=np.float32))
    joined = [np.concatenate(part) for part in (images, masks, subjects, phases, places)]
    return GroundTruth(joined[0], joined[1], joined[2], joined[3], joined[4], people)
