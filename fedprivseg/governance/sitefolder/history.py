"""What a site's own ledger tells of before, which files that were changed or lost since cannot undo."""

from __future__ import annotations

import os
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import final

from fedprivseg.core.errors import LedgerError
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.ledger import read
from fedprivseg.governance.ledger.line import Line

DESTRUCTION = "destruction"
"""The event of a destruction's lines in the ledger, and how the names of its records begin ."""
CARRIED_OUT = "carried out"
"""What the last of these lines says, as its fact ``what``."""


@final
class History:
    """The past of the site whose folder is `home`, unchecked: whoever appends to the ledger checks where it ends."""

    def __init__(self, home: Path) -> None:
        self._folder = SiteFolder(home)

    @property
    def unreadable(self) -> bool:
        """Whether there is a ledger, and it cannot be read."""
        return self._lines is None

    def withdrew(self, subject: str) -> date | None:
        """The last day on which the subject withdrew consent; None if the ledger tells of no withdrawal (5.1.2-b)."""
        told = {str(line.facts["subject"]): line.facts for line in self._of("withdrawal")}
        if not told:
            return None
        facts = told.get(SiteKey.load(self._folder.key).pseudonym(subject))
        return None if facts is None else date.fromisoformat(str(facts["day"]))

    @property
    def enrolments(self) -> list[date]:
        """The days of earlier enrolments."""
        return [date.fromisoformat(str(day)) for line in self._of("enrolment") if (day := line.facts.get("day"))]

    @property
    def destroyed(self) -> bool:
        """Whether what the site held was destroyed, or is being (5.8), by records of it, or by the ledger if these are gone."""
        if disposed(self._folder.path):
            return True
        try:
            # Asked for every order, so lines are looked at only where there may be such a one.
            if DESTRUCTION.encode() not in self._folder.ledger.read_bytes():
                return False
        except OSError:
            return False  # a ledger that cannot be read takes no line either, and without a line nothing leaves
        return any(line.facts.get("what") == CARRIED_OUT for line in self._of(DESTRUCTION))

    @cached_property
    def _lines(self) -> tuple[Line, ...] | None:
        path = self._folder.ledger
        try:
            return tuple(read(path)) if path.exists() else ()
        except LedgerError:
            return None

    def _of(self, event: str) -> list[Line]:
        return [line for line in self._lines or () if line.event == event]


def disposed(home: Path) -> bool:
    """Whether the destruction of what the site in the folder `home` holds was begun, or is done."""
    names = os.listdir(home) if home.exists() else []
    return any(
        name.startswith(f"{DESTRUCTION}-") and name.endswith((".begun.json", ".certificate.json")) for name in names
    )
