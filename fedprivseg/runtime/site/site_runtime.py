"""What a method's site half works with: that hospital's arrays, vault, randomness and measurements. Nothing here leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fedprivseg.core.compute import device
from fedprivseg.core.config import Scenario
from fedprivseg.core.kinds import METRIC, KindSpec
from fedprivseg.core.measures import assd_mm, dice, hd95_mm
from fedprivseg.core.progress import ProgressFile
from fedprivseg.core.records import MEASURES, PHASES, STRUCTURES, Payload, Slices, Subject, Volume
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import PARTICIPANTS, Notes
from fedprivseg.governance.sitefolder.vault import PICTURES, Vault, prediction_name
from fedprivseg.imaging.mnms import load_phases, read_release
from fedprivseg.imaging.nifti import read_geometry
from fedprivseg.imaging.splits import COHORT, Cohort, cohort
from fedprivseg.imaging.volumes import from_grid, gridded, gridded_slices, write_mask
from fedprivseg.nets.adversaries import UNKNOWN
from fedprivseg.protections import Shield
from fedprivseg.runtime.site.attribution import owners_name
from fedprivseg.runtime.site.likeness import PROFILE, numbers, ranges
from fedprivseg.runtime.site.rules import Rules

_TRAINING, _TESTING = "training-slices", "testing-slices"
"""A site reads its slices once a run: every order is a call of its own, and finding them in the cache takes hashing all
of the site's files."""


@dataclass(frozen=True)
class Known:
    """A site's slices with all that only the site knows of them, for whoever judges an attack in a simulation.

    images: (N, H, W) float32. masks: (N, H, W) uint8. subjects: (N,) int32, positions in `people`. phases: (N,) uint8, 0 for ED
    and 1 for ES. places: (N,) float32, from 0 at the first slice of a volume to 1 at its last.
    """

    images: np.ndarray
    masks: np.ndarray
    subjects: np.ndarray
    phases: np.ndarray
    places: np.ndarray
    people: tuple[Subject, ...]


class SiteRuntime:
    """A `methods.method.Site`: one hospital as a method sees it."""

    def __init__(self, station: SiteConfiguration, scenario: Scenario) -> None:
        self.name = station.site.name
        self.seed = scenario.seed
        self.grid = scenario.grid.grid()
        self.device = device(scenario.resources.gpus)
        self._notes = Notes(station.folder)
        self.vault = Vault(station.folder / "vault", self._notes.key)
        self.progress = ProgressFile(station.folder / "progress.json")
        self.shield = Shield(scenario.protections, scenario.seed, station.site.name)
        self._folder = station.folder
        # What a site keeps between runs is plain; under a policy that wants everything sealed, it keeps nothing there.
        self._cache = None if self.vault.sealed else station.cache
        self._pictures = scenario.report.images
        self._station = station
        self._rules = Rules(station, scenario, self._notes)

    @cached_property
    def _cohort(self) -> Cohort:
        """This site's subjects, read from the release once a run: every order is a call of its own, and headers take time."""
        if not self._notes.has(PARTICIPANTS):
            found = cohort(read_release(self._station.release).subjects, self._station.site, self._station.data)
            found = self._rules.admit(found)
            self._notes.write(PARTICIPANTS, COHORT.dump_python(found, mode="json"))
        return COHORT.validate_json(self._notes.read(PARTICIPANTS))

    def describe(self) -> dict[str, np.ndarray]:
        """How much the site brings: counts of subjects and slices, int64 of shape (1,)."""
        counts = {
            "subjects_train": len(self._cohort.train),
            "subjects_test": len(self._cohort.test),
            "slices_train": len(self.training().images) if self._cohort.train else 0,
            "slices_test": len(self.testing()),
        }
        return {key: np.array([value], dtype=np.int64) for key, value in counts.items()}

    def level(self, kind: KindSpec) -> int:
        """The level of a payload of `kind` made of this site's subjects (T/SCGS 313008-2024 clause 5.5)."""
        assert self._cohort is not None  # who takes part is settled first
        return self._rules.standing("").level(kind).level

    def guarded(self, kind: KindSpec, codes: np.ndarray) -> np.ndarray:
        """Codes (N, C, h, w) as they would leave: a payload that nobody asked for, with draws of its own."""
        return self.shield.apply(kind, codes, ("unasked",))[0]

    def opened(self, kind: KindSpec, codes: np.ndarray) -> np.ndarray:
        """An answer in protected codes, as the site's own decoder knows them."""
        return self.shield.undo(kind, codes)

    def training(self) -> Slices:
        """All slices (ED and ES) of the training subjects."""
        if not all(self.vault.has(name) for name in (_TRAINING, owners_name("train"), PROFILE)):
            slices = gridded_slices(self._cohort.train, self.grid, self._cache)
            self.vault.save(owners_name("train"), {"owners": slices.subjects})
            self.vault.save(
                PROFILE,
                ranges(
                    numbers(read_geometry(one.image), slices.images[slices.subjects == position])
                    for position, one in enumerate(self._cohort.train)
                ),
            )
            self.vault.save(_TRAINING, vars(slices))
        return Slices(**self.vault.load(_TRAINING))

    def attributes(self) -> dict[str, np.ndarray]:
        """See `methods.method.Site`."""
        owners = self.training().subjects
        found = {}
        for name, words in attributes_of(self._cohort.train).items():
            kinds = sorted({word for word in words if word})
            numbers = np.array([kinds.index(word) if word else UNKNOWN for word in words], np.int64)
            found[name] = numbers[owners]
        return found

    def testing(self) -> np.ndarray:
        """Slices (N, H, W) float32 in 0..1 of the test subjects: subject by subject, ED before ES."""
        return self._testing()["images"]

    def _testing(self) -> dict[str, np.ndarray]:
        if not (self.vault.has(_TESTING) and self.vault.has(owners_name("test"))):
            size = self.grid.height, self.grid.width
            images, masks = [np.empty((0, *size), np.float32)], [np.empty((0, *size), np.uint8)]
            owners = [np.empty(0, np.int32)]
            for position, subject in enumerate(self._cohort.test):
                for image, mask in gridded(subject, self.grid, self._cache).values():
                    assert mask is not None  # test subjects are labelled
                    images.append(image)
                    masks.append(mask)
                    owners.append(np.full(len(image), position, np.int32))
            self.vault.save(owners_name("test"), {"owners": np.concatenate(owners)})
            self.vault.save(_TESTING, {"images": np.concatenate(images), "masks": np.concatenate(masks)})
        return self.vault.load(_TESTING)

    def known(self, side: Literal["train", "test"]) -> Known:
        """The slices of `training` or `testing`, in their order, with whose they are. No method is given this."""
        people = self._cohort.train if side == "train" else self._cohort.test
        images, masks, subjects, phases, places = [], [], [], [], []
        for number, subject in enumerate(people):
            for phase, (image, mask) in enumerate(gridded(subject, self.grid, self._cache).values()):
                assert mask is not None  # both sides are labelled
                images.append(image)
                masks.append(mask)
                subjects.append(np.full(len(image), number, np.int32))
                phases.append(np.full(len(image), phase, np.uint8))
                places.append(np.linspace(0, 1, len(image), dtype=np.float32))
        joined = [np.concatenate(part) for part in (images, masks, subjects, phases, places)]
        return Known(joined[0], joined[1], joined[2], joined[3], joined[4], people)

    def validate(self, scores: np.ndarray) -> np.ndarray:
        """Class scores (N, 4, H, W) for `testing()`'s slices -> Dice (3,) float64 on the grid, all slices pooled."""
        labels = scores.argmax(axis=1)
        masks = self._testing()["masks"]
        return dice(np.moveaxis(labels, 0, -1), np.moveaxis(masks, 0, -1))

    def measure(
        self, scores: np.ndarray, example: tuple[int, np.ndarray] | None = None, *, keep: bool = True
    ) -> Payload:
        """Class scores (N, 4, H, W) for `testing()`'s slices -> a METRIC payload; predictions and pictures stay here.

        The payload holds, for each measure, values (subjects, 2 phases, 3 structures) float64, and ``<measure>_known``
        uint8 of the same shape: 0 where the measure is undefined (a structure absent from truth, prediction or both).
        """
        values = {name: np.full((len(self._cohort.test), len(PHASES), len(STRUCTURES)), np.nan) for name in MEASURES}
        cases: list[tuple[float, Volume, np.ndarray]] = []
        start = 0
        for row, subject in enumerate(self._cohort.test):
            self.progress("measure", row, len(self._cohort.test))
            place = read_geometry(subject.image)
            for column, (phase, volume) in enumerate(load_phases(subject).items()):
                depth = volume.image.shape[2]
                labels = self.labels(volume, scores[start : start + depth])
                start += depth
                if keep:
                    self._keep_prediction(row, phase, place.stored(labels), place.header)
                assert volume.mask is not None  # test subjects are labelled
                values["dice"][row, column] = dice(labels, volume.mask)
                values["hd95_mm"][row, column] = hd95_mm(labels, volume.mask, volume.spacing)
                values["assd_mm"][row, column] = assd_mm(labels, volume.mask, volume.spacing)
                known = values["dice"][row, column]
                cases.append(
                    (float(np.mean(known[np.isfinite(known)])) if np.isfinite(known).any() else 0.0, volume, labels)
                )
        if keep and self._pictures and cases:
            self._keep_pictures(cases, example)
        self.progress("measure", len(self._cohort.test), len(self._cohort.test))
        arrays = {name: np.nan_to_num(value, nan=0.0, posinf=0.0) for name, value in values.items()}
        known = {f"{name}_known": np.isfinite(value).astype(np.uint8) for name, value in values.items()}
        return Payload(METRIC, self.name, "measure", {**arrays, **known}, level=2, history=("measure",))

    def labels(self, volume: Volume, scores: np.ndarray) -> np.ndarray:
        """Class scores (Z, 4, H, W) of one volume's slices as labels (X, Y, Z) uint8 on its own grid."""
        x, y, z = volume.image.shape
        return from_grid(np.asarray(scores, np.float32), (x, y, z), volume.spacing, self.grid)

    def _keep_prediction(self, row: int, phase: str, mask: np.ndarray, header: bytes) -> None:
        """Keep a mask, in the order of its image's file and with its geometry: sealed where the vault is."""
        if self.vault.sealed:
            kept = {"mask": mask, "header": np.frombuffer(header, np.uint8)}
            self.vault.save(prediction_name(row, phase), kept)
            return
        path = self._folder / "predictions" / f"{self._cohort.test[row].code}_{phase}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        write_mask(path, mask, header)

    def _keep_pictures(
        self, cases: list[tuple[float, Volume, np.ndarray]], example: tuple[int, np.ndarray] | None
    ) -> None:
        """Best, median and worst test volume at the slice with most heart, and one code, for the report of a simulation."""
        ranked = sorted(cases, key=lambda case: case[0])
        arrays: dict[str, np.ndarray] = {}
        for name, place in (("best", -1), ("median", len(ranked) // 2), ("worst", 0)):
            score, volume, labels = ranked[place]
            assert volume.mask is not None
            level = int((volume.mask > 0).sum(axis=(0, 1)).argmax())
            arrays[f"{name}.image"] = volume.image[:, :, level]
            arrays[f"{name}.truth"] = volume.mask[:, :, level]
            arrays[f"{name}.prediction"] = labels[:, :, level]
            arrays[f"{name}.dice"] = np.array([score])
            arrays[f"{name}.spacing"] = np.array(volume.spacing)
        if example is not None:
            index, code = example
            arrays["code.slice"] = self.testing()[index]
            arrays["code.code"] = np.asarray(code, np.float32)
        self.vault.save(PICTURES, arrays)


def attributes_of(people: Sequence[Subject]) -> dict[str, tuple[str, ...]]:
    """What an attacker may want to know of each: name -> one word a subject, "" where unknown."""
    return {
        "disease": tuple(one.pathology for one in people),
        "sex": tuple(one.sex for one in people),
        "vendor": tuple(one.vendor for one in people),
    }
