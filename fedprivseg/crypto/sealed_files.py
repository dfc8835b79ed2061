"""Encryption at rest: encrypted (sealed) files and the keys that seal them.

T/SCGS 313008-2024 clauses 5.4.1, 5.4.2-a (control of storage), 5.4.2-b (integrity by cryptography).

The format is our own, on AES-GCM of `cryptography`, because age (tried as pyrage 1.4) binds no file to its name and no header
to its key: a file put in another's place would open, and destruction could not tell from a header which key a copy is under.

A sealed file is a header of `HEADER_BYTES` and then the content in pieces of `PIECE_BYTES`, each followed by a tag of 16::

    magic 8 | version 1 | scrypt: source 1, log2 N 1, r 1, p 1, salt 16 | key id 16 | nonce 12 | wrapped data key 32 + tag 16

- Each file has a random data key of its own (AES-256-GCM). The pieces follow STREAM (Hoang, Reyhanitabar, Rogaway and Vizar,
  CRYPTO 2015): the nonce is the piece's number and whether it is the last, so pieces cannot be re-ordered, dropped at the
  end, or added; a key that is used for one file alone needs no random prefix. Memory stays bounded however long the file.
- The sealing key wraps the data key with AES-256-GCM and not with AES-KWP (RFC 5649), because GCM takes associated data: the
  file's logical name, the format's version and the key's origin are bound to the wrap and cannot be exchanged. Its nonces are
  random, which is sound for 2^32 files under one sealing key (NIST SP 800-38D, section 8.3).
- The name and version are associated data of every piece too. A file that is put in another's place does not open.

What sealing cannot show: an older sealed file of the same name that is put back. Whoever needs that keeps a digest elsewhere.
Python cannot wipe memory: secrets last in it until it is used again.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple, NoReturn, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from fedprivseg.core.errors import FedprivsegError, RequestError
from fedprivseg.core.files import sync_folder, unusable, write_secret
from fedprivseg.crypto.identity import read_key_file
from fedprivseg.crypto.passphrase import Cost, check_passphrase, derive

MAGIC = b"fpsealed"
VERSION = 1
KEY_BYTES = 32
TAG_BYTES = 16
PIECE_BYTES = 1 << 18
"""Content of one piece. Measured: AES-GCM is as fast on 64 KiB as on 16 MiB, and new memory above 1 MiB slows it down."""

NAME_BYTES = 1024
_LAYOUT = struct.Struct(">8sB4B16s16s12s48s")
_BOUND = struct.Struct(">8sB4B16s16s").size  # the part of the header that is associated data of the wrap
HEADER_BYTES = _LAYOUT.size
_RANDOM, _PASSPHRASE = 0, 1
_KEY_FILE = "fedprivseg sealing key 1"  # the name under which a key file is sealed
_EVIDENCE = "Keep it as evidence and restore it from a backup."


class SealError(FedprivsegError):
    """A sealed file that does not open: changed, cut, exchanged, or sealed under another key."""


@final
class SealingKey:
    """A key that seals and opens files. The secret stays in this object; nothing prints it, and it cannot be pickled.

    Attributes:
        id: 32 hex digits that name the key and tell nothing of it; they stand in the header of what it seals.
    """

    __slots__ = ("_origin", "_secret", "_wrap", "id")

    def __init__(self, secret: bytes, cost: Cost | None = None, salt: bytes = bytes(16)) -> None:
        """Wrap a secret.

        Args:
            secret: 32 bytes.
            cost: at which it was made of a passphrase; None if it was drawn.
            salt: 16 bytes with which it was made of a passphrase.
        """
        if len(secret) != KEY_BYTES or len(salt) != 16:
            raise RequestError(f"a sealing key is {KEY_BYTES} bytes and its salt 16; other lengths were given.")
        origin = (_RANDOM, 0, 0, 0) if cost is None else (_PASSPHRASE, cost.log2_n, cost.r, cost.p)
        self._secret = secret
        self._origin = bytes(origin) + salt
        self._wrap = AESGCM(_expand(secret, b"fedprivseg sealing wrap 1", KEY_BYTES))
        self.id: str = _expand(secret, b"fedprivseg sealing id 1", 16).hex()

    @classmethod
    def create(cls, path: Path, passphrase: str | None = None, cost: Cost | None = None) -> SealingKey:
        """A new random key in a file that only the owner can read (mode 0600).

        Args:
            path: the file.
            passphrase: under which the key is encrypted there; None writes its 32 bytes in plaintext.
            cost: of making a key of the passphrase; None for the recommended one.

        Raises:
            RequestError: the file exists (a key is never overwritten) or cannot be written, or the passphrase is too short.
        """
        secret = os.urandom(KEY_BYTES)
        write_secret(
            path, secret if passphrase is None else cls.from_passphrase(passphrase, cost).seal(_KEY_FILE, secret)
        )
        try:
            sync_folder(path.parent)
        except OSError as fault:
            path.unlink(missing_ok=True)
            raise RequestError(unusable(f"the key file {path.name}", "written", fault)) from None
        return cls(secret)

    @classmethod
    def load(cls, path: Path, passphrase: str | None = None) -> SealingKey:
        """The key in the file at `path`; a file that is encrypted under a passphrase needs that.

        Raises:
            RequestError: it is no key file, others than its owner can read it, or the passphrase is not given.
            SealError: the passphrase is another one.
        """
        content = read_key_file(path, HEADER_BYTES + KEY_BYTES + TAG_BYTES)
        if content.startswith(MAGIC):
            if passphrase is None:
                raise RequestError(f"the key file {path.name} is sealed under a passphrase. Give the passphrase.")
            content = cls.unlock(passphrase, _KEY_FILE, content).open(_KEY_FILE, content)
        if len(content) != KEY_BYTES:
            raise RequestError(f"the file {path.name} holds no sealing key: it is not {KEY_BYTES} bytes long.")
        return cls(content)

    @classmethod
    def from_passphrase(cls, passphrase: str, cost: Cost | None = None) -> SealingKey:
        """A new key made of `passphrase` and a random salt. cost: None for the recommended one.

        Raises RequestError if the passphrase is shorter than `PASSPHRASE_CHARACTERS`.
        """
        check_passphrase(passphrase)
        cost, salt = cost or Cost(), os.urandom(16)
        return cls(derive(passphrase, cost, salt, KEY_BYTES), cost, salt)

    @classmethod
    def unlock(cls, passphrase: str, name: str, sealed: bytes) -> SealingKey:
        """The key made of `passphrase` that sealed the file `name`; of `sealed` only the header is looked at.

        The key is handed back only if it opens the file's data key, so a planted header never makes one. Raises SealError.
        """
        header = _parsed(sealed)
        if header.source != _PASSPHRASE:
            raise SealError("this file is not sealed under a passphrase. Open it with its key file.")
        try:
            cost = Cost(header.log2_n, header.r, header.p)
        except RequestError:
            raise SealError(
                f"the header of this sealed file was changed: its cost is beyond reason. {_EVIDENCE}"
            ) from None
        key = cls(derive(passphrase, cost, header.salt, KEY_BYTES), cost, header.salt)
        key._unwrap(name, sealed)
        return key

    def seal(self, name: str, content: bytes) -> bytes:
        """`content` sealed as the file `name`: HEADER_BYTES and 16 a piece longer. Raises RequestError on a bad name."""
        return _joined(self.seal_stream(name, _slices(content)))

    def open(self, name: str, sealed: bytes) -> bytes:
        """The content of the sealed file `name`. Raises SealError if a byte was changed, is missing or was added, if it is
        another file's, or sealed under another key."""
        return _joined(self.open_stream(name, _slices(sealed)))

    def seal_stream(self, name: str, content: Iterable[bytes | memoryview]) -> Iterator[bytes]:
        """The parts of the sealed file as `content` comes in, in parts of any size. Holds one piece at a time."""
        data_key = os.urandom(KEY_BYTES)
        yield self._header(name, data_key)
        cipher, bound = AESGCM(data_key), _bound(name)
        for number, (piece, last) in enumerate(_pieces(content, PIECE_BYTES)):
            yield cipher.encrypt(_nonce(number, last), piece, bound)

    def open_stream(self, name: str, sealed: Iterable[bytes | memoryview]) -> Iterator[bytes]:
        """The content in parts, each of them checked before it is handed out. Holds one piece at a time.

        That nothing is missing is known only at the end: use nothing before the iterator ends without a SealError.
        """
        parts, start = iter(sealed), b""
        while len(start) < HEADER_BYTES and (part := next(parts, None)) is not None:
            start += part
        cipher, bound = AESGCM(self._unwrap(name, start)), _bound(name)
        for number, (piece, last) in enumerate(_pieces(chain((start[HEADER_BYTES:],), parts), PIECE_BYTES + TAG_BYTES)):
            try:
                yield cipher.decrypt(_nonce(number, last), piece, bound)
            except InvalidTag:
                raise SealError(
                    f"piece {number + 1} of this sealed file was changed or cut, or is not the piece that belongs there. "
                    f"{_EVIDENCE}"
                ) from None

    def opens(self, name: str, sealed: bytes) -> bool:
        """Whether this key opens the header of the sealed file `name`. Says nothing of the content."""
        try:
            self._unwrap(name, sealed)
        except SealError:
            return False
        return True

    def _header(self, name: str, data_key: bytes) -> bytes:
        start = MAGIC + bytes([VERSION]) + self._origin + bytes.fromhex(self.id)
        nonce = os.urandom(12)
        return start + nonce + self._wrap.encrypt(nonce, data_key, start + _encoded(name))

    def _unwrap(self, name: str, sealed: bytes) -> bytes:
        header = _parsed(sealed)
        if header.key_id.hex() != self.id:
            raise SealError(
                "this file is sealed under another key, or its header was changed. Open it with the passphrase or "
                "key file under which it was sealed."
            )
        try:
            return self._wrap.decrypt(header.nonce, header.wrapped, bytes(sealed[:_BOUND]) + _encoded(name))
        except InvalidTag:
            raise SealError(
                f"the header of this sealed file was changed, or it is another file's. {_EVIDENCE}"
            ) from None

    def __repr__(self) -> str:
        return f"SealingKey(id={self.id})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a sealing key is not pickled: it stays in the process that made or loaded it")


def wants_passphrase(path: Path) -> bool:
    """Whether the key file at `path` is sealed under a passphrase. Raises RequestError if it cannot be used."""
    return read_key_file(path, len(MAGIC)).startswith(MAGIC)


class _Header(NamedTuple):
    """The fields of an encrypted file's header, in their order. Nothing in it is secret."""

    magic: bytes
    version: int
    source: int
    log2_n: int
    r: int
    p: int
    salt: bytes
    key_id: bytes
    nonce: bytes
    wrapped: bytes


def _parsed(sealed: bytes) -> _Header:
    if len(sealed) < HEADER_BYTES:
        raise SealError(f"this is no sealed file: it is shorter than a header of {HEADER_BYTES} bytes. {_EVIDENCE}")
    header = _Header._make(_LAYOUT.unpack(sealed[:HEADER_BYTES]))
    if header.magic != MAGIC:
        raise SealError(f"this is no sealed file: it does not begin as one. {_EVIDENCE}")
    if header.version != VERSION:
        raise SealError(
            f"this sealed file is of format version {header.version}; only version {VERSION} is read. Use the program that "
            "wrote it."
        )
    return header


def _expand(secret: bytes, use: bytes, length: int) -> bytes:
    """Separate keys for separate uses (HKDF-Expand, RFC 5869; the secret is uniform, so nothing is to extract)."""
    return HKDFExpand(algorithm=SHA256(), length=length, info=use).derive(secret)


def _encoded(name: str) -> bytes:
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        encoded = b""
    if not 1 <= len(encoded) <= NAME_BYTES:
        raise RequestError(
            f"the logical name of a sealed file is text of 1 to {NAME_BYTES} bytes in UTF-8. Choose another."
        )
    return encoded


def _bound(name: str) -> bytes:
    """The associated data of every piece."""
    return MAGIC + bytes([VERSION]) + _encoded(name)


def _nonce(number: int, last: bool) -> bytes:
    """STREAM's nonce of a piece: its number from 0, and whether it is the last."""
    return number.to_bytes(11, "big") + bytes([last])


def _pieces(parts: Iterable[bytes | memoryview], size: int) -> Iterator[tuple[bytes, bool]]:
    """`parts` cut again into pieces of `size`, each with whether it is the last; that one may be shorter."""
    rest = bytearray()
    for part in parts:
        rest += part
        while len(rest) > size:  # not >=: a piece is known not to be the last only when there is more
            yield bytes(rest[:size]), False
            del rest[:size]
    yield bytes(rest), True


def _slices(content: bytes) -> Iterator[memoryview]:
    return (memoryview(content)[start : start + PIECE_BYTES] for start in range(0, len(content), PIECE_BYTES))


def _joined(parts: Iterable[bytes]) -> bytes:
    # Not b"".join: it keeps every part until the end, which takes twice the memory and twice the time.
    whole = io.BytesIO()
    for part in parts:
        whole.write(part)
    return whole.getvalue()
