"""A site's update as Flower's record of arrays, each array made when Flower looks at it.

Flower's strategies take the replies of all sites as one list. Of a thousand sites no such list fits into memory; but a mean
looks at one site after the other, and a median at one layer after the other.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Sequence, ValuesView
from typing import TYPE_CHECKING, final

import numpy as np
from flwr.app import Array, ArrayRecord

if TYPE_CHECKING:
    from fedprivseg.nets.baseline import Weights


@final
class LookedAt(ArrayRecord):
    """Those of `arrays` that have `names`, in double: Flower computes in the type that it is given, and a mean is to be rounded
    once. What is taken out is not gone, since it was never kept here."""

    def __init__(self, arrays: Weights, names: Sequence[str]) -> None:
        super().__init__()
        self.__dict__ |= {"_arrays": arrays, "_names": names}

    def __getitem__(self, name: str) -> Array:
        return Array(self.__dict__["_arrays"][name].astype(np.float64))

    def __delitem__(self, name: str) -> None: ...

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__["_names"])

    def __len__(self) -> int:
        return len(self.__dict__["_names"])

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__["_names"]

    def keys(self) -> KeysView[str]:
        """The names."""
        return KeysView(self)

    def values(self) -> ValuesView[Array]:
        """The arrays, one after the other."""
        return ValuesView(self)

    def items(self) -> ItemsView[str, Array]:
        """Names with arrays, one after the other."""
        return ItemsView(self)
