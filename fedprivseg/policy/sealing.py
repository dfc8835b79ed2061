"""Encryption at rest: sealed files, the keys that seal them, and a ring of keys that can be destroyed one by one.

T/SCGS 313008-2024 clauses 5.4.1, 5.4.2-a (control of storage), 5.4.2-b (integrity by cryptography), 5.8-f (the ring).

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

import fcntl
import io
import json
import os
import re
import stat
import struct
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fedprivseg.errors import FedprivsegError, RequestError
from fedprivseg.policy.keys import canonical, write_secret

MAGIC = b"fpsealed"
VERSION = 1
KEY_BYTES = 32
TAG_BYTES = 16
PIECE_BYTES = 1 << 18
"""Content of one piece. Measured: AES-GCM is as fast on 64 KiB as on 16 MiB, and new memory above 1 MiB slows it down."""

PASSPHRASE_CHARACTERS = 15
"""The shortest passphrase: NIST SP 800-63B-4, section 3.1.1, for a secret that is the only factor. A stolen file can be
guessed at without limit, so no shorter one is taken."""

NAME_BYTES = 1024
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LAYOUT = struct.Struct(">8sB4B16s16s12s48s")
_BOUND = struct.Struct(">8sB4B16s16s").size  # the part of the header that is associated data of the wrap
HEADER_BYTES = _LAYOUT.size
_RANDOM, _PASSPHRASE = 0, 1
_RING = "fedprivseg keyring 1"
_DRAFT = ".draft"
_EVIDENCE = "Keep it as evidence and restore it from a backup."


class SealError(FedprivsegError):
    """A sealed file or key ring that does not open: changed, cut, exchanged, or sealed under another key."""


@dataclass(frozen=True)
class Cost:
    """The cost of scrypt (RFC 7914): it takes 128 r N bytes of memory, p times over, with N = 2 ** `log2_n`.

    The default N = 2^17, r = 8, p = 1 is what the OWASP Password Storage Cheat Sheet (2024) asks for at least: 128 MiB, and
    0.4 s on one core as measured. It is paid once a session, not once a file. Raises RequestError beyond 1 GiB or 16 passes:
    a cost is read from files, and a file must not be able to exhaust the machine.
    """

    log2_n: int = 17
    r: int = 8
    p: int = 1

    def __post_init__(self) -> None:
        # N < 2^(128 r / 8): RFC 7914, section 6.
        fits = 1 <= self.log2_n <= 20 and 1 <= self.r <= 255 and 1 <= self.p <= 16 and self.log2_n < 16 * self.r
        if not fits or 128 * self.r << self.log2_n > 1 << 30:
            raise RequestError(
                f"scrypt with N = 2^{self.log2_n}, r = {self.r}, p = {self.p} is not taken: N is 2^1 to 2^20, p is 1 to 16, "
                "and 128 r N at most 1 GiB. Leave the cost out for the recommended one."
            )


@final
class SealingKey:
    """A key that seals and opens files. The secret stays in this object; nothing prints it, and it cannot be pickled.

    ``id``: 32 hex digits that name the key and tell nothing of it; they stand in the header of what it seals.
    """

    __slots__ = ("_origin", "_secret", "_wrap", "id")

    def __init__(self, secret: bytes, cost: Cost | None = None, salt: bytes = bytes(16)) -> None:
        """Wrap the 32 bytes of `secret`. cost, salt: how it was made of a passphrase; None if it was drawn."""
        if len(secret) != KEY_BYTES or len(salt) != 16:
            raise RequestError(f"a sealing key is {KEY_BYTES} bytes and its salt 16; other lengths were given.")
        origin = (_RANDOM, 0, 0, 0) if cost is None else (_PASSPHRASE, cost.log2_n, cost.r, cost.p)
        self._secret = secret
        self._origin = bytes(origin) + salt
        self._wrap = AESGCM(_expand(secret, b"fedprivseg sealing wrap 1", KEY_BYTES))
        self.id: str = _expand(secret, b"fedprivseg sealing id 1", 16).hex()

    @classmethod
    def random(cls) -> SealingKey:
        """A new key, drawn by the operating system."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def create(cls, path: Path) -> SealingKey:
        """A new random key, written to `path` as its 32 bytes, which only the owner can read (mode 0600).

        Raises RequestError if the file exists (a key is never overwritten) or cannot be written.
        """
        secret = os.urandom(KEY_BYTES)
        write_secret(path, secret)
        try:
            sync_folder(path.parent)
        except OSError as fault:
            path.unlink(missing_ok=True)
            raise RequestError(_unusable(f"the key file {path.name}", "written", fault)) from None
        return cls(secret)

    @classmethod
    def load(cls, path: Path) -> SealingKey:
        """The key in the file at `path`. Raises RequestError if it is no key file, or others than its owner can read it."""
        try:
            with path.open("rb") as file:
                shared = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077
                secret = file.read(KEY_BYTES + 1)
        except OSError as fault:
            raise RequestError(_unusable(f"the key file {path.name}", "read", fault)) from None
        if shared:
            raise RequestError(
                f"the key file {path.name} can be read or written by others than its owner. Set its mode to 0600, and "
                "change the key if somebody may have read it."
            )
        if len(secret) != KEY_BYTES:
            raise RequestError(f"the file {path.name} holds no sealing key: it is not {KEY_BYTES} bytes long.")
        return cls(secret)

    @classmethod
    def from_passphrase(cls, passphrase: str, cost: Cost | None = None) -> SealingKey:
        """A new key made of `passphrase` and a random salt. cost: None for the recommended one.

        Raises RequestError if the passphrase is shorter than `PASSPHRASE_CHARACTERS`.
        """
        if len(_normal(passphrase).decode()) < PASSPHRASE_CHARACTERS:
            raise RequestError(
                f"the passphrase is too short: it must have at least {PASSPHRASE_CHARACTERS} characters. Several words that "
                "were drawn by chance are easy to keep."
            )
        return _derived(passphrase, cost or Cost(), os.urandom(16))

    @classmethod
    def unlock(cls, passphrase: str, name: str, sealed: bytes) -> SealingKey:
        """The key made of `passphrase` that sealed the file `name`; of `sealed` only the header is looked at.

        The key is handed back only if it opens the file's data key, so a planted header never makes one. Raises SealError.
        """
        header = _parsed(sealed)
        if header.source != _PASSPHRASE:
            raise SealError("this file is not sealed under a passphrase. Open it with its key file or key ring.")
        try:
            cost = Cost(header.log2_n, header.r, header.p)
        except RequestError:
            raise SealError(
                f"the header of this sealed file was changed: its cost is beyond reason. {_EVIDENCE}"
            ) from None
        key = _derived(passphrase, cost, header.salt)
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

    def rekey(self, name: str, sealed: bytes, new: SealingKey) -> bytes:
        """The sealed file `name` under the key `new`, its content as it was and not looked at.

        Only the header changes: for a big file give its first HEADER_BYTES and write the answer over them. The data key
        stays, so whoever held the old key and a copy of the old header can still open it; seal anew against these. Raises
        SealError if this key does not open the header.
        """
        return new._header(name, self._unwrap(name, sealed)) + sealed[HEADER_BYTES:]

    def _header(self, name: str, data_key: bytes) -> bytes:
        start = MAGIC + bytes([VERSION]) + self._origin + bytes.fromhex(self.id)
        nonce = os.urandom(12)
        return start + nonce + self._wrap.encrypt(nonce, data_key, start + _encoded(name))

    def _unwrap(self, name: str, sealed: bytes) -> bytes:
        header = _parsed(sealed)
        if header.key_id != self.id:
            raise SealError(
                "this file is sealed under another key, or its header was changed. Open it with the passphrase, key file or "
                "key ring under which it was sealed."
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


@final
class KeyRing:
    """Named random keys in one sealed file: one for each subject or set of records.

    Destroying a key makes every copy of what was sealed under it unreadable, wherever it lies: cryptographic erase, NIST SP
    800-88 r1, section 2.6. As that section says, this holds only if every copy of the key is destroyed and the data was
    never stored without encryption. A copy of the ring's file holds the keys of its day: keep such copies out of backups of
    the data, and name all of them when a key is destroyed.

    The file is read anew for each question and changed under a lock, so no process keeps or brings back a destroyed key.
    """

    def __init__(self, path: Path, key: SealingKey) -> None:
        """The ring in the file at `path`, sealed under `key`. Raises SealError if it does not open."""
        self.path = path
        self._key = key
        self._read()

    @classmethod
    def create(cls, path: Path, key: SealingKey) -> KeyRing:
        """A new ring without keys; its folder must exist. Raises SealError if the file exists or cannot be written."""
        try:
            with locked(path.parent):
                if path.exists():
                    raise SealError(f"the key ring {path.name} exists already; a ring is never overwritten. Open it.")
                write_whole(path, [_ring_bytes({}, {}, key)])
        except OSError as fault:
            raise SealError(_unusable(f"the key ring {path.name}", "written", fault)) from None
        return cls(path, key)

    @classmethod
    def unlock(cls, path: Path, passphrase: str) -> KeyRing:
        """The ring at `path`, which is sealed under `passphrase`. Raises SealError if it does not open."""
        return cls(path, SealingKey.unlock(passphrase, _RING, _ring_file(path)))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys in the ring, sorted."""
        return tuple(sorted(self._read()[0]))

    @property
    def destroyed(self) -> Mapping[str, str]:
        """The names of the keys that were destroyed, each with the id that the key had."""
        return MappingProxyType(self._read()[1])

    def key(self, name: str) -> SealingKey:
        """The key `name`. Raises SealError if there is none; if it was destroyed the message says so."""
        keys, destroyed = self._read()
        if name in destroyed:
            raise SealError("this key was destroyed: what was sealed under it cannot be opened any more, by anybody.")
        if name not in keys:
            raise SealError(f"the ring holds no key of this name; it holds {len(keys)}. Add it before sealing.")
        return SealingKey(bytes.fromhex(keys[name]))

    def add(self, name: str) -> SealingKey:
        """A new random key, on the disk before it is handed back.

        Raises RequestError for a name that is taken, was destroyed (a name never means two keys), or is not 1 to 64 of
        ``A-Z a-z 0-9 . _ -`` beginning with a letter or digit; SealError if the ring cannot be written.
        """
        if not _KEY_NAME.fullmatch(name):
            raise RequestError(
                "this is no name for a key: allowed are 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', beginning with a letter or "
                "digit. Name keys by pseudonym, never by a patient's name."
            )
        with self._changing() as (keys, destroyed):
            if name in keys or name in destroyed:
                raise RequestError(
                    "a key of this name is or was in the ring, and a name never means two keys. Choose another name."
                )
            keys[name] = os.urandom(KEY_BYTES).hex()
        return self.key(name)

    def destroy(self, name: str) -> str:
        """Take the key `name` out of the ring for good, and return the id that it had.

        The ring is sealed anew without it; the old file is overwritten once, as far as the medium allows. Raises SealError
        if there is no such key, or if the ring cannot be written: look at `names` then, for the ring is whole either way.
        """
        gone = self.key(name).id
        with self._changing() as (keys, destroyed):
            if keys.pop(name, None) is None:
                raise SealError("another process destroyed this key in the meantime. Read the ring anew.")
            destroyed[name] = gone
        return gone

    def rekey(self, new: SealingKey) -> KeyRing:
        """The same ring, sealed anew under `new`; what the ring's keys sealed stays as it is. Raises SealError."""
        with self._changing(new):
            pass
        return KeyRing(self.path, new)

    @contextmanager
    def _changing(self, new: SealingKey | None = None) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
        """What the ring holds, to be changed; it is written when the block ends without an exception."""
        try:
            with locked(self.path.parent):
                self._remove_drafts()
                keys, destroyed = _ring_content(self.path.read_bytes(), self._key)
                yield keys, destroyed
                with self.path.open("r+b") as old:
                    write_whole(self.path, [_ring_bytes(keys, destroyed, new or self._key)])
                    overwrite(old.fileno())
        except OSError as fault:
            raise SealError(_unusable(f"the key ring {self.path.name}", "written", fault)) from None

    def _remove_drafts(self) -> None:
        """Overwrite and remove what a writer left that was killed: it may hold a key that is to be destroyed now."""
        for path in sorted(self.path.parent.iterdir()):
            if path.name.startswith(f".{self.path.name}.") and path.name.endswith(_DRAFT):
                with path.open("r+b") as draft:
                    overwrite(draft.fileno())
                path.unlink()

    def _read(self) -> tuple[dict[str, str], dict[str, str]]:
        return _ring_content(_ring_file(self.path), self._key)

    def __repr__(self) -> str:
        return f"KeyRing({self.path.name})"


def key_id(sealed: bytes) -> str:
    """The id of the key under which a file says that it is sealed; its header is enough. Raises SealError if it is none."""
    return _parsed(sealed).key_id


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Write `parts` to `path` (mode 0600) in one step: a reader sees the old file or the new one, also after a power cut.

    The draft beside it (``.<name>.*.draft``) is removed on any exception; a killed process leaves it. Raises OSError.
    """
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_DRAFT, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk: without it a power cut may bring back a file that was removed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def overwrite(descriptor: int) -> None:
    """Write random bytes once over all of an open file and bring them to the disk; its length stays. Raises OSError.

    On a magnetic disk that writes in place one pass is enough (NIST SP 800-88 r1, section 2.4). On flash, on copy-on-write
    and on log-structured file systems the old blocks may survive elsewhere: there it proves nothing.
    """
    left = os.fstat(descriptor).st_size
    os.lseek(descriptor, 0, os.SEEK_SET)
    while left > 0:
        left -= os.write(descriptor, os.urandom(min(left, 1 << 20)))
    os.fsync(descriptor)


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a file or folder (``flock``), alone or shared with others; only those who ask for it respect it.

    Raises OSError: BlockingIOError if it is held otherwise and `wait` is false.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Header:
    """The fields of a sealed file's header, in their order, without magic and version. Nothing in it is secret."""

    source: int
    log2_n: int
    r: int
    p: int
    salt: bytes
    key_id: str
    nonce: bytes
    wrapped: bytes


def _parsed(sealed: bytes) -> _Header:
    if len(sealed) < HEADER_BYTES:
        raise SealError(f"this is no sealed file: it is shorter than a header of {HEADER_BYTES} bytes. {_EVIDENCE}")
    magic, version, source, log2_n, r, p, salt, name, nonce, wrapped = _LAYOUT.unpack(sealed[:HEADER_BYTES])
    if magic != MAGIC:
        raise SealError(f"this is no sealed file: it does not begin as one. {_EVIDENCE}")
    if version != VERSION:
        raise SealError(
            f"this sealed file is of format version {version}; only version {VERSION} is read. Use the program that wrote it."
        )
    return _Header(source, log2_n, r, p, salt, name.hex(), nonce, wrapped)


def _derived(passphrase: str, cost: Cost, salt: bytes) -> SealingKey:
    scrypt = Scrypt(salt=salt, length=KEY_BYTES, n=1 << cost.log2_n, r=cost.r, p=cost.p)
    return SealingKey(scrypt.derive(_normal(passphrase)), cost, salt)


def _normal(passphrase: str) -> bytes:
    """The passphrase in NFC (as RFC 8265 asks), so that it is the same on every keyboard."""
    try:
        return unicodedata.normalize("NFC", passphrase).encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError("the passphrase is no text that can be encoded. Type it anew.") from None


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
    """`parts` cut anew into pieces of `size`, each with whether it is the last; that one is shorter, or as long if it fits."""
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


def _ring_file(path: Path) -> bytes:
    """The bytes of a ring's file. Under a shared lock: a writer overwrites the old file, which we may have open."""
    try:
        with locked(path.parent, shared=True):
            return path.read_bytes()
    except OSError as fault:
        raise SealError(_unusable(f"the key ring {path.name}", "read", fault)) from None


def _ring_content(sealed: bytes, key: SealingKey) -> tuple[dict[str, str], dict[str, str]]:
    """The secrets by name, and the ids of destroyed keys by name."""
    fields = json.loads(key.open(_RING, sealed))
    return fields["keys"], fields["destroyed"]


def _ring_bytes(keys: Mapping[str, str], destroyed: Mapping[str, str], key: SealingKey) -> bytes:
    return key.seal(_RING, canonical({"keys": dict(keys), "destroyed": dict(destroyed)}))


def _unusable(what: str, verb: str, fault: OSError) -> str:
    """The message for a file that could not be `verb`; the folder is a site's own affair and stays out of it."""
    return (
        f"{what} could not be {verb} ({fault.strerror or type(fault).__name__}). "
        "Check that its folder exists, belongs to this account and has space left."
    )
