"""Symmetric encryption of the bytes of a file, clause 5.2 of T/SCGS 313008-2024: AES-256-GCM and SM4-GCM, both authenticated.

GCM is NIST SP 800-38D, AES is FIPS 197, SM4 is GB/T 32907-2016 and its use in GCM RFC 8998. What is encrypted is::

    fedprivseg cipher 1 <name of the cipher> LF   nonce, 12 bytes   ciphertext   tag, 16 bytes

The first line is authenticated too, so neither version nor cipher can be exchanged. The nonce is drawn by the operating system
for every message; with random nonces one key may encrypt 2**32 messages (SP 800-38D section 8.3), which is for whoever keeps
the key to count. The length of what was encrypted is not hidden.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher as Machine
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from pydantic import Field

from fedprivseg.core.errors import RequestError
from fedprivseg.core.techniques import Technique
from fedprivseg.governance.policy.technique_table import Cipher
from fedprivseg.protections.operation import Key, Operation

KEY_BYTES: Mapping[Cipher, int] = MappingProxyType({Cipher.AES_256_GCM: 32, Cipher.SM4_GCM: 16})
NONCE_BYTES = 12
TAG_BYTES = 16
LARGEST = 2**31 - 1
"""The most bytes of one message; GCM itself allows 2**36 - 32, the library less at a time."""


@final
class Encryption(Operation[bytes, bytes]):
    """Encrypts and decrypts with a key that follows from the site's secret."""

    name = "encryption"
    techniques: ClassVar = (Technique.SYMMETRIC_ENCRYPTION,)
    guarantee = "computational: without the key only the length is told, and any change is noticed"
    reversal = "key holder: exactly"

    cipher: Cipher = Field(default=Cipher.AES_256_GCM, description="an authenticated cipher")

    def apply(self, value: bytes, key: Key) -> bytes:
        if len(value) > LARGEST:
            raise RequestError(
                f"{len(value)} bytes are too many for one message; the most is {LARGEST}. Cut them into pieces."
            )
        nonce = os.urandom(NONCE_BYTES)
        encryptor = self._machine(key, modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(self._head)
        hidden = encryptor.update(value) + encryptor.finalize()
        return self._head + nonce + hidden + encryptor.tag

    def undo(self, value: bytes, key: Key) -> bytes:
        """What was encrypted. Raises RequestError if `value` is not what `apply` made with this key, without saying which of
        the two differs."""
        rest = value[len(self._head) :]
        if not value.startswith(self._head) or len(rest) < NONCE_BYTES + TAG_BYTES:
            raise RequestError(
                f"the bytes do not begin as those that {self.cipher} made, or are cut short; "
                f"ciphers that exist here: {', '.join(Cipher)}. Take the key that goes with them, or a copy that is whole."
            )
        nonce, hidden, tag = rest[:NONCE_BYTES], rest[NONCE_BYTES:-TAG_BYTES], rest[-TAG_BYTES:]
        decryptor = self._machine(key, modes.GCM(nonce, tag)).decryptor()
        decryptor.authenticate_additional_data(self._head)
        shown = decryptor.update(hidden)
        try:
            return shown + decryptor.finalize()
        except InvalidTag:
            raise RequestError(
                "the bytes cannot be decrypted: they were changed, or made with another key. Nothing of them is given out. "
                "Check the key and take a copy that is whole."
            ) from None

    def history(self, shape: tuple[int, ...] = ()) -> str:
        return f"{Technique.SYMMETRIC_ENCRYPTION}: {self.cipher}, keyed"

    @property
    def _head(self) -> bytes:
        return f"fedprivseg cipher 1 {self.cipher}\n".encode()

    def _machine(self, key: Key, mode: modes.GCM) -> Machine[modes.GCM]:
        kind = algorithms.AES256 if self.cipher is Cipher.AES_256_GCM else algorithms.SM4
        try:
            return Machine(kind(key.digest("cipher", self.cipher.value)[: KEY_BYTES[self.cipher]]), mode)
        except UnsupportedAlgorithm:
            raise RequestError(
                f"the cryptographic library of this machine was built without {self.cipher}; take another cipher."
            ) from None
