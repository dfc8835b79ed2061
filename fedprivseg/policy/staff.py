"""Who works at a site, in which role: the site's ``staff.toml``, one ``[[staff]]`` table a person (annex A.1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fedprivseg.config import read_toml, validated
from fedprivseg.errors import RequestError
from fedprivseg.policy.roles import Action, Staff, Title


class _Member(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: Title
    department: str
    groups: tuple[str, ...] = ()
    superior: str | None = None
    rights: tuple[Literal[Action.SAVE, Action.COPY, Action.PRINT, Action.DOWNLOAD], ...] = ()


class _StaffFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    staff: tuple[_Member, ...] = Field(min_length=1)


STAFF = "staff.toml"
"""The file in a site's folder that names its staff."""


def read_staff(path: Path) -> Mapping[str, Staff]:
    """The members of staff by id. ``superior`` names somebody who stands above in the file, so that there is no circle;
    ``rights`` are what the site lets this person do of save, copy, print and download (A.2.2-a).

    Raises RequestError for a file that cannot be read, an id that stands twice, and a superior who does not stand above.
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
