"""De-identification of pictures by a key, clause 5.2 of T/SCGS 313008-2024: what the holder of the key undoes.

Pictures are as in `deidentify_images`. A key is a generator in a fresh state, made from a site's secret (`Secret.generator`)
with names that say what it is for: the same secret and names undo what they did. Rows and columns must be made of whole
blocks, because a remainder would be left as it is.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.deidentify.images import ImageOperation, picture
from fedprivseg.governance.deidentify.operation import Done, whole
from fedprivseg.governance.policy.technique_table import Technique


class KeyedImageOperation(ImageOperation):
    """An operation that the holder of its key undoes. The key is a generator made from a secret (`Secret.generator`)."""

    @abstractmethod
    def undo(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """What `apply` was given, if `generator` is in the state in which `apply` was given it."""


@final
@dataclass(frozen=True)
class Rearrangement(KeyedImageOperation):
    """Blocks of `block` x `block` pixels change places in a keyed order, the same for every slice; each stays as it is."""

    block: int

    technique = Technique.REARRANGEMENT
    guarantee = "none: blocks fit together like pieces of a puzzle, and all intensities are told"
    reversal = "key holder: exactly; and anybody with patience or one known picture"

    def __post_init__(self) -> None:
        whole(self.block, "block", 1)

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        blocks = _split(image, self.block)
        moved = blocks[..., generator.permutation(blocks.shape[-2]), :]
        line = f"{self.technique} of blocks of {self.block} x {self.block} pixels, keyed"
        return Done(_join(moved, image.shape, self.block), line)

    def undo(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """See `KeyedImageOperation`."""
        blocks = _split(image, self.block)
        order = np.argsort(generator.permutation(blocks.shape[-2]))
        return _join(blocks[..., order, :], image.shape, self.block)


@final
@dataclass(frozen=True)
class Permutation(KeyedImageOperation):
    """Pixels change places within their block of `block` x `block`, in another keyed order in every block of the grid; the
    orders are the same for every slice."""

    block: int

    technique = Technique.PERMUTATION
    guarantee = "none: the picture is to be seen as coarse as the blocks are, and all intensities are told"
    reversal = "key holder: exactly; and anybody with a few known pictures"

    def __post_init__(self) -> None:
        whole(self.block, "block", 2)

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        blocks = _split(image, self.block)
        order = self._orders(blocks.shape[-2], generator)
        mixed = np.take_along_axis(blocks, np.broadcast_to(order, blocks.shape), axis=-1)
        line = f"{self.technique} of pixels within blocks of {self.block} x {self.block}, keyed"
        return Done(_join(mixed, image.shape, self.block), line)

    def undo(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """See `KeyedImageOperation`."""
        blocks = _split(image, self.block)
        order = np.argsort(self._orders(blocks.shape[-2], generator), axis=-1)
        return _join(np.take_along_axis(blocks, np.broadcast_to(order, blocks.shape), axis=-1), image.shape, self.block)

    def _orders(self, blocks: int, generator: np.random.Generator) -> np.ndarray:
        return generator.permuted(np.tile(np.arange(self.block**2), (blocks, 1)), axis=1)


@final
@dataclass(frozen=True)
class DataTransformation(KeyedImageOperation):
    """The values of every block of `block` x `block` pixels are multiplied by one secret orthogonal matrix, the same for all.

    The matrix is drawn evenly from all of them (Mezzadri, Notices AMS 54:592, 2007). Nothing of a block is lost.
    """

    block: int

    technique = Technique.DATA_TRANSFORMATION
    guarantee = "none: a secret linear map, which as many known blocks as it has rows give away; distances stay"
    reversal = "key holder: up to rounding; and anybody with one known picture of enough blocks"

    def __post_init__(self) -> None:
        whole(self.block, "block", 2, 32)

    def apply(self, image: np.ndarray, generator: np.random.Generator) -> Done[np.ndarray]:
        """See `ImageOperation`."""
        blocks = _split(image, self.block) @ self._matrix(generator).T
        line = f"{self.technique} of blocks of {self.block} x {self.block} pixels by a keyed orthogonal matrix"
        return Done(_join(blocks, image.shape, self.block), line)

    def undo(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """See `KeyedImageOperation`; up to rounding."""
        return _join(_split(image, self.block) @ self._matrix(generator), image.shape, self.block)

    def _matrix(self, generator: np.random.Generator) -> np.ndarray:
        size = self.block**2
        q, r = np.linalg.qr(generator.standard_normal((size, size)))
        return np.asarray(q * np.sign(np.diag(r)))


def _split(image: np.ndarray, block: int) -> np.ndarray:
    """(..., H, W) -> (..., blocks, block * block), blocks in reading order."""
    *slices, height, width = picture(image).shape
    if height % block or width % block:
        # A remainder that stays in its place would be told as it is.
        fit = [size for size in range(1, min(height, width) + 1) if height % size == 0 and width % size == 0]
        raise RequestError(
            f"{height} x {width} pixels are not made of whole blocks of {block} x {block}; blocks of "
            f"{', '.join(map(str, fit))} fit. Choose one of them, or crop or pad the picture first."
        )
    parts = image.reshape(*slices, height // block, block, width // block, block).swapaxes(-3, -2)
    return parts.reshape(*slices, -1, block * block)


def _join(blocks: np.ndarray, shape: tuple[int, ...], block: int) -> np.ndarray:
    """The picture of `shape` whose blocks these are: the inverse of `_split`."""
    *slices, height, width = shape
    parts = blocks.reshape(*slices, height // block, width // block, block, block).swapaxes(-3, -2)
    return np.ascontiguousarray(parts.reshape(shape), np.float32)
