"""The contract of a protection: what is done to codes at a site before its gate sees them.

A protection keeps the shape and the type of the codes, since these are declared, and says in one line what it guarantees:
something formal, something computational, or nothing. Its key, if it has one, and its draws come from a `Key`; in a simulation
that is made from the run's seed, so that runs repeat, and nobody but the site is given it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from fedprivseg.core.seeds import numpy_generator


class Parameters(BaseModel):
    """A protection's parameters: frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Key:
    """A site's own randomness for one protection of one kind of code. root: a secret number; names: whose and what for."""

    root: int
    names: tuple[str | int, ...]

    def fixed(self, *names: str | int) -> np.random.Generator:
        """Draws that are the same for every payload of the run."""
        return numpy_generator(self.root, *self.names, "fixed", *names)

    def once(self, *names: str | int) -> np.random.Generator:
        """Draws for the one payload that `names` describe; the same payload again has the same ones, so that asking twice
        shows nothing new."""
        return numpy_generator(self.root, *self.names, "once", *names)


class Protection(ABC):
    """Final subclasses only; one file each; listed in `PROTECTIONS`."""

    name: ClassVar[str]
    paper: ClassVar[str]
    parameters_type: ClassVar[type[Parameters]]

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @property
    @abstractmethod
    def techniques(self) -> tuple[str, ...]:
        """What it is in the words of Table 2 (T/SCGS 313008-2024 clause 5.2), which a site's policy may advise against."""

    @property
    @abstractmethod
    def guarantee(self) -> str:
        """One line that begins with 'formal:', 'computational:' or 'none:'."""

    @abstractmethod
    def apply(self, codes: np.ndarray, key: Key, names: tuple[str | int, ...]) -> np.ndarray:
        """Codes (N, C, h, w) float32 -> the same shape, float32 and finite. names: which payload this is."""

    def undo(self, codes: np.ndarray, key: Key) -> np.ndarray:
        """An answer of the server in protected codes -> as the site's decoder knows them. What cannot be undone stays."""
        return codes

    @abstractmethod
    def history(self, code: tuple[int, ...]) -> str:
        """What the payload's history says, for codes that are (C, h, w) each. It follows from that and the parameters: what the
        history says is declared before any code is seen, and the gate lets no other word out."""
