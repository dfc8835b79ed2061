"""Symmetric encryption of bytes, clause 5.2 of T/SCGS 313008-2024: AES-256-GCM and SM4-GCM, both authenticated.

GCM is NIST SP 800-38D, AES is FIPS 197, SM4 is GB/T 32907-2016 and its use in GCM RFC 8998. What is encrypted is::

    fedprivseg cipher 1 <name of the cipher> LF   nonce, 12 bytes   ciphertext   tag, 16 bytes

The first line is authenticated together with the associated data, so neither version nor cipher can be exchanged. The nonce
is drawn by the operating system for every message; with random nonces one key may encrypt 2**32 messages (SP 800-38D section
8.3), which is for whoever keeps the key to count. The length of what was encrypted is not hidden.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher as Machine
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.deidentify.operation import Done, Operation
from fedprivseg.governance.policy.technique_table import Cipher, Technique, cipher

KEY_BYTES: Mapping[Cipher, int] = MappingProxyType({Cipher.AES_256_GCM: 32, Cipher.SM4_GCM: 16})
NONCE_BYTES = 12
TAG_BYTES = 16
LARGEST = 2**31 - 1
"""The most bytes of one message; GCM itself allows 2**36 - 32, the library less at a time."""

_HEADS: Mapping[Cipher, bytes] = MappingProxyType({name: f"fedprivseg cipher 1 {name}\n".encode() for name in Cipher})


@final
@dataclass(frozen=True)
class CipherKey:
    """A key of one cipher: 32 bytes for AES-256-GCM, 16 for SM4-GCM. Nothing prints it. Raises RequestError for another
    length, and for SM1."""

    name: Cipher
    material: bytes = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", cipher(self.name))
        needed = KEY_BYTES[self.name]
        if type(self.material) is not bytes or len(self.material) != needed:
            raise RequestError(f"a key of {self.name} is exactly {needed} bytes; draw one with CipherKey.create().")

    @classmethod
    def create(cls, name: str) -> CipherKey:
        """A new key of the cipher that `name` asks for (`strategy.cipher`), from the operating system's randomness."""
        chosen = cipher(name)
        return cls(chosen, os.urandom(KEY_BYTES[chosen]))


@final
@dataclass(frozen=True)
class Encryption(Operation):
    """Encrypts and decrypts with one key. It holds nothing but the key, and so may be made anew at any time."""

    key: CipherKey

    technique = Technique.SYMMETRIC_ENCRYPTION
    guarantee = "computational: without the key only the length is told, and any change is noticed"
    reversal = "key holder: exactly"

    def apply(self, body: bytes, associated: bytes) -> Done[bytes]:
        """`body` encrypted, and what was done. associated: bytes that are not encrypted but must be the same again for
        `undo`, such as whose data this is and what for; it may be empty. Raises RequestError for more than `LARGEST`."""
        if len(body) > LARGEST:
            raise RequestError(
                f"{len(body)} bytes are too many for one message; the most is {LARGEST}. Cut them into pieces."
            )
        name = self.key.name
        nonce = os.urandom(NONCE_BYTES)
        encryptor = self._machine(modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(_HEADS[name] + associated)
        hidden = encryptor.update(body) + encryptor.finalize()
        return Done(_HEADS[name] + nonce + hidden + encryptor.tag, f"{self.technique}: {name}, keyed")

    def undo(self, body: bytes, associated: bytes) -> bytes:
        """What was encrypted. Raises RequestError if `body` is not what `apply` made with this key and `associated`, without
        saying which of the three differs."""
        head = _HEADS[self.key.name]
        rest = body[len(head) :]
        if not body.startswith(head) or len(rest) < NONCE_BYTES + TAG_BYTES:
            raise RequestError(
                f"the bytes do not begin as those that {self.key.name} made, or are cut short; "
                f"ciphers that exist here: {', '.join(Cipher)}. Take the key that goes with them, or a copy that is whole."
            )
        nonce, hidden, tag = rest[:NONCE_BYTES], rest[NONCE_BYTES:-TAG_BYTES], rest[-TAG_BYTES:]
        decryptor = self._machine(modes.GCM(nonce, tag)).decryptor()
        decryptor.authenticate_additional_data(head + associated)
        shown = decryptor.update(hidden)
        try:
            return shown + decryptor.finalize()
        except InvalidTag:
            raise RequestError(
                "the bytes cannot be decrypted: they were changed, or made with another key or other associated data. "
                "Nothing of them is given out. Check the key and take a copy that is whole."
            ) from None

    def _machine(self, mode: modes.GCM) -> Machine[modes.GCM]:
        kind = algorithms.AES256 if self.key.name is Cipher.AES_256_GCM else algorithms.SM4
        try:
            return Machine(kind(self.key.material), mode)
        except UnsupportedAlgorithm:
            raise RequestError(
                f"the cryptographic library of this machine was built without {self.key.name}; take another cipher."
            ) from None
