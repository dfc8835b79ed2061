"""The contract of a de-identification: a technique of clause 5.2 of T/SCGS 313008-2024 with its parameters.

What is worked on is an array, a table or the bytes of a file; the contract is one. Arrays are (N, C, H, W) float32, finite: N
slices, C channels. An operation on arrays that keeps their shape may be named by a scenario (`PROTECTIONS`), for codes of any
kind that is protectable; `fedprivseg deidentify` works on files of images and tables.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar, final

import numpy as np

from fedprivseg.core.errors import RequestError
from fedprivseg.core.model import Frozen
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.core.techniques import Technique

Given = TypeVar("Given")
Made = TypeVar("Made")


class Key(ABC):
    """A site's own secret and randomness for one operation."""

    @abstractmethod
    def fixed(self, *names: str | int) -> np.random.Generator:
        """Draws that are the same whenever the same key is asked: of a secret order or matrix."""

    @abstractmethod
    def once(self) -> np.random.Generator:
        """Draws for what is worked on now and for nothing else: of noise."""

    @abstractmethod
    def digest(self, purpose: str, text: str) -> bytes:
        """32 bytes that follow from the key, `purpose` and `text`: of a pseudonym."""


@final
@dataclass(frozen=True)
class SeedKey(Key):
    """A key that follows from a run's seed, so that runs repeat: secret only as far as the seed is.

    Attributes:
        root: the seed.
        names: whose key it is, and what for.
        payload: which payload is worked on; the same again has the same draws, so that asking twice shows nothing new.
    """

    root: int
    names: tuple[str | int, ...]
    payload: tuple[str | int, ...] = ()

    def fixed(self, *names: str | int) -> np.random.Generator:
        """See `Key`."""
        return numpy_generator(self.root, *self.names, "fixed", *names)

    def once(self) -> np.random.Generator:
        """See `Key`."""
        return numpy_generator(self.root, *self.names, "once", *self.payload)

    def digest(self, purpose: str, text: str) -> bytes:
        """See `Key`."""
        return self.fixed("digest", purpose, text).bytes(32)


class Operation(Frozen, ABC, Generic[Given, Made]):
    """One technique; its fields are its parameters, checked when it is made. Final subclasses only.

    A field says what it is in its description; one without a default has an example that fits arrays of 4 x 4 cells and more.

    Attributes:
        name: by which a scenario names it.
        paper: whose technique it is.
        guarantee: one line that begins with 'formal:', 'computational:' or 'none:'.
        reversal: who can undo it, one line that begins with 'nobody:', 'key holder:' or 'anybody:'.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = "T/SCGS 313008-2024, clause 5.2"
    guarantee: ClassVar[str]
    reversal: ClassVar[str]

    @property
    @abstractmethod
    def techniques(self) -> tuple[Technique, ...]:
        """What it is in the words of Table 2, which a site's policy may advise against."""

    @abstractmethod
    def apply(self, value: Given, key: Key) -> Made:
        """`value` as others may see it, in a new object. Raises RequestError if the operation does not fit it."""

    def undo(self, value: Made, key: Key) -> Given:
        """What `apply` was given, or an answer in the same terms. Raises RequestError where nobody can."""
        raise RequestError(f"{' and '.join(self.techniques)} cannot be undone here: {self.reversal}.")

    @property
    def reversible(self) -> bool:
        """Whether `undo` gives something back."""
        return type(self).undo is not Operation.undo

    @abstractmethod
    def history(self, shape: tuple[int, ...] = ()) -> str:
        """One line that says what is done. It follows from the parameters and from `shape`, (C, H, W) of an array, alone: it is
        declared before any data is seen, and the gate lets no other word out. Never a secret or a value of the data.

        Raises:
            RequestError: the operation does not fit arrays of this shape.
        """


ArrayOperation = Operation[np.ndarray, np.ndarray]
