"""One root seed, independent generators: a draw depends on (root, names), never on what was drawn before it elsewhere.

Nobody seeds the world: the global state of `random`, numpy and torch is the same before and after (a test proves it).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(root: int, *names: str | int) -> int:
    """A 63-bit seed for the draw that `names` describe, such as ``derive(0, "centre1", "image encoder", 0)``.

    SHA-256 over the root and the names; names are separated, so ``("a", "bc")`` and ``("ab", "c")`` differ.
    """
    text = "\x1f".join([str(root), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(root: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for the draw that `names` describe."""
    return np.random.default_rng(derive(root, *names))


def torch_generator(root: int, *names: str | int) -> torch.Generator:
    """A torch CPU generator for the draw that `names` describe. CPU always: a GPU draws the same numbers that way."""
    import torch

    return torch.Generator().manual_seed(derive(root, *names))


@contextmanager
def building(root: int, *names: str | int) -> Iterator[None]:
    """While a network is built inside this block its initial weights come from (root, names).

    torch's layers draw their initial weights from the global generator and take no other; this puts the global state
    aside and back, so nothing outside the block changes.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(root, *names))
        yield
