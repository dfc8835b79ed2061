"""Who works at a site, in which role: the site's ``staff.toml``, one ``[[staff]]`` table a person (annex A.1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from fedprivseg.core.errors import RequestError
from fedprivseg.core.model import Frozen
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.core.toml_text import read_toml
from fedprivseg.core.validation import validated
from fedprivseg.governance.access.roles import Action, Staff, Title


class _Member(Frozen):
    id: str
    title: Title
    department: str
    groups: tuple[str, ...] = ()
    superior: str | None = None
    rights: tuple[Literal[Action.SAVE, Action.COPY, Action.PRINT, Action.DOWNLOAD], ...] = ()


class _StaffFile(Frozen):
    staff: tuple[_Member, ...] = Field(min_length=1)


OPENED = "opened"
"""What a line of event ``access`` calls it when encrypted files were opened for the hospital, by role and not by a policy."""


def read_staff(path: Path) -> Mapping[str, Staff]:
    """The members of staff by id.

    ``superior`` names somebody who stands above in the file, so that there is no circle; ``rights`` are what the site lets this
    person do of save, copy, print and download (A.2.2-a).

    Raises:
        RequestError: the file cannot be read, an id stands twice, or a superior does not stand above.
    """
    found: dict[str, Staff] = {}
    for member in validated(_StaffFile, read_toml(path), path.name).staff:
        if member.id in found:
            raise RequestError(f"{path.name}: the id {member.id!r} stands twice")
        if member.superior is not None and member.superior not in found:
            raise RequestError(
                f"{path.name}: {member.id!r} has the superior {member.superior!r}, who does not stand above; "
                f"above stand: {', '.join(found) or 'nobody'}"
            )
        above = None if member.superior is None else found[member.superior]
        rights = frozenset(Action(right) for right in member.rights)
        found[member.id] = Staff(
            member.id, member.title, member.department, frozenset(member.groups), above, rights=rights
        )
    return MappingProxyType(found)


def data_manager(home: Path, who: str, act: str) -> str:
    """The title of who may act on what a site keeps encrypted: a data manager of its staff (5.4.2-d, 5.7-c).

    Args:
        home: the folder of the site.
        who: an id of its staff; empty for a site without staff, where whoever holds its key may, and has no title.
        act: what is done, as in "open archives".

    Raises:
        RequestError: `who` may not; it lists who may.
    """
    staff = SiteFolder(home).staff
    if not staff.exists():
        if who:
            raise RequestError(
                f"{home.name} has no {staff.name}, so nobody can be named with --as; who holds its key may."
            )
        return ""
    may = sorted(name for name, member in read_staff(staff).items() if member.title is Title.DATA_MANAGER)
    if who not in may:
        raise RequestError(
            f"to {act} at {home.name} takes a {Title.DATA_MANAGER} of its {staff.name}, named with --as; given {who!r}, "
            f"allowed: {', '.join(may) or 'nobody'}"
        )
    return Title.DATA_MANAGER
