"""The contract of a de-identification operation, and the secrets that keyed ones work with.

Clause 5.2 of T/SCGS 313008-2024 names techniques; an operation is one technique on one sort of data, with its parameters.
What it did comes back together with its result as one line of history, so that neither is to be had without the other. The
line holds the technique and the parameters, never a secret and never a value of the data.

Operations on pictures are in `deidentify_images` and `deidentify_keyed`, on metadata in `deidentify_records`; the two kinds
of encryption are in `deidentify_encryption` and `deidentify_homomorphic`. `strategy` says which technique suits which data.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
from abc import ABC
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar, final

import numpy as np

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_secret
from fedprivseg.crypto.identity import read_secret
from fedprivseg.governance.policy.technique_table import Technique

SECRET_BYTES = 32
"""256 bits, as long as the output of HMAC-SHA-256."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Done(Generic[Value]):
    """What an operation gives back: the `value` that it made and one line of `history` that says what was done."""

    value: Value
    history: str


class Operation(ABC):
    """One technique with its parameters; final subclasses only.

    technique: of clause 5.2. guarantee: one line that begins with 'formal:', 'computational:' or 'none:'. reversal: who can
    undo it, one line that begins with 'nobody:', 'key holder:' or 'anybody:'.
    """

    technique: ClassVar[Technique]
    guarantee: ClassVar[str]
    reversal: ClassVar[str]


@final
@dataclass(frozen=True)
class Secret:
    """A site's secret for keyed operations: 32 bytes that nobody else knows. Nothing prints it.

    Raises RequestError for another length.
    """

    material: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if type(self.material) is not bytes or len(self.material) != SECRET_BYTES:
            raise RequestError(
                f"a secret is exactly {SECRET_BYTES} bytes, and something else was given. "
                "Draw one with Secret.create() and keep it in the site's vault."
            )

    @classmethod
    def create(cls) -> Secret:
        """A new secret from the operating system's randomness."""
        return cls(os.urandom(SECRET_BYTES))

    @classmethod
    def load(cls, path: Path) -> Secret:
        """The secret in the key file at `path`. Raises RequestError for a file that cannot be read, that others than its
        owner can read, or of another length."""
        return cls(read_secret(path, SECRET_BYTES))

    def keep(self, path: Path) -> None:
        """Write the secret to a new key file that only its owner can read. Raises RequestError if that cannot be done."""
        write_secret(path, self.material)

    def digest(self, purpose: str, text: str) -> bytes:
        """The 32 bytes of HMAC-SHA-256 (FIPS 198-1) over `purpose` and `text`; other purposes give unrelated bytes."""
        # The purpose is set apart by its length, so that no purpose and text join to those of another.
        head = purpose.encode()
        return hmac.new(self.material, len(head).to_bytes(4, "big") + head + text.encode(), hashlib.sha256).digest()

    def generator(self, *names: str | int) -> np.random.Generator:
        """A generator whose draws follow from the secret and `names`: the same again for the same names.

        PCG64 is no cryptographic generator: it serves operations that guarantee nothing, such as a secret order.
        """
        text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
        return np.random.default_rng(int.from_bytes(self.digest("generator", text), "big"))


# --- parameters ------------------------------------------------------------------------------------------------------


def whole(value: int, name: str, least: int, most: int | None = None) -> None:
    """Raises RequestError unless the parameter `name` is a whole number from `least` to `most` (None: no upper bound)."""
    if type(value) is not int or value < least or (most is not None and value > most):
        upper = "" if most is None else f" and at most {most}"
        raise RequestError(f"{name} is {value!r}; a whole number of at least {least}{upper} is needed.")


def finite(value: float, name: str) -> None:
    """Raises RequestError unless the parameter `name` is a finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise RequestError(f"{name} is {value!r}; a finite number is needed.")


def positive(value: float, name: str) -> None:
    """Raises RequestError unless the parameter `name` is a finite number above zero."""
    finite(value, name)
    if value <= 0:
        raise RequestError(f"{name} is {value!r}; a finite number above zero is needed.")
