"""Square blocks of an array under a key, the same in every slice and channel: what the holder of the key undoes.

Rows and columns must be made of whole blocks, because a remainder would be left as it is.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np
from pydantic import Field

from fedprivseg.core.errors import RequestError
from fedprivseg.core.techniques import Technique
from fedprivseg.protections.keyed import orthogonal
from fedprivseg.protections.operation import ArrayOperation, Key


@final
class Rearrangement(ArrayOperation):
    """Blocks change places in a keyed order; each stays as it is."""

    name = "rearrangement"
    techniques: ClassVar = (Technique.REARRANGEMENT,)
    guarantee = "none: blocks fit together like pieces of a puzzle, and all values are told"
    reversal = "key holder: exactly; and anybody with patience or one known image"

    block: int = Field(ge=1, description="edge of a block in pixels", examples=[2])

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        blocks = _split(value, self.block)
        return _join(blocks[..., key.fixed().permutation(blocks.shape[-2]), :], value.shape, self.block)

    def undo(self, value: np.ndarray, key: Key) -> np.ndarray:
        blocks = _split(value, self.block)
        return _join(blocks[..., np.argsort(key.fixed().permutation(blocks.shape[-2])), :], value.shape, self.block)

    def history(self, shape: tuple[int, ...] = ()) -> str:
        _check_whole(shape, self.block)
        return f"{Technique.REARRANGEMENT} of blocks of {self.block} x {self.block} pixels, keyed"


@final
class Permutation(ArrayOperation):
    """Pixels change places within their block, in another keyed order in every block of the grid."""

    name = "permutation"
    techniques: ClassVar = (Technique.PERMUTATION,)
    guarantee = "none: the image is to be seen as coarse as the blocks are, and all values are told"
    reversal = "key holder: exactly; and anybody with a few known images"

    block: int = Field(ge=2, description="edge of a block in pixels", examples=[2])

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        blocks = _split(value, self.block)
        return self._taken(blocks, self._orders(blocks, key), value.shape)

    def undo(self, value: np.ndarray, key: Key) -> np.ndarray:
        blocks = _split(value, self.block)
        return self._taken(blocks, np.argsort(self._orders(blocks, key), axis=-1), value.shape)

    def history(self, shape: tuple[int, ...] = ()) -> str:
        _check_whole(shape, self.block)
        return f"{Technique.PERMUTATION} of pixels within blocks of {self.block} x {self.block}, keyed"

    def _taken(self, blocks: np.ndarray, order: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return _join(np.take_along_axis(blocks, np.broadcast_to(order, blocks.shape), axis=-1), shape, self.block)

    def _orders(self, blocks: np.ndarray, key: Key) -> np.ndarray:
        return key.fixed().permuted(np.tile(np.arange(self.block**2), (blocks.shape[-2], 1)), axis=1)


@final
class DataTransformation(ArrayOperation):
    """The values of every block are multiplied by one secret orthogonal matrix: nothing of a block is lost."""

    name = "data-transformation"
    techniques: ClassVar = (Technique.DATA_TRANSFORMATION,)
    guarantee = "none: a secret linear map, which as many known blocks as it has rows give away; distances stay"
    reversal = "key holder: up to rounding; and anybody with one known image of enough blocks"

    block: int = Field(ge=2, le=32, description="edge of a block in pixels", examples=[2])

    def apply(self, value: np.ndarray, key: Key) -> np.ndarray:
        matrix = orthogonal(self.block**2, key.fixed())
        return _join(_split(value, self.block) @ matrix.T, value.shape, self.block)

    def undo(self, value: np.ndarray, key: Key) -> np.ndarray:
        return _join(_split(value, self.block) @ orthogonal(self.block**2, key.fixed()), value.shape, self.block)

    def history(self, shape: tuple[int, ...] = ()) -> str:
        _check_whole(shape, self.block)
        return f"{Technique.DATA_TRANSFORMATION} of blocks of {self.block} x {self.block} pixels by a keyed orthogonal matrix"


def _check_whole(shape: tuple[int, ...], block: int) -> None:
    height, width = shape[-2:]
    if height % block or width % block:
        # A remainder that stays in its place would be told as it is.
        fit = [size for size in range(1, min(height, width) + 1) if height % size == 0 and width % size == 0]
        raise RequestError(
            f"{height} x {width} pixels are not made of whole blocks of {block} x {block}; blocks of "
            f"{', '.join(map(str, fit))} fit. Choose one of them, or crop or pad the image first."
        )


def _split(value: np.ndarray, block: int) -> np.ndarray:
    """(..., H, W) -> (..., blocks, block * block), blocks in reading order."""
    _check_whole(value.shape, block)
    *slices, height, width = value.shape
    parts = value.reshape(*slices, height // block, block, width // block, block).swapaxes(-3, -2)
    return parts.reshape(*slices, height // block * (width // block), block * block)


def _join(blocks: np.ndarray, shape: tuple[int, ...], block: int) -> np.ndarray:
    """The array of `shape` whose blocks these are: the inverse of `_split`."""
    *slices, height, width = shape
    parts = blocks.reshape(*slices, height // block, width // block, block, block).swapaxes(-3, -2)
    return np.ascontiguousarray(parts.reshape(shape), np.float32)
