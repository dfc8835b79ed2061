"""An order of destruction: what goes, by which method, on whose word, and the rules that it has to keep.

T/SCGS 313008-2024 clauses 5.8-b (object, approval), 5.8-c (a method by class and level). The standard names no methods;
`REQUIREMENTS` states ours, in the terms of NIST SP 800-88 r1: deletion, overwriting (Clear, section 2.4), cryptographic erase
(Purge, section 2.6), and the destruction of the medium, which people do and the order names (hard destruction, 5.8-d, 5.8-e).
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Literal, final

from pydantic import Field

from fedprivseg.core.errors import RequestError
from fedprivseg.core.model import Frozen
from fedprivseg.crypto.identity import SiteKey, canonical
from fedprivseg.crypto.key_store import KeyFile
from fedprivseg.governance.policy.levels import DataClass

CLAUSES = ("5.8-a", "5.8-b", "5.8-c", "5.8-d", "5.8-e", "5.8-f")
_TEXT = 500
_READABLE = "It lets a copy stay readable; only what is sealed under a destroyed key may stay."


class Method(StrEnum):
    """How data is destroyed by software, the weakest first."""

    DELETION = "deletion"
    OVERWRITING = "overwriting"
    ERASE = "cryptographic erase"


@dataclass(frozen=True)
class Requirement:
    """What a class and level asks for. methods: those that will do. media: those of them with which the destruction of the
    medium must be arranged too. says: the same in a sentence."""

    methods: tuple[Method, ...]
    media: tuple[Method, ...]
    says: str


REQUIREMENTS: tuple[tuple[tuple[int, ...], Requirement], ...] = (
    ((1,), Requirement(tuple(Method), (), "Level 1 is public: deletion is enough.")),
    (
        (2,),
        Requirement(
            (Method.OVERWRITING, Method.ERASE), (), "Level 2 identifies nobody: overwriting or cryptographic erase."
        ),
    ),
    (
        (3, 4),
        Requirement(
            (Method.OVERWRITING, Method.ERASE),
            (Method.OVERWRITING,),
            "Levels 3 and 4 can identify: cryptographic erase; what was never sealed is overwritten and its medium destroyed.",
        ),
    ),
    (
        (5,),
        Requirement(
            (Method.OVERWRITING, Method.ERASE),
            (Method.OVERWRITING, Method.ERASE),
            "Level 5 is strictly limited: cryptographic erase or overwriting, and the medium is destroyed in either case.",
        ),
    ),
)
"""What each level asks for (clause 5.8-c). A biometric image is treated as of level 4 at least: nobody can change a face."""


def requirement(data_class: DataClass, level: int) -> Requirement:
    """What the destruction of data of this class and level asks for. Raises RequestError for a level that does not exist."""
    least = max(level, 4) if data_class == DataClass.BIOMETRIC else level
    for levels, required in REQUIREMENTS:
        if least in levels:
            return required
    raise RequestError(f"the sensitivity level {level} does not exist; levels are 1, 2, 3, 4, 5.")


class Copy(Frozen):
    """One file. name: its logical name, if it is sealed. stays: it is not removed, but must be unreadable afterwards (a copy on
    a medium that cannot be written). form: ``ordered``, what the order's method supposes; ``plain``, never sealed: overwritten,
    and its medium counts, whatever the order's method; ``list``, who took part and no image: overwritten, and no matter for
    the medium."""

    path: Path
    name: str = ""
    stays: bool = False
    form: Literal["ordered", "plain", "list"] = "ordered"


class Order(Frozen):
    """What is to be destroyed, and on whose word.

    id: 1 to 64 of ``a-z 0-9 -``. object: what it is, by a pseudonym. copies: every file. keys: the names of keys that are
    held, for cryptographic erase. shards: ids of what the server holds. derived: models made of the data that stay and are
    marked. elsewhere: copies out of reach of the order, and who has to see to them. media: who destroys the medium, when,
    under which reference. approved_by: somebody other than requested_by.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    object: str = Field(min_length=1, max_length=_TEXT)
    data_class: DataClass
    level: int = Field(ge=1, le=5, strict=True)
    method: Method
    copies: tuple[Copy, ...] = ()
    keys: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    media: str = Field(default="", max_length=_TEXT)
    reason: str = Field(min_length=10, max_length=_TEXT)
    requested_by: str = Field(min_length=1, max_length=_TEXT)
    approved_by: str = Field(default="", max_length=_TEXT)
    approved_on: date | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the order in hex."""
        return hashlib.sha256(canonical(self.model_dump(mode="json"))).hexdigest()

    def approve(self, by: str, on: date) -> Order:
        """The same order, approved. Whether `by` may approve it is decided when it is carried out."""
        return self.model_copy(update={"approved_by": by, "approved_on": on})


@final
@dataclass(frozen=True)
class Means:
    """What a site destroys with.

    key: signs the certificate. records: the folder of records, which exists. approvers: who may approve. key_files: every
    copy of the keys. delete_shards: asks the server to delete shards, and returns the
    ids of those that it no longer has, which includes what it deleted for an earlier attempt. search: looks
    for files that still hold what has one of these SHA-256, and says so in sentences.
    """

    site: str
    key: SiteKey
    records: Path
    approvers: frozenset[str]
    key_files: tuple[KeyFile, ...] = ()
    delete_shards: Callable[[tuple[str, ...]], Collection[str]] | None = None
    search: Callable[[Collection[str]], tuple[str, ...]] | None = None


def _unapproved(order: Order, means: Means, today: date) -> str | None:
    if not order.approved_by.strip() or order.approved_on is None:
        return "Nobody has approved it."
    if order.approved_on > today:
        return f"It is approved for {order.approved_on}, and it is {today}."
    return None


def _same_person(order: Order, means: Means, today: date) -> str | None:
    if _person(order.approved_by) == _person(order.requested_by):
        return "Who requested it has approved it; somebody else must."
    if order.approved_by not in set(means.approvers):  # a set: a text given for it would agree to every part of itself
        return f"Who approved it may not; at this site {len(means.approvers)} people or offices may."
    return None


def _nothing(order: Order, means: Means, today: date) -> str | None:
    if not order.copies and not order.keys and not order.shards:
        return "It names no file, no key and no shard."
    twice = [len(set(names)) < len(names) for names in ([copy.path for copy in order.copies], order.keys, order.shards)]
    return "It names a file, a key or a shard twice." if any(twice) else None


def _method(order: Order, means: Means, today: date) -> str | None:
    required = requirement(order.data_class, order.level)
    if order.method not in required.methods:
        return f"Its method is {order.method}. {required.says}"
    used = {order.method} | {Method.OVERWRITING for copy in order.copies if copy.form == "plain"}
    if used & set(required.media) and not order.media.strip():
        return f"It does not say who destroys the medium, and when (--media). {required.says}"
    return None


def _keys(order: Order, means: Means, today: date) -> str | None:
    if order.method != Method.ERASE:
        if order.keys:
            return f"It names keys, and its method is {order.method}; keys are for cryptographic erase."
        if any(copy.stays for copy in order.copies):
            return _READABLE
        return None
    if any(copy.stays and copy.form != "ordered" for copy in order.copies):
        return _READABLE
    if not order.keys:
        return "It names no key, and cryptographic erase is the destruction of keys."
    return None if means.key_files else "No key file was given, so no key can be destroyed."


def _shards(order: Order, means: Means, today: date) -> str | None:
    if order.shards and means.delete_shards is None:
        return "It names shards at the server, and there is no way to have them deleted."
    return None


RULES: tuple[tuple[str, str, Callable[[Order, Means, date], str | None]], ...] = (
    ("order.unapproved", "5.8-b", _unapproved),
    ("order.approver", "5.8-b", _same_person),
    ("order.nothing", "5.8-b", _nothing),
    ("order.method", "5.8-c", _method),
    ("order.keys", "5.8-f", _keys),
    ("order.shards", "5.8-d", _shards),
)
"""Each rule's id, its clause, and its objection: a sentence if the order must not be carried out, else None."""


def refuse(order: Order, means: Means, today: date, *, approval: bool = True) -> None:
    """Raise RequestError that names the rule and clause that `order` breaks first, if it breaks one. approval: whether it has
    to be approved by now."""
    for rule, clause, objection in RULES:
        reason = None if objection in (_unapproved, _same_person) and not approval else objection(order, means, today)
        if reason is not None:
            raise RequestError(f"the order is refused ({rule}, clause {clause}): {reason} Nothing was destroyed.")


def _person(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
