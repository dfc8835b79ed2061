"""The contract of an attack: what its adversary knows, what it is given, and what it brings back.

An attack is handed a view, in which everything that its adversary does not claim to know is absent: asking for it is an
error. The truth is not in the view; the judge has it (`judge`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import ClassVar

import numpy as np
from torch import nn

from fedprivseg.core.errors import RunError
from fedprivseg.core.method_card import What

Encode = Callable[[np.ndarray], np.ndarray]
"""Pictures (N, K, H, W) float32 in 0..1 -> codes (N, C, h, w) float32, as the site would release them."""

Decode = Callable[[np.ndarray], np.ndarray]
"""Codes (N, C, h, w) float32 -> pictures (N, K, H, W) float32 in 0..1."""

Progress = Callable[[str, int, int], None]


class Knowledge(StrEnum):
    """What an adversary may know beside what was released. Each names the field of `View` that it opens."""

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
    """How hard an attack tries: optimiser steps of a trained network, and of one that is fitted to a single batch."""

    steps: int
    inner: int


SMALL, FULL = Effort(250, 200), Effort(1500, 600)
"""``--budget small`` (minutes for the battery on two cores) and ``full``."""


@dataclass(frozen=True)
class View:
    """What one adversary sees of one site.

    codes: (N, C, h, w) float32, what the site released of N pictures. shape: (K, H, W) of such a picture: K = 1 for images in
    0..1, one channel a structure for masks. what: of which it is. Then, if known: auxiliary, pictures (M, K, H, W) from
    elsewhere; query, the site's encoder with its protections; pairs, pictures (P, K, H, W) of the site and their codes;
    foreign, the decoders of other sites by name; architecture, an untrained encoder. seed: of every draw.
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
    progress: Progress = lambda stage, done, total: None

    def only(self, known: frozenset[Knowledge]) -> View:
        """The same view with everything blanked that is not `known`."""
        hidden = {each.value: None for each in Knowledge if each not in known}
        return replace(self, **hidden)  # type: ignore[arg-type]

    def lacks(self, known: frozenset[Knowledge]) -> list[Knowledge]:
        """What of `known` this view does not hold: the attack cannot be run on it."""
        return sorted(each for each in known if getattr(self, each.value) is None)


assert {each.value for each in Knowledge} <= {field.name for field in fields(View)}


class Reconstruction(ABC):
    """An attack that draws pictures from codes. Final subclasses only; one file each; listed in `ATTACKS`."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    knows: ClassVar[frozenset[Knowledge]]

    every_view: ClassVar[bool] = True
    """Whether it is given the codes of all views of a slice, or of the first alone, since it works long on each."""

    @abstractmethod
    def reconstruct(self, view: View) -> dict[str, np.ndarray]:
        """Pictures (N, K, H, W) float32 in 0..1 for `view.codes`, by the name of a setting (``""`` if there is but one)."""

    def carry_out(self, view: View) -> dict[str, np.ndarray]:
        """`reconstruct` on what the adversary may see, checked. Raises RunError if it returns something else."""
        found = self.reconstruct(view.only(self.knows))
        for setting, pictures in found.items():
            if pictures.shape != (len(view.codes), *view.shape) or not np.isfinite(pictures).all():
                raise RunError(
                    f"attack {self.name!r} ({setting}) returned {pictures.shape} or values that are not finite"
                )
        return {setting: np.clip(pictures, 0, 1).astype(np.float32) for setting, pictures in found.items()}

    @classmethod
    def in_words(cls) -> str:
        """What the adversary has, as a clause for a reader."""
        known = [IN_WORDS[each] for each in sorted(cls.knows)]
        return "; ".join(["the released codes", *known])
