"""What a site's program notes for itself beside its vault: who was enrolled, who takes part, and its errors.

These files name patients. At a site whose policy asks for encryption at rest they are encrypted as the vault is (T/SCGS
313008-2024 clauses 5.4.1, 5.4.2-b); the register of consent is the hospital's own file, and stays as the hospital keeps it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, final

from fedprivseg.core.documents import content_of, read_document, stamped
from fedprivseg.core.files import write_durably
from fedprivseg.core.lock import locked
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.sitefolder.vault import is_sealed, sealing_key

INTAKE, PARTICIPANTS, ERRORS = "intake.json", "cohort.json", "errors.log"
"""Who was enrolled, on which state of the register; the subjects that take part; the errors, whose ids alone leave the site."""

NOTES = (INTAKE, PARTICIPANTS, ERRORS)


@final
class Notes:
    """The notes in the site's folder `home`, mode 0600: plain files, or ``<name>.sealed`` where the policy wants all of it
    encrypted. What is not added to is written in one step. Encrypted notes take no notice of plain ones."""

    def __init__(self, home: Path, key: SealingKey | None = None, *, sealed: bool | None = None) -> None:
        """key: the sealing key, if it was opened already. sealed: whether they are encrypted; None asks the site's policy."""
        self.sealed = is_sealed(home) if sealed is None else sealed
        self._home = home
        self._given = key

    @cached_property
    def key(self) -> SealingKey | None:
        """The key that seals them; None for plain ones. Raises RequestError if there is none where there must be one."""
        if not self.sealed:
            return None
        return self._given or sealing_key(self._home)

    def path(self, name: str) -> Path:
        """The file of the note `name`, one of `NOTES`."""
        assert name in NOTES
        return self._home / (f"{name}.sealed" if self.sealed else name)

    def has(self, name: str) -> bool:
        """Whether the note was written. Needs no key."""
        return self.path(name).exists()

    def read(self, name: str) -> bytes:
        """The note, a JSON document but for `ERRORS`. Raises FolderError if there is none or it is not as it was written,
        SealError if one byte of a sealed one is not."""
        path = self.path(name)
        if self.key is not None:
            return self.key.open(path.name, content_of(path))
        if name != ERRORS:
            read_document(path)
        return content_of(path)

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Put `content`, of which JSON holds all, in the place of the note `name`, whole or not at all."""
        self._put(name, json.dumps(stamped(content)).encode())

    def _put(self, name: str, body: bytes) -> None:
        path = self.path(name)
        write_durably(path, [body if self.key is None else self.key.seal(path.name, body)])

    def add(self, name: str, text: str) -> None:
        """Put `text` at the end of the note; one process after the other."""
        path = self.path(name)
        if self.key is None:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
                file.write(text)
            return
        with locked(self._home):
            self._put(name, (self.read(name) if path.exists() else b"") + text.encode())
