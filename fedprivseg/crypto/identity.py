"""A site's identity: an Ed25519 key pair (RFC 8032), and the statement that a site signs for each payload it releases.

The private key is drawn by the operating system, never from a seed: a scenario is public, and a key that follows from
it would be public too. No result may depend on a key; only signatures do.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import unusable, write_secret

Private = TypeVar("Private", Ed25519PrivateKey, X25519PrivateKey)


@final
class SiteKey:
    """The key pair of one site. The private half stays in this object and in its file; nothing prints it."""

    __slots__ = ("_private", "_pseudonyms", "public_hex")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        """Wrap `private`. ``public_hex``: the 32 bytes of the public key as 64 lower-case hex digits."""
        self._private = private
        self._pseudonyms: dict[str, str] = {}
        self.public_hex: str = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @classmethod
    def create(cls, path: Path) -> SiteKey:
        """A new random key, written to `path` as unencrypted PKCS8 PEM that only the owner can read (mode 0600).

        Raises RequestError if the file exists (a key is never overwritten) or cannot be written.
        """
        return cls(create_private(path, Ed25519PrivateKey.generate()))

    @classmethod
    def new(cls) -> SiteKey:
        """A fresh key that is in no file."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SiteKey:
        """The key in the PEM file at `path`. Raises RequestError if there is none that can be read, or not Ed25519."""
        private = read_private(path)
        if not isinstance(private, Ed25519PrivateKey):
            raise RequestError(
                f"the file {path.name} holds no Ed25519 private key (unencrypted PKCS8 PEM is what is read). "
                "Restore it from a backup, or move it away and create a new key under a new ledger."
            )
        return cls(private)

    @classmethod
    def at(cls, path: Path) -> SiteKey:
        """The key at `path`; made, with its folder, if there is none yet. Raises RequestError as `load`, OSError."""
        if path.exists():
            return cls.load(path)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls.create(path)

    @property
    def fingerprint(self) -> str:
        """The first 16 hex digits of the SHA-256 of the public key: short enough to compare by eye."""
        return key_id(self.public_hex)

    def sign(self, body: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `body`."""
        return self._private.sign(body)

    def pseudonym(self, name: str) -> str:
        """16 hex digits for `name` that only the holder of this key can make or recognise: what stands for a subject outside
        of the site. Ed25519 signatures are deterministic (RFC 8032), so the same name has the same pseudonym."""
        if name not in self._pseudonyms:
            signature = self.sign(b"fedprivseg pseudonym 1\0" + name.encode())
            self._pseudonyms[name] = hashlib.sha256(signature).hexdigest()[:16]
        return self._pseudonyms[name]

    def __repr__(self) -> str:
        return f"SiteKey(fingerprint={self.fingerprint})"


def key_id(public_hex: str) -> str:
    """The first 16 hex digits of the SHA-256 of a public key: what a ledger line calls it."""
    return hashlib.sha256(bytes.fromhex(public_hex)).hexdigest()[:16]


def create_private(path: Path, private: Private) -> Private:
    """Write a private key to a new file, as unencrypted PKCS8 PEM that only the owner can read (mode 0600); the key itself.

    Raises RequestError if the file exists (a key is never overwritten) or cannot be written.
    """
    write_secret(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return private


def read_private(path: Path) -> object:
    """The private key in an unencrypted PKCS8 PEM file; None if it holds none. Raises RequestError if it cannot be read."""
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except OSError as fault:
        raise RequestError(unusable(f"the key file {path.name}", "read", fault)) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def verify(public_hex: str, body: bytes, signature: bytes) -> bool:
    """Whether `signature` is that of `body` under `public_hex`. Malformed keys and signatures are False, not errors."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)).verify(signature, body)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def canonical(fields: Mapping[str, Any]) -> bytes:
    """`fields` as the one JSON text that is signed: sorted keys, no spaces, ASCII. Raises ValueError on NaN, TypeError
    on what JSON cannot hold."""
    return _CANONICAL.encode(fields).encode("ascii")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def statement(run_id: str, site: str, action: str, number: int, body_digest: str) -> bytes:
    """What a site signs when it releases a payload; the server builds the same bytes from what it asked for.

    A payload caught on the wire does not verify in another run or for another order.

    Args:
        run_id: of the run.
        site: that releases it.
        action: that it answers.
        number: round or shard.
        body_digest: SHA-256 of the encoded payload in hex.
    """
    return canonical(
        {
            "statement": "fedprivseg release 1",
            "run": run_id,
            "site": site,
            "action": action,
            "number": number,
            "digest": body_digest,
        }
    )


def read_secret(path: Path, length: int) -> bytes:
    """The `length` bytes of a key file. Raises RequestError if there is none, others than its owner can read it, or it is not
    as long."""
    secret = read_key_file(path, length)
    if len(secret) != length:
        raise RequestError(f"the file {path.name} holds no such key: it is not {length} bytes long.")
    return secret


def read_key_file(path: Path, most: int) -> bytes:
    """What stands in a key file, or its first `most` + 1 bytes. Raises RequestError if there is none, or others than its owner
    can use it."""
    try:
        with path.open("rb") as file:
            shared = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077
            content = file.read(most + 1)
    except OSError as fault:
        raise RequestError(unusable(f"the key file {path.name}", "read", fault)) from None
    if shared:
        raise RequestError(
            f"the key file {path.name} can be read or written by others than its owner. Set its mode to 0600, and "
            "change the key if somebody may have read it."
        )
    return content
