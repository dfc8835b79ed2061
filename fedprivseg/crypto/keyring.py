"""A ring of named keys that can be destroyed one by one: one for each subject or set of records.

T/SCGS 313008-2024 clause 5.8-f: destruction that reaches every copy, wherever it lies. The ring is itself a sealed file
(`sealing`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import final

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import DRAFT, overwrite, unusable, write_durably
from fedprivseg.core.lock import locked
from fedprivseg.crypto.identity import canonical
from fedprivseg.crypto.sealed_files import KEY_BYTES, SealError, SealingKey

_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RING = "fedprivseg keyring 1"


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
                write_durably(path, [_ring_bytes({}, {}, key)])
        except OSError as fault:
            raise SealError(unusable(f"the key ring {path.name}", "written", fault)) from None
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
                    write_durably(self.path, [_ring_bytes(keys, destroyed, new or self._key)])
                    overwrite(old.fileno())
        except OSError as fault:
            raise SealError(unusable(f"the key ring {self.path.name}", "written", fault)) from None

    def _remove_drafts(self) -> None:
        """Overwrite and remove what a writer left that was killed: it may hold a key that is to be destroyed now."""
        for path in sorted(self.path.parent.iterdir()):
            if path.name.startswith(f".{self.path.name}.") and path.name.endswith(DRAFT):
                with path.open("r+b") as draft:
                    overwrite(draft.fileno())
                path.unlink()

    def _read(self) -> tuple[dict[str, str], dict[str, str]]:
        return _ring_content(_ring_file(self.path), self._key)

    def __repr__(self) -> str:
        return f"KeyRing({self.path.name})"


def _ring_file(path: Path) -> bytes:
    """The bytes of a ring's file. Under a shared lock: a writer overwrites the old file, which we may have open."""
    try:
        with locked(path.parent, shared=True):
            return path.read_bytes()
    except OSError as fault:
        raise SealError(unusable(f"the key ring {path.name}", "read", fault)) from None


def _ring_content(sealed: bytes, key: SealingKey) -> tuple[dict[str, str], dict[str, str]]:
    """The secrets by name, and the ids of destroyed keys by name."""
    fields = json.loads(key.open(_RING, sealed))
    return fields["keys"], fields["destroyed"]


def _ring_bytes(keys: Mapping[str, str], destroyed: Mapping[str, str], key: SealingKey) -> bytes:
    return key.seal(_RING, canonical({"keys": dict(keys), "destroyed": dict(destroyed)}))
