"""Keys of operations on a hospital's own files: a secret in a key file, or none."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_secret
from fedprivseg.crypto.identity import read_secret
from fedprivseg.protections.operation import Key

SECRET_BYTES = 32
"""256 bits, as long as the output of HMAC-SHA-256."""


@final
@dataclass(frozen=True)
class Secret(Key):
    """A site's secret for keyed operations: 32 bytes that nobody else knows. Nothing prints it.

    Attributes:
        material: the bytes. Raises RequestError for another length.
        names: what its generators are for.
    """

    material: bytes = field(repr=False)
    names: tuple[str | int, ...] = ()

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

    def fixed(self, *names: str | int) -> np.random.Generator:
        """See `Key`. PCG64 is no cryptographic generator: it is for operations that guarantee nothing, such as an order."""
        text = "\x1f".join(f"{type(name).__name__}:{name}" for name in (*self.names, *names))
        return np.random.default_rng(int.from_bytes(self.digest("generator", text), "big"))

    def once(self) -> np.random.Generator:
        """See `Key`; from the operating system."""
        return np.random.default_rng()

    def digest(self, purpose: str, text: str) -> bytes:
        """See `Key`: HMAC-SHA-256 (FIPS 198-1) over both; other purposes give unrelated bytes."""
        # The purpose is set apart by its length, so that no purpose and text join to those of another.
        head = purpose.encode()
        return hmac.new(self.material, len(head).to_bytes(4, "big") + head + text.encode(), hashlib.sha256).digest()


@final
@dataclass(frozen=True)
class Unkeyed(Key):
    """Of an operation that was given no key file: noise is drawn by the operating system, and what needs a secret is refused.

    Attributes:
        technique: for the message.
    """

    technique: str

    def fixed(self, *names: str | int) -> np.random.Generator:
        """Raises RequestError."""
        raise self._refusal()

    def once(self) -> np.random.Generator:
        """See `Key`."""
        return np.random.default_rng()

    def digest(self, purpose: str, text: str) -> bytes:
        """Raises RequestError."""
        raise self._refusal()

    def _refusal(self) -> RequestError:
        return RequestError(
            f"{self.technique} works with a secret here; name its key file (32 bytes, mode 0600) by --key."
        )
