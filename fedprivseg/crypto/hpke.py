"""Content that is encrypted to the server's key: what a site's policy wants encrypted is so on the wire (5.3.1, 5.3.2-b).

The construction is HPKE in its base mode (RFC 9180): an ephemeral X25519 key, HKDF-SHA256, AES-256-GCM. The message context
that a payload is for - site, run, action, number, kind - is the `info` from which the key is derived, so what was caught opens
in no other one. The server's encryption key stands in a certificate that the server signs with its identity (Ed25519); a site
encrypts to that key only if it knows the identity, from its agreement or its configuration. HPKE proves nothing about the
sender: the site signs.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedprivseg.core.errors import PayloadError, RequestError
from fedprivseg.core.kinds import KindSpec
from fedprivseg.crypto.identity import SiteKey, canonical, create_private, key_id, read_private, verify

OVERHEAD = 48
"""Bytes that encryption adds to a payload: 32 of the ephemeral key (RFC 9180 section 7.1, Nenc) and 16 of the tag."""

_HEX_KEY = re.compile(r"[0-9a-f]{64}")


@final
class EncryptionKey:
    """The X25519 key pair to which sites encrypt. The private half stays in this object and in its file; nothing prints it."""

    __slots__ = ("_private", "public_hex")

    def __init__(self, private: X25519PrivateKey) -> None:
        """Wrap `private`. ``public_hex``: the 32 bytes of the public key as 64 lower-case hex digits."""
        self._private = private
        self.public_hex: str = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @classmethod
    def create(cls, path: Path) -> EncryptionKey:
        """A new random key, written to `path` as unencrypted PKCS8 PEM that only the owner can read (mode 0600).

        Raises RequestError if the file exists (a key is never overwritten) or cannot be written.
        """
        return cls(create_private(path, X25519PrivateKey.generate()))

    @classmethod
    def load(cls, path: Path) -> EncryptionKey:
        """The key in the PEM file at `path`. Raises RequestError if there is none that can be read, or not X25519."""
        private = read_private(path)
        if not isinstance(private, X25519PrivateKey):
            raise RequestError(
                f"the file {path.name} holds no X25519 private key (unencrypted PKCS8 PEM is what is read). Restore it from a "
                "backup, or move it away: the next start makes a new key, and what was sent to the old one and not yet opened "
                "is asked for again."
            )
        return cls(private)

    def open(self, slot: bytes, sealed: bytes) -> bytes:
        """What was encrypted to this key for `slot`. Raises PayloadError if that is not what `sealed` is, to the bit."""
        try:
            return _suite().decrypt(sealed, self._private, slot)
        except (InvalidTag, ValueError, TypeError):
            raise PayloadError(
                "what came cannot be opened: it was not encrypted to this server for this run, site, action, number and kind"
            ) from None

    def __repr__(self) -> str:
        return f"EncryptionKey(key_id={key_id(self.public_hex)})"


@dataclass(frozen=True)
class KeyCertificate:
    """That a server opens what is encrypted to a key, signed by that server.

    Attributes:
        server_key: the server's identity (public, hex).
        encryption_key: the key (public, hex).
        signature: by that identity, hex.
    """

    server_key: str
    encryption_key: str
    signature: str

    @classmethod
    def issue(cls, identity: SiteKey, key: EncryptionKey) -> KeyCertificate:
        """The certificate of `key`, signed by the server's `identity`."""
        signed = _certified(identity.public_hex, key.public_hex)
        return cls(identity.public_hex, key.public_hex, identity.sign(signed).hex())

    @classmethod
    def read(cls, text: str) -> KeyCertificate | None:
        """The certificate in `text`, as `text()` writes it; None if that is none, and then nothing is encrypted to it."""
        try:
            certificate = cls(**json.loads(text))
            keys = [_HEX_KEY.fullmatch(key) for key in (certificate.server_key, certificate.encryption_key)]
            bytes.fromhex(certificate.signature)
        except (ValueError, TypeError, RecursionError):
            return None
        return certificate if all(keys) else None

    def text(self) -> str:
        """The certificate as JSON."""
        return canonical(asdict(self)).decode("ascii")

    @property
    def key_id(self) -> str:
        """By which ledgers name the encryption key; see `key_id`."""
        return key_id(self.encryption_key)

    def unfit(self, identity: str | None) -> str | None:
        """Why a site that knows the server by `identity` (hex, None if by none) does not encrypt to this key: a sentence, or
        None if it does."""
        if identity is None:
            return "This site knows no server's key, from no agreement and no configuration: it cannot tell whose this one is."
        if self.server_key != identity:
            return "The encryption key is another server's than the one that this site deals with."
        if not verify(identity, _certified(self.server_key, self.encryption_key), bytes.fromhex(self.signature)):
            return "The encryption key is not signed by the server that this site deals with."
        return None

    def seal(self, slot: bytes, body: bytes) -> bytes:
        """`body` encrypted for `slot`, with an ephemeral key of its own: `OVERHEAD` bytes longer, other bytes each time.
        Raises ValueError if the key is no point that X25519 can work with."""
        return _suite().encrypt(body, X25519PublicKey.from_public_bytes(bytes.fromhex(self.encryption_key)), slot)


def slot(run_id: str, site: str, action: str, number: int, kind: KindSpec) -> bytes:
    """The one place in the one run for which a payload is encrypted; both sides build it from what was ordered."""
    return canonical(
        {
            "statement": "fedprivseg sealed payload 1",
            "run": run_id,
            "site": site,
            "action": action,
            "number": number,
            "kind": kind.value,
        }
    )


def _certified(server_key: str, encryption_key: str) -> bytes:
    return canonical(
        {"statement": "fedprivseg encryption key 1", "server_key": server_key, "encryption_key": encryption_key}
    )


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
