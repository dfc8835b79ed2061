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
from fedprivseg.crypto.identity import canonical
from fedprivseg.governance.policy.levels import DataClass

_TEXT = 500


class Method(StrEnum):
    """How data is destroyed by software, the weakest first."""

    DELETION = "deletion"
    OVERWRITING = "overwriting"
    ERASE = "cryptographic erase"


@final
@dataclass(frozen=True)
class Requirement:
    """What a class and level asks for.

    Attributes:
        methods: those that are strong enough.
        media: those of them with which the destruction of the medium must be arranged too.
        says: the same in a sentence.
    """

    methods: tuple[Method, ...]
    media: tuple[Method, ...]
    says: str


_STRONG = (Method.OVERWRITING, Method.ERASE)

REQUIREMENTS: tuple[tuple[tuple[int, ...], Requirement], ...] = (
    ((1,), Requirement(tuple(Method), (), "Level 1 is public: deletion is enough.")),
    ((2,), Requirement(_STRONG, (), "Level 2 identifies nobody: overwriting or cryptographic erase.")),
    (
        (3, 4),
        Requirement(
            _STRONG,
            (Method.OVERWRITING,),
            "Levels 3 and 4 can identify: cryptographic erase; what was never encrypted is overwritten and its medium "
            "destroyed.",
        ),
    ),
    (
        (5,),
        Requirement(
            _STRONG,
            _STRONG,
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


@final
class Copy(Frozen):
    """One file.

    Attributes:
        path: where it is.
        name: the name under which it is encrypted, empty if it is not.
        stays: always false; the digests of orders are over it.
        form: ``ordered``, what the order's method supposes; ``plain``, never encrypted: overwritten, and its medium counts,
            whatever the order's method; ``list``, who took part and no image: overwritten, and no matter for the medium.
    """

    path: Path
    name: str = ""
    stays: Literal[False] = False
    form: Literal["ordered", "plain", "list"] = "ordered"


@final
class Order(Frozen):
    """What is to be destroyed, and on whose word.

    Attributes:
        id: 1 to 64 of ``a-z 0-9 -``.
        object: what it is, by a pseudonym.
        data_class: the strictest of what is to go.
        level: the highest of what is to go.
        method: of destruction.
        copies: every file.
        keys: the names of keys that are destroyed, for cryptographic erase.
        shards: SHA-256 of what the server holds.
        derived: models made of the data that stay and are marked.
        elsewhere: copies out of reach of the order, and who has to see to them.
        media: who destroys the medium, when, under which reference.
        reason: in a sentence.
        requested_by: who orders it.
        approved_by: somebody else.
        approved_on: the day.
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

    def approve(self, by: str, on: date | None) -> Order:
        """The same order, approved. Whether `by` may approve it is decided when it is executed."""
        return self.model_copy(update={"approved_by": by, "approved_on": on})

    @property
    def unapproved(self) -> Order:
        """The same order as it was before anybody approved it."""
        return self.approve("", None)


Approvers = Collection[str]


def _unapproved(order: Order, approvers: Approvers, today: date) -> str | None:
    if not order.approved_by.strip() or order.approved_on is None:
        return "Nobody has approved it."
    if order.approved_on > today:
        return f"It is approved for {order.approved_on}, and it is {today}."
    return None


def _same_person(order: Order, approvers: Approvers, today: date) -> str | None:
    if _person(order.approved_by) == _person(order.requested_by):
        return "Who requested it has approved it; somebody else must."
    if order.approved_by not in set(approvers):  # a set: a text given for it would agree to every part of itself
        return f"Who approved it may not; at this site {len(approvers)} people or offices may."
    return None


def _nothing(order: Order, approvers: Approvers, today: date) -> str | None:
    if not order.copies and not order.keys and not order.shards:
        return "It names no file, no key and no shard."
    twice = [len(set(names)) < len(names) for names in ([copy.path for copy in order.copies], order.keys, order.shards)]
    return "It names a file, a key or a shard twice." if any(twice) else None


def _method(order: Order, approvers: Approvers, today: date) -> str | None:
    required = requirement(order.data_class, order.level)
    if order.method not in required.methods:
        return f"Its method is {order.method}. {required.says}"
    used = {order.method} | {Method.OVERWRITING for copy in order.copies if copy.form == "plain"}
    if used & set(required.media) and not order.media.strip():
        return f"It does not say who destroys the medium, and when (--media). {required.says}"
    return None


def _keys(order: Order, approvers: Approvers, today: date) -> str | None:
    if order.keys and order.method != Method.ERASE:
        return f"It names keys, and its method is {order.method}; keys are for cryptographic erase."
    if order.method == Method.ERASE and not order.keys:
        return "It names no key, and cryptographic erase is the destruction of keys."
    return None


RULES: tuple[tuple[str, str, Callable[[Order, Approvers, date], str | None]], ...] = (
    ("order.unapproved", "5.8-b", _unapproved),
    ("order.approver", "5.8-b", _same_person),
    ("order.nothing", "5.8-b", _nothing),
    ("order.method", "5.8-c", _method),
    ("order.keys", "5.8-f", _keys),
)
"""Each rule's id, its clause, and its objection: a sentence if the order must not be executed, else None."""


def refuse(order: Order, approvers: Approvers, today: date, *, approval: bool = True) -> None:
    """Raise if an order breaks a rule.

    Args:
        order: given, and perhaps approved.
        approvers: who may approve.
        today: the day.
        approval: whether it has to be approved by now.

    Raises:
        RequestError: it names the rule and clause that the order breaks first.
    """
    for rule, clause, objection in RULES if approval else RULES[2:]:
        if (reason := objection(order, approvers, today)) is not None:
            raise RequestError(f"the order is refused ({rule}, clause {clause}): {reason} Nothing was destroyed.")


def _person(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
