"""A secret orthogonal transform of the channels of every cell, and if wanted a secret order of the cells.

The key stays at the site: the server trains on keyed codes and answers in keyed codes, which the site turns back. A channel
mixing that is the same in every cell keeps all distances between codes and the whole layout of the picture, so it hides
nothing from clustering, linkage, attribute probes or anybody with a few pairs.
"""

from __future__ import annotations

from typing import final

import numpy as np
from pydantic import Field

from fedprivseg.protections.protection import Key, Parameters, Protection


class KeyedParameters(Parameters):
    """What is keyed."""

    mix: bool = Field(True, description="rotate the channels of every cell by one random orthogonal matrix")
    cells: bool = Field(False, description="put the cells of a code into a random order, the same for every slice")


@final
class Keyed(Protection):
    """z' = Q z in every cell, Q from the site's key; then, if asked for, another order of the cells."""

    name = "keyed"
    paper = "the keyed latent transform of Bello et al. 2026 (arXiv 2603.05541), with the key at the site alone"
    parameters_type = KeyedParameters
    parameters: KeyedParameters

    @property
    def techniques(self) -> tuple[str, ...]:
        """A linear map of the numbers in a cell; other places for the cells."""
        parameters = self.parameters
        return (*(("numeric transform",) if parameters.mix else ()), *(("rearrangement",) if parameters.cells else ()))

    @property
    def guarantee(self) -> str:
        """None."""
        return "none: a secret linear map, which a few known pairs give away"

    def apply(self, codes: np.ndarray, key: Key, names: tuple[str | int, ...]) -> np.ndarray:
        """See `Protection`."""
        if self.parameters.mix:
            codes = np.einsum("ij,njhw->nihw", self._rotation(codes.shape[1], key), codes)
        if self.parameters.cells:
            order = self._order(codes.shape[2:], key)
            codes = codes.reshape(*codes.shape[:2], -1)[:, :, order].reshape(codes.shape)
        return np.ascontiguousarray(codes, np.float32)

    def undo(self, codes: np.ndarray, key: Key) -> np.ndarray:
        """Exact up to rounding."""
        if self.parameters.cells:
            order = np.argsort(self._order(codes.shape[2:], key))
            codes = codes.reshape(*codes.shape[:2], -1)[:, :, order].reshape(codes.shape)
        if self.parameters.mix:
            codes = np.einsum("ji,njhw->nihw", self._rotation(codes.shape[1], key), codes)
        return np.ascontiguousarray(codes, np.float32)

    def history(self, code: tuple[int, ...]) -> str:
        """Says what was keyed."""
        parts = [word for word, on in (("channels", self.parameters.mix), ("cells", self.parameters.cells)) if on]
        return f"keyed {' and '.join(parts) or 'nothing'}"

    @staticmethod
    def _rotation(channels: int, key: Key) -> np.ndarray:
        """Uniform over the orthogonal matrices (Mezzadri, Notices AMS 54:592, 2007)."""
        q, r = np.linalg.qr(key.fixed("rotation", channels).standard_normal((channels, channels)))
        return np.asarray(q * np.sign(np.diag(r)))

    @staticmethod
    def _order(cells: tuple[int, ...], key: Key) -> np.ndarray:
        return key.fixed("order", *cells).permutation(int(np.prod(cells)))
