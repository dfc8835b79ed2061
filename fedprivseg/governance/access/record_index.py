"""What can be asked for at a site, and by which persons: its record index and the accounts of patients (annexes A.1, A.2).

Two files of the site, JSON Lines, one object a line: ``records.jsonl`` says of each part of a patient's data what the access
rules ask about it, and ``accounts.jsonl`` who may query as a patient, a guardian or a child. Neither has a record's content:
what is decided here is whether it is given out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, model_validator

from fedprivseg.core.errors import RequestError
from fedprivseg.core.model import Frozen
from fedprivseg.governance.access.roles import (
    MOST_CHARACTERS,
    MOST_DOCTORS,
    MOST_MEMBERS,
    Action,
    Granularity,
    Guardian,
    Kinship,
    Patient,
    Record,
    Staff,
)

SELF = "self"

_Id = Annotated[str, StringConstraints(min_length=1, max_length=MOST_CHARACTERS)]
_Item = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,47}$")]
_Ids = Annotated[tuple[_Id, ...], Field(max_length=MOST_MEMBERS)]
_Keep = Literal[Action.SAVE, Action.COPY, Action.PRINT, Action.DOWNLOAD]


class _Line(Frozen):
    # No input in errors: it names patients.
    model_config = ConfigDict(hide_input_in_errors=True)


_Model = TypeVar("_Model", bound=_Line)
_Key = TypeVar("_Key")


class Entry(_Line):
    """One part of one patient's data, as `roles.Record` has it.

    Attributes:
        item: what it is, such as ``imaging-report``; a subject has one of each.
        reported: the day of the report.
        doctors: ids of members of staff, like those in `treating` and `attending`.
    """

    subject: _Id
    item: _Item
    department: _Id
    source: _Id
    level: Literal[1, 2, 3, 4, 5]
    granularity: Granularity
    reported: date
    doctors: tuple[_Id, ...] = Field(default=(), max_length=MOST_DOCTORS)
    group: str = Field(default="", max_length=MOST_CHARACTERS)
    treating: _Ids = ()
    attending: _Ids = ()
    special: bool = False
    infectious: bool = False
    sensitive: bool = False
    deidentified: bool = False

    def record(self, staff: Mapping[str, Staff], today: date) -> Record:
        """The same as policies see it on `today`. Whoever has left the staff is in charge of nothing.

        Raises:
            RequestError: it was reported after `today`.
        """
        return Record(
            id=f"{self.subject}/{self.item}",
            patient=self.subject,
            department=self.department,
            source=self.source,
            level=self.level,
            granularity=self.granularity,
            age_days=(today - self.reported).days,
            doctors=tuple(staff[name] for name in self.doctors if name in staff),
            group=self.group,
            treating=frozenset(self.treating),
            attending=frozenset(self.attending),
            special=self.special,
            infectious=self.infectious,
            sensitive=self.sensitive,
            deidentified=self.deidentified,
        )


class Account(_Line):
    """Who may query (A.2.1-a).

    Attributes:
        kinship: ``self`` for the patient, who is then the one in `patients`.
        verified: whether the identity was proved, by a number registered under the real name and a code.
        bound: whether the documents that tie a guardian or child to the patient were checked.
        authorised: whether the patient authorised it.
        rights: operations that the site gave (A.2.2-a).
        window_days: how many days back were approved beyond the three months of A.2.1-c; 0 for none.
    """

    id: _Id
    kinship: Literal["self", "guardian", "child"]
    patients: tuple[_Id, ...] = Field(min_length=1, max_length=MOST_MEMBERS)
    verified: bool = False
    bound: bool = False
    authorised: bool = False
    rights: tuple[_Keep, ...] = ()
    window_days: int = Field(default=0, ge=0, le=36_500)

    @model_validator(mode="after")
    def _oneself(self) -> Self:
        if self.kinship == SELF and len(self.patients) != 1:
            raise ValueError("an account of kinship self is of one patient")
        return self

    @property
    def role(self) -> str:
        """``patient``, ``guardian`` or ``child``."""
        return "patient" if self.kinship == SELF else self.kinship

    def principal(self) -> Patient | Guardian:
        """The same as policies see it."""
        rights = frozenset(Action(right) for right in self.rights)
        if self.kinship == SELF:
            return Patient(self.patients[0], self.verified, rights)
        kinship, patients = Kinship(self.kinship), frozenset(self.patients)
        return Guardian(self.id, kinship, patients, self.verified, self.bound, self.authorised, rights)


def read_records(path: Path) -> Mapping[tuple[str, str], Entry]:
    """The index by (subject, item), in the order of the file. Raises RequestError that names file and line, and no patient, if
    it cannot be read or something stands twice."""
    return _by_key(path, Entry, lambda entry: (entry.subject, entry.item))


def read_accounts(path: Path) -> Mapping[str, Account]:
    """The accounts by id. Raises RequestError as `read_records` does."""
    return _by_key(path, Account, lambda account: account.id)


def written(lines: Iterable[_Line]) -> str:
    """The text of a file of `lines`."""
    return "".join(f"{line.model_dump_json(exclude_defaults=True)}\n" for line in lines)


def _by_key(path: Path, model: type[_Model], key: Callable[[_Model], _Key]) -> Mapping[_Key, _Model]:
    found: dict[_Key, _Model] = {}
    text = _text(path)
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), start=1):
        try:
            one = model.model_validate_json(line)
        except ValidationError as fault:
            places = sorted({".".join(map(str, each["loc"])) or "line" for each in fault.errors()})
            raise RequestError(
                f"{path.name}: line {number} cannot be taken as it is ({', '.join(places)}); see {model.__name__} in "
                f"{model.__module__} for what a line holds"
            ) from None
        if key(one) in found:
            raise RequestError(f"{path.name}: line {number} stands twice; take one of the two out")
        found[key(one)] = one
    return MappingProxyType(found)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise RequestError(f"{path.name} cannot be read ({type(fault).__name__}); restore it") from None
