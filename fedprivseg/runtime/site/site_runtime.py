"""What a method's site half works with: that hospital's arrays, vault, randomness and measurements. Nothing here leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from fedprivseg.core.compute import device
from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.measures import dice
from fedprivseg.core.progress import ProgressFile
from fedprivseg.core.records import Payload, Slices, Subject, Volume
from fedprivseg.imaging.nifti import read_geometry
from fedprivseg.imaging.volumes import gridded, gridded_slices
from fedprivseg.nets.adversaries import UNKNOWN
from fedprivseg.protections import Shield
from fedprivseg.runtime.site.attribution import owners_name
from fedprivseg.runtime.site.context import SiteContext
from fedprivseg.runtime.site.likeness import PROFILE, numbers, ranges
from fedprivseg.runtime.site.measure import labels_of, measured

_TRAINING, _TESTING = "training-slices", "testing-slices"
"""A site reads its slices once a run: every order is a call of its own, and finding them in the cache takes hashing all
of the site's files."""


@final
class SiteRuntime:
    """A `methods.method.Site`: one hospital as a method sees it."""

    def __init__(self, site: SiteContext) -> None:
        scenario = site.scenario
        self.name, self.seed = site.name, scenario.seed
        self.grid = scenario.grid.grid()
        self.device = device(scenario.resources.gpus)
        self.vault, self.cache = site.vault, site.cache
        self.progress = ProgressFile(site.folder.progress)
        self.shield = Shield(scenario.protections, scenario.seed, site.name)
        self._site = site

    @property
    def train(self) -> tuple[Subject, ...]:
        """The training subjects."""
        return self._site.cohort.train

    @property
    def test(self) -> tuple[Subject, ...]:
        """The test subjects."""
        return self._site.cohort.test

    def describe(self) -> dict[str, np.ndarray]:
        """How much the site brings: counts of subjects and slices, int64 of shape (1,)."""
        counts = {
            "subjects_train": len(self.train),
            "subjects_test": len(self.test),
            "slices_train": len(self.training().images) if self.train else 0,
            "slices_test": len(self.testing()),
        }
        return {key: np.array([value], dtype=np.int64) for key, value in counts.items()}

    def guarded(self, kind: KindSpec, codes: np.ndarray) -> np.ndarray:
        """Codes (N, C, h, w) as they would leave: a payload that nobody asked for, with draws of its own."""
        return self.shield.apply(kind, codes, ("unasked",))[0]

    def opened(self, kind: KindSpec, codes: np.ndarray) -> np.ndarray:
        """An answer in protected codes, as the site's own decoder knows them."""
        return self.shield.undo(kind, codes)

    def training(self) -> Slices:
        """All slices (ED and ES) of the training subjects."""
        if not all(self.vault.has(name) for name in (_TRAINING, owners_name("train"), PROFILE)):
            slices = gridded_slices(self.train, self.grid, self.cache)
            self.vault.save(owners_name("train"), {"owners": slices.subjects})
            self.vault.save(
                PROFILE,
                ranges(
                    numbers(read_geometry(one.image), slices.images[slices.subjects == position])
                    for position, one in enumerate(self.train)
                ),
            )
            self.vault.save(_TRAINING, vars(slices))
        return Slices(**self.vault.load(_TRAINING))

    def attributes(self) -> dict[str, np.ndarray]:
        """See `methods.method.Site`."""
        owners = self.training().subjects
        found = {}
        for name, words in attributes_of(self.train).items():
            kinds = sorted({word for word in words if word})
            labels = np.array([kinds.index(word) if word else UNKNOWN for word in words], np.int64)
            found[name] = labels[owners]
        return found

    def testing(self) -> np.ndarray:
        """Slices (N, H, W) float32 in 0..1 of the test subjects: subject by subject, ED before ES."""
        return self._testing()["images"]

    def _testing(self) -> dict[str, np.ndarray]:
        if not (self.vault.has(_TESTING) and self.vault.has(owners_name("test"))):
            size = self.grid.height, self.grid.width
            images, masks = [np.empty((0, *size), np.float32)], [np.empty((0, *size), np.uint8)]
            owners = [np.empty(0, np.int32)]
            for position, subject in enumerate(self.test):
                for image, mask in gridded(subject, self.grid, self.cache).values():
                    assert mask is not None  # test subjects are labelled
                    images.append(image)
                    masks.append(mask)
                    owners.append(np.full(len(image), position, np.int32))
            self.vault.save(owners_name("test"), {"owners": np.concatenate(owners)})
            self.vault.save(_TESTING, {"images": np.concatenate(images), "masks": np.concatenate(masks)})
        return self.vault.load(_TESTING)

    def glance(self, scores: np.ndarray) -> np.ndarray:
        """Class scores (N, 4, H, W) for `testing()`'s slices -> Dice (3,) float64 on the grid, all slices pooled."""
        labels = scores.argmax(axis=1)
        masks = self._testing()["masks"]
        return dice(np.moveaxis(labels, 0, -1), np.moveaxis(masks, 0, -1))

    def measure(self, scores: np.ndarray, *, keep: bool = True) -> Payload:
        """Class scores (N, 4, H, W) for `testing()`'s slices -> a METRIC payload; predictions stay here."""
        return measured(self._site, scores, self.grid, self.progress, keep=keep)

    def labels(self, volume: Volume, scores: np.ndarray) -> np.ndarray:
        """Class scores (Z, 4, H, W) of one volume's slices as labels (X, Y, Z) uint8 on its own grid."""
        return labels_of(volume, scores, self.grid)


def attributes_of(people: Sequence[Subject]) -> dict[str, tuple[str, ...]]:
    """What an attacker may want to know of each: name -> one word a subject, "" where unknown."""
    return {
        "disease": tuple(one.pathology for one in people),
        "sex": tuple(one.sex for one in people),
        "vendor": tuple(one.vendor for one in people),
    }
