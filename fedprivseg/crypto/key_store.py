"""Who holds the keys that a destruction takes away, and a key file as such a holder (T/SCGS 313008-2024 clause 5.8-f).

A ring holds many keys in one sealed file (`keyring.KeyRing`). A site's vault has one key, which stands in a file of its own: to
destroy it is to overwrite that file and to remove it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, final

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import overwrite, sync_folder
from fedprivseg.crypto.sealed_files import SealError, SealingKey


class KeyHolder(Protocol):
    """Named sealing keys that can be destroyed one by one. Each question reads the disk anew."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys that are there."""
        ...

    def key(self, name: str) -> SealingKey:
        """The key `name`. Raises SealError if it is not there."""
        ...

    def destroy(self, name: str) -> str:
        """Take the key `name` away for good; the id that it had. Raises SealError if that fails."""
        ...


@final
@dataclass(frozen=True)
class KeyFile:
    """The one key in the file at `path`, under the name by which orders speak of it. passphrase: of a key that is sealed under
    one."""

    path: Path
    name: str
    passphrase: str | None = field(default=None, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The key's name, or nothing if the file is gone."""
        return (self.name,) if os.path.lexists(self.path) else ()

    def key(self, name: str) -> SealingKey:
        """The key. Raises SealError for another name, and if the file is gone or is no key file."""
        if name not in self.names:
            raise SealError("the key file holds no key of this name, or is gone. Look at its names.")
        try:
            return SealingKey.load(self.path, self.passphrase)
        except RequestError as fault:
            raise SealError(str(fault)) from None

    def destroy(self, name: str) -> str:
        """Overwrite the file once with random bytes, remove it, and return the id that its key had. Raises SealError.

        Killed after the first of these it leaves a file of random bytes, which is another key: it opens nothing, and counts
        as there until it is removed too.
        """
        gone = self.key(name).id
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                overwrite(descriptor)
            finally:
                os.close(descriptor)
            self.path.unlink()
            sync_folder(self.path.parent)
        except OSError as fault:
            raise SealError(f"the key file could not be destroyed ({fault.strerror or type(fault).__name__})") from None
        return gone
