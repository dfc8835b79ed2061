"""The contract of an attack: what its adversary knows, what it is given, and what it returns.

Three kinds: a `Reconstruction` of images or masks from codes, an `Inference` about patients, and an `UpdateAttack` that
reconstructs images from an update of weights. An attack is given a view, in which everything that its adversary does not claim
to know is absent: asking for it is an error. The ground truth is not in the view; `metrics.evaluate` has it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import ClassVar, Literal

import numpy as np
from torch import nn

from fedprivseg.core.errors import RunError
from fedprivseg.core.method_card import What
from fedprivseg.nets.baseline import Weights
from fedprivseg.nets.local_training import Work

Encode = Callable[[np.ndarray], np.ndarray]
"""Pictures (N, K, H, W) float32 in 0..1 -> codes (N, C, h, w) float32, as the site would release them."""

Decode = Callable[[np.ndarray], np.ndarray]
"""Codes (N, C, h, w) float32 -> pictures (N, K, H, W) float32 in 0..1."""

Rehearse = Callable[[np.ndarray], Weights]
"""Images (B, H, W) float32 in the place of the site's -> the update that the site would show, weights before minus after."""

Predict = Callable[[np.ndarray], np.ndarray]
"""Images (N, H, W) -> class scores (N, 4, H, W): the finished system, used from outside."""

Progress = Callable[[str, int, int], None]

Indicator = Literal["linkage", "attribute", "membership"]
"""The thresholds of `core.config.AdmissionConfig` that an inference can count for. A reconstruction counts for those of
leakage and of re-identification, by what it reconstructs."""


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody wants to hear of."""


class Knowledge(StrEnum):
    """What an adversary may know beside what was released. Each is named as the field of `View` that it opens."""

    AUXILIARY = "auxiliary"
    QUERY = "query"
    PAIRS = "pairs"
    FOREIGN = "foreign"
    ARCHITECTURE = "architecture"


IN_WORDS: Mapping[Knowledge, str] = {
    Knowledge.AUXILIARY: "pictures of the same kind from elsewhere",
    Knowledge.QUERY: "answers of the site's encoder to pictures of its own",
    Knowledge.PAIRS: "some of the site's own pictures with their codes",
    Knowledge.FOREIGN: "the decoders of the other sites",
    Knowledge.ARCHITECTURE: "how the encoder is built, without its weights",
}


@dataclass(frozen=True)
class Effort:
    """How much an attack may compute.

    Attributes:
        steps: optimiser steps of a network that is trained.
        inner: optimiser steps of one that is fitted to a single batch.
    """

    steps: int
    inner: int


SMALL, FULL = Effort(250, 200), Effort(1500, 600)
"""``--budget small`` (minutes for all attacks on two cores) and ``full``."""


@dataclass(frozen=True)
class View:
    """What one adversary sees of the codes of one site. A picture is an image or a mask.

    Attributes:
        codes: (N, C, h, w) float32, what the site released of N pictures.
        shape: (K, H, W) of such a picture: K = 1 for images in 0..1, for masks one channel a structure.
        what: of which it is.
        seed: of every draw.
        auxiliary: pictures (M, K, H, W) from elsewhere, if known.
        query: the site's encoder with its protections, if known.
        pairs: pictures (P, K, H, W) of the site and their codes, if known.
        foreign: the decoders of other sites by name, if known.
        architecture: an untrained encoder, if known.
    """

    codes: np.ndarray
    shape: tuple[int, int, int]
    what: What
    effort: Effort
    seed: int
    auxiliary: np.ndarray | None = None
    query: Encode | None = None
    pairs: tuple[np.ndarray, np.ndarray] | None = None
    foreign: Mapping[str, Decode] | None = None
    architecture: Callable[[], nn.Module] | None = None
    device: str = "cpu"
    progress: Progress = silent

    def only(self, known: frozenset[Knowledge]) -> View:
        """The same view with everything blanked that is not `known`."""
        hidden = {each.value: None for each in Knowledge if each not in known}
        return replace(self, **hidden)  # type: ignore[arg-type]

    def lacks(self, known: frozenset[Knowledge]) -> list[Knowledge]:
        """What of `known` this view does not hold: the attack cannot be run on it."""
        return sorted(each for each in known if getattr(self, each.value) is None)

    def some_pairs(self, counts: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """So many of the pairs, spread evenly, for each of the `counts` for which there are enough."""
        assert self.pairs is not None
        pictures, codes = self.pairs
        for count in counts:
            if count <= len(pictures):
                chosen = np.linspace(0, len(pictures) - 1, count + 2)[1:-1].round().astype(int)
                yield pictures[chosen], codes[chosen]


assert {each.value for each in Knowledge} <= {field.name for field in fields(View)}

ONE_STEP = Work(0, 1, 1, batch=1)
"""How a site trains that takes one step on one slice."""


@dataclass(frozen=True)
class UpdateView:
    """What one adversary sees of one update of weights, and what it knows of how the site trains.

    Attributes:
        update: by name, weights before minus weights after, so the direction of descent, and running statistics likewise; zero
            or absent says nothing.
        masks: (B, H, W) uint8, the outlines of the B slices that are sought: a generous gift.
        slices: which slices these are, B numbers; updates of the same slices have the same.
        setting: under which circumstances the update was made, a name.
        build: the network with the weights before, in training mode.
        rehearse: the update that the site would show for other images under the same masks.
        rehearse_statistics: the running statistics of such an update alone, where they come cheaper; one function for all
            views that rehearse alike.
        auxiliary: images (M, H, W) float32 in 0..1 from elsewhere, at least 2.
        work: how the site trained: steps, slices a step, optimiser and rates.
        net: the network, where it is not the run's own.
        seed: ``seed(*names)``, the seed of the draws that `names` describe.
    """

    update: Weights
    masks: np.ndarray
    slices: tuple[int, ...]
    setting: str
    build: Callable[[], nn.Module]
    rehearse: Rehearse
    auxiliary: np.ndarray
    effort: Effort
    seed: Callable[..., int]
    work: Work = ONE_STEP
    net: str = ""
    device: str = "cpu"
    progress: Progress = silent
    rehearse_statistics: Rehearse | None = None


@dataclass(frozen=True)
class Population:
    """A site's subjects as whoever evaluates an attack knows them, and what was released of them.

    Attributes:
        images: (N, H, W) float32, all of the site's slices.
        masks: (N, H, W) uint8.
        subjects: (N,) int, whose slices they are.
        phases: (N,) places of their time points in `times`.
        places: (N,) 0..1 from the first slice of a volume to its last.
        member: (N,) bool, whether the subject was trained on.
        attributes: name -> one word a subject, "" where unknown.
        codes: (N, C, h, w), the released codes of these slices, or None if no code of a slice is released. The site released
            them in another order: an attack that uses `subjects`, `phases` or `places` for more than to score what it inferred
            says in `knows` that its adversary was told.
        trained: of images and of masks, the codes (M, C, h, w) that the site released for training, of all views, as they came;
            empty if it released none.
        query: of images and of masks, the site's encoder with its protections; the same keys as `trained`.
        query_elsewhere: the same under other keys; empty if no protection has one.
        predict: the finished system.
        elsewhere: the adversary's own images and masks.
        structures: how many the masks show.
        times: the names of the time points.
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
    trained: Mapping[What, np.ndarray] = field(default_factory=dict)
    query: Mapping[What, Encode] = field(default_factory=dict)
    query_elsewhere: Mapping[What, Encode] = field(default_factory=dict)
    device: str = "cpu"
    progress: Progress = silent


@dataclass(frozen=True)
class InferenceMetric:
    """One number about patients, with two references: chance, and the same attack on the raw images, which nobody outside the
    site has. A code from which as much can be inferred as from the image protects nobody from this.

    Attributes:
        metric: what is measured, such as ``slices: AUC``.
        value: what the attack reaches.
        chance: what guessing reaches.
        raw: what the same attack reaches on the raw images; None where it does not use codes.
        count: of what the value is a mean, in words.
        counts: what of it counts for the attack's admission indicator, the value or its excess over chance; None: nothing.
        low: lower end of the 95 % interval over patients; None where there is none.
        high: its upper end.
        p: chance of as much by a random choice of patients, never below one in the number of choices; None where not tested.
    """

    metric: str
    value: float
    chance: float
    raw: float | None
    count: str
    counts: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


class Attack(ABC):
    """What every attack says of itself. `knows`: what the adversary has, as a clause for a reader or as `Knowledge`."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    knows: ClassVar[frozenset[Knowledge] | str]

    @property
    def identity(self) -> dict[str, str]:
        """The fields of a result that say which attack it is of."""
        knows = self.knows
        if not isinstance(knows, str):
            knows = "; ".join(["the released codes", *(IN_WORDS[each] for each in sorted(knows))])
        return {"attack": self.name, "title": self.title, "paper": self.paper, "knows": knows}

    def _checked(self, pictures: np.ndarray, shape: tuple[int, ...], setting: str) -> np.ndarray:
        """`pictures` in 0..1, float32. Raises RunError if they have another shape or are not finite."""
        if pictures.shape != shape or not np.isfinite(pictures).all():
            raise RunError(
                f"attack {self.name!r} ({setting}) returned {pictures.shape} or values that are not finite; it must return "
                f"finite values of shape {shape}"
            )
        return np.clip(pictures, 0, 1).astype(np.float32)


class Reconstruction(Attack):
    """An attack that reconstructs pictures from codes. Final subclasses only; one file each; listed in `ATTACKS`."""

    knows: ClassVar[frozenset[Knowledge]]

    every_view: ClassVar[bool] = True
    """Whether it is given the codes of all augmented views of a slice, or of the first alone, since it works long on each."""

    @abstractmethod
    def reconstruct(self, view: View) -> dict[str, np.ndarray]:
        """Pictures (N, K, H, W) float32 in 0..1 for `view.codes`, by the name of a setting (``""`` if there is but one)."""

    def carry_out(self, view: View) -> dict[str, np.ndarray]:
        """`reconstruct` on what the adversary may see, checked. Raises RunError if it returns something else."""
        found = self.reconstruct(view.only(self.knows))
        shape = (len(view.codes), *view.shape)
        return {setting: self._checked(pictures, shape, setting) for setting, pictures in found.items()}


class UpdateAttack(Attack):
    """An attack that reconstructs images from an update of weights. It is made once for each site, and may keep what it learned
    from one update for the next. Final subclasses only; one file each; listed in `ATTACKS`."""

    knows: ClassVar[str]

    under_defences: ClassVar[bool] = True
    """Whether it is given staged updates under the run's defences too; not one that works long on each and fails without."""

    def lacks(self, view: UpdateView) -> str:
        """Why there is nothing in `view` that this attack could work on, as a clause; empty if there is."""
        return ""

    @abstractmethod
    def reconstruct(self, view: UpdateView) -> np.ndarray:
        """Images (B, 1, H, W) float32 in 0..1 of the B slices of `view.masks`."""

    def carry_out(self, view: UpdateView) -> np.ndarray:
        """`reconstruct`, checked. Raises RunError if it returns something else."""
        count, height, width = view.masks.shape
        return self._checked(self.reconstruct(view), (count, 1, height, width), view.setting)


class Inference(Attack):
    """An attack that infers something about patients: who they are, whether they took part, what they have. Final subclasses
    only; one file each; listed in `ATTACKS`."""

    knows: ClassVar[str]
    needs_codes: ClassVar[bool]
    indicator: ClassVar[Indicator]

    @abstractmethod
    def infer(self, population: Population) -> tuple[InferenceMetric, ...]:
        """What it can infer; empty if the population is too small or its attribute unknown."""


def pooled(pictures: np.ndarray, side: int) -> np.ndarray:
    """Pictures or codes (N, C, H, W) averaged over at most `side` x `side` fields: (N, C * side**2) float64."""
    rows = np.array_split(np.arange(pictures.shape[2]), min(side, pictures.shape[2]))
    columns = np.array_split(np.arange(pictures.shape[3]), min(side, pictures.shape[3]))
    means = [
        pictures[:, :, row[0] : row[-1] + 1, column[0] : column[-1] + 1].mean(axis=(2, 3))
        for row in rows
        for column in columns
    ]
    return np.stack(means, axis=2).reshape(len(pictures), -1).astype(np.float64)
