"""What a method's site half works with: that hospital's arrays, vault, randomness and measurements. Nothing here leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from fedprivseg.core.compute import device
from fedprivseg.core.errors import FolderError
from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.measures import dice
from fedprivseg.core.progress import ProgressFile
from fedprivseg.core.records import Payload, Slices, Subject, Volume
from fedprivseg.imaging.nifti import read_geometry
from fedprivseg.imaging.volumes import gridded_slices
from fedprivseg.methods.begin import START
from fedprivseg.nets.adversaries import UNKNOWN
from fedprivseg.protections import Shield
from fedprivseg.runtime.site.attribution import owners_name
from fedprivseg.runtime.site.enrolment import Side
from fedprivseg.runtime.site.likeness import PROFILE, numbers, ranges
from fedprivseg.runtime.site.measure import labels_of, measured
from fedprivseg.runtime.site.site_context import SiteContext

AGE_BANDS = ((45, "under 45"), (65, "45 to 64"), (150, "65 and over"))
"""Upper limits of the bands of age in years, and what they are called."""


@final
class SiteRuntime:
    """A `methods.method.Site`: one hospital as a method sees it."""

    def __init__(self, site: SiteContext) -> None:
        scenario = site.scenario
        own = site.configuration.seed
        self.name, self.seed = site.name, scenario.seed if own is None else own
        self.grid, self.task = scenario.grid.grid(), scenario.task
        self.device = device(scenario.resources.gpus)
        self.vault, self.cache = site.vault, site.cache
        self.progress = ProgressFile(site.folder.progress)
        self.shield = Shield(scenario.protections, self.seed, site.name)
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

    def start(self) -> dict[str, np.ndarray]:
        """See `methods.method.Place`: as the server sent it."""
        if not self.vault.has(START):
            raise FolderError("the site has no public start: the server sends it when a run begins")
        return self.vault.load(START)

    @property
    def labelled(self) -> bool:
        """See `methods.method.Site`."""
        return bool(self.train)

    def training(self) -> Slices:
        """All slices of the training subjects, at all time points."""
        return self.slices("train")

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
        """Slices (N, H, W) float32 in 0..1 of the test subjects: subject by subject, in the order of the time points."""
        return self.slices("test").images

    def slices(self, side: Side) -> Slices:
        """All slices of a side. A site reads them once a run: every order is a call of its own, and finding them in the cache
        takes hashing all of the site's files."""
        people, name, owners = self.train if side == "train" else self.test, f"{side}ing-slices", owners_name(side)
        if not all(self.vault.has(each) for each in (name, owners, *([PROFILE] if side == "train" else []))):
            size = self.grid.height, self.grid.width
            found = Slices(np.empty((0, *size), np.float32), np.empty((0, *size), np.uint8), np.empty(0, np.int32))
            if people:
                found = gridded_slices(self._site.volumes, people, self.grid, self.cache)
            self.vault.save(owners, {"owners": found.subjects})
            if side == "train":
                limits = self._site.dataset.limits
                each = (
                    (read_geometry(one.image, limits), found.images[found.subjects == n])
                    for n, one in enumerate(people)
                )
                self.vault.save(PROFILE, ranges(numbers(*one) for one in each))
            self.vault.save(name, vars(found))
        kept = self.vault.load(name)
        return Slices(kept["images"], kept["masks"], self.vault.load(owners)["owners"])

    def validate(self, scores: np.ndarray) -> np.ndarray:
        """Class scores (N, C, H, W) for `testing()`'s slices -> Dice (K,) float64 on the grid, all slices pooled."""
        labels, truth = (np.moveaxis(each, 0, -1) for each in (scores.argmax(axis=1), self.slices("test").masks))
        return dice(labels, truth, len(self.task.structures))

    def measure(self, scores: np.ndarray, *, keep: bool = True) -> Payload:
        """Class scores (N, C, H, W) for `testing()`'s slices -> a METRIC payload; predictions stay here."""
        return measured(self._site, scores, self.grid, self.progress, keep=keep)

    def labels(self, volume: Volume, scores: np.ndarray) -> np.ndarray:
        """Class scores (Z, C, H, W) of one volume's slices as labels (X, Y, Z) uint8 on its own grid."""
        return labels_of(volume, scores, self.grid)


def attributes_of(people: Sequence[Subject]) -> dict[str, tuple[str, ...]]:
    """What an attacker may want to know of each: name -> one word a subject, "" where unknown. Ages are put into bands."""
    names = dict.fromkeys(name for one in people for name in one.attributes)
    found = {name: tuple(one.attributes.get(name, "") for one in people) for name in names}
    return found | ({"age": tuple(map(_age_band, found["age"]))} if "age" in found else {})


def _age_band(age: str) -> str:
    """The band of an age in years; "" for what is no number."""
    try:
        return next((name for limit, name in AGE_BANDS if float(age) < limit), "")
    except ValueError:
        return ""
