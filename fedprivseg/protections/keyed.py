"""A secret orthogonal transform of the channels of every cell, and if wanted a secret order of the cells.

The key stays at the site: the server trains on keyed codes and answers in keyed codes, which the site turns back. Training and
test codes of one run need one key, since one network reads both; another run has another. So whoever encodes a picture under
another key does not find its code among the released ones by comparing values.

What it cannot do. A channel mixing that is the same in every cell keeps all distances between codes, the length of every cell
and the whole layout of the image: clustering, linkage and attribute probes lose nothing, and a code is found by the lengths of
its cells under whatever key. As many known pairs of pictures and codes as there are channels give the matrix away (orthogonal
Procrustes, Schoenemann, Psychometrika 31:1, 1966). Whoever may have pictures encoded within the run needs no key. In a
simulation the key follows from the run's seed, and two runs of one seed have one key; a deployed site needs one from a source
that nobody else knows, and a new one for each run.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
from pydantic import Field

from fedprivseg.core.techniques import Technique
from fedprivseg.protections.operation import ArrayOperation, Key


@final
class Keyed(ArrayOperation):
    """z' = Q z in every cell, Q from the site's key; then, if asked for, another order of the cells."""

    name = "keyed"
    paper = "the keyed latent transform of Bello et al. 2026 (arXiv 2603.05541), with the key at the site alone"
    guarantee = "none: a secret linear map, which a few known pairs give away"
    reversal = "key holder: up to rounding; and anybody with a few known pairs"

    mix: bool = Field(default=True, description="rotate the channels of every cell by one random orthogonal matrix")
    cells: bool = Field(
        default=False, description="put the cells of a code into a random order, the same for every slice"
    )

    @property
    def techniques(self) -> tuple[Technique, ...]:
        """A linear map of the numbers in a cell; other places for the cells."""
        used = ((Technique.NUMERIC_TRANSFORM, self.mix), (Technique.REARRANGEMENT, self.cells))
        return tuple(technique for technique, on in used if on)

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        if self.mix:
            value = np.einsum("ij,njhw->nihw", _rotation(value, key), value)
        if self.cells:
            value = _taken(value, _order(value, key))
        return np.ascontiguousarray(value, np.float32)

    def undo(self, value: np.ndarray, key: Key) -> np.ndarray:
        if self.cells:
            value = _taken(value, np.argsort(_order(value, key)))
        if self.mix:
            value = np.einsum("ji,njhw->nihw", _rotation(value, key), value)
        return np.ascontiguousarray(value, np.float32)

    def history(self, shape: tuple[int, ...] = ()) -> str:
        parts = [word for word, on in (("channels", self.mix), ("cells", self.cells)) if on]
        return f"keyed {' and '.join(parts) or 'nothing'}"


def _rotation(value: np.ndarray, key: Key) -> np.ndarray:
    channels = value.shape[1]
    return orthogonal(channels, key.fixed("rotation", channels))


def _order(value: np.ndarray, key: Key) -> np.ndarray:
    return key.fixed("order", *value.shape[2:]).permutation(math.prod(value.shape[2:]))


def _taken(value: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The cells of `value` in this order."""
    return value.reshape(*value.shape[:2], order.size)[:, :, order].reshape(value.shape)


def orthogonal(size: int, draw: np.random.Generator) -> np.ndarray:
    """A matrix (size, size) float64, uniform over the orthogonal ones (Mezzadri, Notices AMS 54:592, 2007)."""
    q, r = np.linalg.qr(draw.standard_normal((size, size)))
    return np.asarray(q * np.sign(np.diag(r)))
