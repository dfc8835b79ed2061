"""A simulated site's slices with all that only the site knows of them, for who judges an attack. No method is given this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedprivseg.core.records import Subject
from fedprivseg.runtime.site.site_runtime import SiteRuntime


@dataclass(frozen=True)
class GroundTruth:
    """The slices of one side.

    Attributes:
        images: (N, H, W) float32.
        masks: (N, H, W) uint8.
        subjects: (N,) int32, positions in `people`.
        phases: (N,) uint8, the place of the time point in the task.
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
    people, slices = site.train if side == "train" else site.test, site.slices(side)
    phases, places = np.empty(len(slices.images), np.uint8), np.empty(len(slices.images), np.float32)
    for number, subject in enumerate(people):
        own = np.flatnonzero(slices.subjects == number)
        # In the order of the time points; two that are one frame are one part.
        for phase, part in enumerate(np.split(own, len(set(subject.frames.values())))):
            phases[part], places[part] = phase, np.linspace(0, 1, len(part), dtype=np.float32)
    return GroundTruth(slices.images, slices.masks, slices.subjects, phases, places, people)
