"""The contract of attacks that say something about people: who they are, whether they took part, what they have.

What such an attack returns is compared with two references: chance, and the same attack on the raw images, which nobody outside
the site has. A code from which as much can be told as from the image protects nobody from this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedprivseg.attacks.base import Effort, Progress

Predict = Callable[[np.ndarray], np.ndarray]
"""Images (N, H, W) -> class scores (N, C, H, W): the finished system, used from outside."""


@dataclass(frozen=True)
class Population:
    """A site's subjects as the judge knows them, and what was released of them.

    images: (N, H, W) float32, masks: (N, H, W) uint8: all of the site's slices, subjects: (N,) int whose they are, phases:
    (N,) places of their time points in `times`, places: (N,) 0..1 from the first slice of a volume to its last. member: (N,)
    bool, whether the subject was trained on. attributes: name -> one word a subject, "" where unknown. codes: (N, C, h, w),
    the released codes of these slices, or None if no code of a slice is released. predict: the finished system. elsewhere:
    the adversary's own images and masks. structures: how many the masks show. times: the names of the time points.
    """

    images: np.ndarray
    masks: np.ndarray
    subjects: np.ndarray
    phases: np.ndarray
    places: np.ndarray
    member: np.ndarray
    attributes: Mapping[str, tuple[str, ...]]
    codes: np.ndarray | None
    predict: Predict
    elsewhere: tuple[np.ndarray, np.ndarray]
    structures: int
    times: tuple[str, ...]
    effort: Effort
    seed: int
    device: str = "cpu"
    progress: Progress = lambda stage, done, total: None


@dataclass(frozen=True)
class InferenceResult:
    """One number about people: `value`, what `chance` gives, and what the same attack makes of the `raw` images (None where it
    does not use codes). count: of what the value is a mean, in words."""

    measure: str
    value: float
    chance: float
    raw: float | None
    count: str


class Inference(ABC):
    """An attack on people. Final subclasses only; one file each; listed in `INFERENCES`."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    knows: ClassVar[str]

    needs_codes: ClassVar[bool]

    @abstractmethod
    def infer(self, crowd: Population) -> tuple[InferenceResult, ...]:
        """What it can tell; empty if the crowd is too small or its attribute unknown."""


def pooled(pictures: np.ndarray, side: int) -> np.ndarray:
    """Pictures or codes (N, C, H, W) averaged over at most `side` x `side` fields: (N, C * side**2) float64."""
    rows = np.array_split(np.arange(pictures.shape[2]), min(side, pictures.shape[2]))
    columns = np.array_split(np.arange(pictures.shape[3]), min(side, pictures.shape[3]))
    fields = [
        pictures[:, :, row[0] : row[-1] + 1, column[0] : column[-1] + 1].mean(axis=(2, 3))
        for row in rows
        for column in columns
    ]
    return np.stack(fields, axis=2).reshape(len(pictures), -1).astype(np.float64)
