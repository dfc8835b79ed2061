"""The key store of a site: one sealing key in a file of its own, which can be destroyed (T/SCGS 313008-2024 clause 5.8-f)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import overwrite, sync_folder
from fedprivseg.crypto.sealed_files import SealError, SealingKey


@final
@dataclass(frozen=True)
class KeyFile:
    """One sealing key in a file. Each question reads the disk again.

    Attributes:
        path: the file.
        name: by which orders of destruction speak of the key.
        passphrase: of a key file that is encrypted under one.
    """

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
