"""The public start of a method: weights that its networks begin with, trained on phantoms and on no patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from fedprivseg.core.records import Slices

Progress = Callable[[str, int, int], None]


@final
@dataclass(frozen=True)
class PublicStart:
    """How a method's networks are trained on public slices.

    Attributes:
        recipe: all that decides the weights beside the slices, in values that JSON knows; methods of one recipe share them.
        subjects: how many phantom patients the slices are of.
        fit: ``fit(slices, device, progress)`` -> the weights by name.
    """

    recipe: Mapping[str, Any]
    subjects: int
    fit: Callable[[Slices, str, Progress], dict[str, np.ndarray]]
