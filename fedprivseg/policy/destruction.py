"""Destruction: an approved, recorded and irreversible act, and the certificate of it.

T/SCGS 313008-2024 clauses 5.8-a to 5.8-f. The standard asks for a method by class and level and names none; `REQUIREMENTS`
states ours, in the terms of NIST SP 800-88 r1: deletion, overwriting (Clear, section 2.4), cryptographic erase (Purge, section
2.6), and the destruction of the medium, which people do and the order names (hard destruction, 5.8-d, 5.8-e).

`destroy` examines everything before it touches anything: an order that is refused destroys nothing. From then on the records
folder holds ``<order>.begun.json``, and at the end ``<order>.certificate.json``, both signed. If the process is killed, or
something could not be destroyed, the same order takes it up again; there is a certificate only when nothing is left.

Overwriting proves nothing on flash memory, and nothing on file systems that write elsewhere (copy-on-write, log-structured,
journals of data, networks): old blocks stay until they are used again. What counts there is that the data was sealed from the
first byte on and that all copies of its key are gone. The certificate says of each file what could be told of its medium.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Literal, final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from fedprivseg.errors import FedprivsegError, RequestError
from fedprivseg.policy.disk import locked, overwrite, sync_folder, write_whole
from fedprivseg.policy.keyring import KeyRing
from fedprivseg.policy.keys import SiteKey, canonical, verify
from fedprivseg.policy.ledger import Fact
from fedprivseg.policy.levels import DataClass
from fedprivseg.policy.sealing import HEADER_BYTES, SealError, SealingKey

CLAUSES = ("5.8-a", "5.8-b", "5.8-c", "5.8-d", "5.8-e", "5.8-f")
IN_PLACE = frozenset({"ext2", "ext3", "ext4", "vfat"})
"""File systems that write a file's blocks where they are. Not xfs: blocks that files share are written elsewhere."""

_PIECE = 1 << 20
_TEXT = 500


class DestructionError(FedprivsegError):
    """A destruction that is not complete, or a certificate that is none. left: what remains, such as ``file 2 of 3``."""

    def __init__(self, message: str, left: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.left = left


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


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Copy(_Frozen):
    """One file. name: its logical name, if it is sealed. stays: it is not removed, but must be unreadable afterwards (a copy on
    a medium that cannot be written)."""

    path: Path
    name: str = ""
    stays: bool = False


class Order(_Frozen):
    """What is to be destroyed, and on whose word.

    id: 1 to 64 of ``a-z 0-9 -``. object: what it is, by a pseudonym. copies: every file. keys: the names of keys in the
    rings, for cryptographic erase. shards: ids of what the server holds. derived: models made of the data that stay and are
    marked. media: who destroys the medium, when, under which reference. approved_by: somebody other than requested_by.
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

    key: signs the certificate. records: the folder of records, which exists. approvers: who may approve. rings: every copy of
    the key ring. delete_shards: asks the server to delete shards, and returns the ids of those that it no longer has, which
    includes what it deleted for an earlier attempt.
    """

    site: str
    key: SiteKey
    records: Path
    approvers: frozenset[str]
    rings: tuple[KeyRing, ...] = ()
    delete_shards: Callable[[tuple[str, ...]], Collection[str]] | None = None


class Item(_Frozen):
    """One thing that was destroyed. number: its place in the order. id: of a file the SHA-256 that it had, of a key its id in
    the headers of sealed files, of a shard its id at the server. size: in bytes. medium: what could be told of a file's."""

    what: Literal["file", "key", "shard"]
    number: int
    id: str
    size: int = 0
    how: str
    medium: str = ""


class Certificate(_Frozen):
    """That an order was carried out, signed by the site. It holds no path, and no content but digests."""

    format: Literal["fedprivseg destruction 1"] = "fedprivseg destruction 1"
    id: str
    order: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the order")
    object: str
    data_class: DataClass
    level: int
    method: Method
    required: str
    clauses: tuple[str, ...]
    reason: str
    requested_by: str
    approved_by: str
    approved_on: date
    site: str
    site_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    began: AwareDatetime
    ended: AwareDatetime
    items: tuple[Item, ...]
    checks: tuple[str, ...]
    limits: tuple[str, ...]
    derived: tuple[str, ...]
    signature: str = Field(default="", pattern=r"^([0-9a-f]{128})?$")

    def signed_bytes(self) -> bytes:
        """What the signature is over: the canonical JSON of every other field."""
        return canonical(self.model_dump(mode="json", exclude={"signature"}))

    def verify(self, public_hex: str) -> bool:
        """Whether the site with this public key signed exactly this."""
        return self.site_key == public_hex and verify(public_hex, self.signed_bytes(), bytes.fromhex(self.signature))

    def to_json(self) -> str:
        """The certificate as its one JSON text."""
        return canonical(self.model_dump(mode="json")).decode("ascii")

    @classmethod
    def from_json(cls, text: str | bytes) -> Certificate:
        """The certificate in `text`. Raises DestructionError unless it is exactly what `to_json` writes; see `verify`."""
        raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
        try:
            certificate = cls.model_validate_json(raw)
        except ValidationError as fault:
            raise DestructionError(f"this is no certificate of destruction ({fault.error_count()} faults).") from None
        if certificate.to_json().encode("ascii") != raw:
            raise DestructionError(
                "this certificate was changed: it is not in the form in which certificates are written."
            )
        return certificate

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What a ledger line says of the destruction."""
        return {
            "certificate": hashlib.sha256(self.to_json().encode("ascii")).hexdigest(),
            "class": self.data_class.value,
            "clause": "5.8-f",
            "items": len(self.items),
            "level": self.level,
            "method": self.method.value,
            "order": self.order,
        }


@dataclass(frozen=True)
class Medium:
    """What can be told of where a file lies. in_place: whether overwriting reaches its blocks, as far as can be told."""

    filesystem: str
    rotating: bool | None
    in_place: bool
    reason: str


def medium_of(path: Path) -> Medium:
    """The medium of the file at `path`, after Linux's ``mountinfo`` and ``queue/rotational``. What cannot be told counts as
    not in place. What lies below, such as snapshots or the disk of a virtual machine's host, does not show. Raises OSError.
    """
    number = path.lstat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    mounts = Path("/proc/self/mountinfo")
    home = Path(f"/sys/dev/block/{device}").resolve()
    states = [place / "queue" / "rotational" for place in (home, home.parent)]  # of a disk, and of a partition's disk
    rotational = next((state.read_text(encoding="ascii").strip() for state in states if state.is_file()), "")
    return judge_medium(mounts.read_text(encoding="utf-8") if mounts.is_file() else "", device, rotational)


def judge_medium(mountinfo: str, device: str, rotational: str) -> Medium:
    """What follows from the text of ``mountinfo``, a device as ``major:minor``, and ``1`` or ``0`` for rotating or not."""
    filesystem, options = "", ""
    for line in mountinfo.splitlines():
        left, dash, right = line.partition(" - ")
        if dash and left.split()[2] == device:
            filesystem, options = right.split()[0], right.split()[-1]
    rotating = {"1": True, "0": False}.get(rotational)
    if filesystem not in IN_PLACE:
        reason = f"the file system ({filesystem or 'unknown'}) may write elsewhere than over the old blocks"
    elif "data=journal" in options.split(","):
        reason = f"{filesystem} keeps data in its journal too"
    elif rotating is not True:
        reason = "the medium is flash, or it could not be told" if rotating is None else "the medium is flash memory"
    else:
        return Medium(
            filesystem, True, True, f"{filesystem} on what says it is a rotating disk writes over the old blocks"
        )
    return Medium(filesystem, rotating, False, f"{reason}: overwriting proves nothing")


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
    if order.method in required.media and not order.media.strip():
        return f"It does not say who destroys the medium, and when. {required.says}"
    return None


def _keys(order: Order, means: Means, today: date) -> str | None:
    if order.method != Method.ERASE:
        if order.keys:
            return f"It names keys, and its method is {order.method}; keys are for cryptographic erase."
        if any(copy.stays for copy in order.copies):
            return "It lets a copy stay readable; only what is sealed under a destroyed key may stay."
        return None
    if not order.keys:
        return "It names no key, and cryptographic erase is the destruction of keys."
    return None if means.rings else "No key ring was given, so no key can be destroyed."


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


def destroy(order: Order, means: Means, now: datetime) -> Certificate:
    """Carry `order` out and return the signed certificate, which stands in the records folder too.

    now: with a time zone. An order that was carried out before returns the certificate of that time. Raises RequestError that
    names the rule and clause if the order is refused, or if a file or key is not as the order says: nothing was destroyed.
    Raises DestructionError that says what is left: keys first, so what was sealed is unreadable whatever else is left; the
    same order again takes it up.
    """
    if now.tzinfo is None:
        raise RequestError("the time of a destruction has a time zone, such as +00:00. Nothing was destroyed.")
    try:
        order = Order.model_validate(order.model_dump())  # a copy that was made with changes was not checked
    except ValidationError as fault:
        raise RequestError(f"the order is none ({fault.error_count()} faults). Nothing was destroyed.") from None
    for rule, clause, objection in RULES:
        reason = objection(order, means, now.date())
        if reason is not None:
            raise RequestError(f"the order is refused ({rule}, clause {clause}): {reason} Nothing was destroyed.")
    record = means.records / f"{order.id}.begun.json"
    try:
        if (done := _certified(order, means)) is not None:
            return done
        if not record.exists():
            write_whole(record, [_examine(order, means, now).to_json(means.key)])
        with locked(record, wait=False):
            return _certified(order, means) or _carry_out(order, means, now, _read_begun(record, order, means))
    except BlockingIOError:
        raise RequestError("another process is carrying this order out. Wait for it.") from None
    except OSError as fault:
        raise RequestError(
            f"the records folder cannot be used ({fault.strerror or type(fault).__name__}), and nothing was destroyed. "
            "Check its owner and the space left."
        ) from None


class _Begun(_Frozen):
    """What was found before anything was touched: enough to go on after a kill, and no path. headers: of sealed copies."""

    format: Literal["fedprivseg destruction begun 1"] = "fedprivseg destruction begun 1"
    order: str
    began: AwareDatetime
    items: tuple[Item, ...]
    inodes: tuple[int, ...]
    headers: tuple[str, ...]

    def to_json(self, key: SiteKey) -> bytes:
        fields = self.model_dump(mode="json")
        return canonical({**fields, "signature": key.sign(canonical(fields)).hex()})


def _certified(order: Order, means: Means) -> Certificate | None:
    """The certificate of this order, if it was carried out. Raises if what stands under its id is something else."""
    path = means.records / f"{order.id}.certificate.json"
    if not path.exists():
        return None
    certificate = Certificate.from_json(path.read_bytes())
    if not certificate.verify(means.key.public_hex):
        raise DestructionError("the certificate under this order's id was changed or is foreign. Keep it as evidence.")
    if certificate.order != order.digest:
        raise RequestError("the id of this order stands for another one that was carried out. Choose another id.")
    return certificate


def _read_begun(path: Path, order: Order, means: Means) -> _Begun:
    """What was found before this order was begun, perhaps by an earlier attempt. Raises as `_certified`."""
    try:
        fields = json.loads(path.read_bytes())
        signature = bytes.fromhex(fields.pop("signature"))
        begun = _Begun.model_validate_json(canonical(fields))
        signed = verify(means.key.public_hex, canonical(fields), signature)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        signed = False
    if not signed:
        raise DestructionError("the record that this order was begun was changed. Keep it, and make a new order.")
    if begun.order != order.digest:
        raise RequestError("the id of this order stands for another one that was begun. Choose another id.")
    return begun


def _carry_out(order: Order, means: Means, now: datetime, begun: _Begun) -> Certificate:
    """Destroy, check and certify. Raises DestructionError that says what is left."""
    failed = _act(order, means, begun)
    try:
        checks, left = _check(order, means, begun)
    except (OSError, SealError) as fault:
        checks, left = (), (f"what could not be checked ({_why(fault)})",)
    left = tuple(dict.fromkeys((*failed, *left)))
    if left:
        said = ", ".join(f"{label} ({failed[label]})" if label in failed else label for label in left)
        raise DestructionError(
            f"the destruction is not complete, and nothing is certified. Left: {said}. Remove the cause, then carry the same "
            "order out again.",
            left,
        )
    certificate = _certificate(order, means, begun, checks, now)
    try:
        write_whole(means.records / f"{order.id}.certificate.json", [certificate.to_json().encode("ascii")])
    except OSError as fault:
        raise DestructionError(
            f"everything is destroyed, but the certificate could not be written ({fault.strerror or type(fault).__name__}). "
            "Carry the same order out again."
        ) from None
    return certificate


def _examine(order: Order, means: Means, now: datetime) -> _Begun:
    """Look at everything that the order names. Raises RequestError if anything is not as the order says."""
    keys = {name: [ring.key(name) for ring in means.rings if name in ring.names] for name in order.keys}
    items: list[Item] = []
    for number, found in enumerate(keys.values(), start=1):
        if not found:
            raise RequestError(f"key {number} of {len(keys)} is in none of the key rings given. Nothing was destroyed.")
        ids = sorted({key.id for key in found})
        how = f"taken out of {len(found)} of {len(means.rings)} key rings, which were sealed anew without it"
        items.append(Item(what="key", number=number, id=" ".join(ids), how=how))
    inodes: list[int] = []
    headers: list[str] = []
    for number, copy in enumerate(order.copies, start=1):
        label = f"file {number} of {len(order.copies)}"
        try:
            inodes.append(_is_whole(copy, order, label))
            _is_sealed(copy, order, [key for found in keys.values() for key in found], label)
            items.append(_file_item(copy, order, number))
            headers.append(_header(copy.path).hex() if order.method == Method.ERASE else "")
        except OSError as fault:
            raise RequestError(f"{label} could not be examined ({fault.strerror}). Nothing was destroyed.") from None
    items += [
        Item(what="shard", number=number, id=shard, how="deleted by the server, by its own word")
        for number, shard in enumerate(order.shards, start=1)
    ]
    return _Begun(order=order.digest, began=now, items=tuple(items), inodes=tuple(inodes), headers=tuple(headers))


def _is_whole(copy: Copy, order: Order, label: str) -> int:
    """The inode of a copy. Raises RequestError unless it is a file that can be reached by the order's names alone."""
    state = copy.path.lstat()
    if not stat.S_ISREG(state.st_mode):
        raise RequestError(f"{label} is a link, a folder or a device, and no file. Nothing was destroyed.")
    named = sum(os.path.samestat(state, other.path.lstat()) for other in order.copies if os.path.lexists(other.path))
    if state.st_nlink > named and not copy.stays:
        raise RequestError(
            f"{label} has {state.st_nlink} names on the disk, and the order lists {named}: it could be read under another. "
            "List all of them. Nothing was destroyed."
        )
    return state.st_ino


def _is_sealed(copy: Copy, order: Order, keys: list[SealingKey], label: str) -> None:
    """Raise RequestError if cryptographic erase would do nothing to this copy."""
    if order.method == Method.ERASE and not any(key.opens(copy.name, _header(copy.path)) for key in keys):
        raise RequestError(
            f"{label} is not sealed under a key of the order, by the name that the order gives: the destruction of the key "
            "would do nothing to it. Correct the order, or order it to be overwritten. Nothing was destroyed."
        )


def _file_item(copy: Copy, order: Order, number: int) -> Item:
    size, digest = 0, hashlib.sha256()
    with copy.path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    if copy.stays:
        how = "stays where it is, sealed under a key that is gone"
    elif order.method == Method.DELETION:
        how = "removed from its folder"
    else:
        how = "overwritten once with random bytes and removed from its folder"
    return Item(
        what="file", number=number, id=digest.hexdigest(), size=size, how=how, medium=medium_of(copy.path).reason
    )


def _act(order: Order, means: Means, begun: _Begun) -> dict[str, str]:
    """Destroy, the keys first. What fails does not stop the rest. Returns what failed, by its number, and why."""
    failed: dict[str, str] = {}
    for (number, name), ring in product(enumerate(order.keys, start=1), means.rings):
        try:
            if name in ring.names:
                ring.destroy(name)
        except SealError as fault:
            failed[f"key {number} of {len(order.keys)}"] = _why(fault)
    for number, (copy, inode) in enumerate(zip(order.copies, begun.inodes, strict=True), start=1):
        try:
            if not copy.stays and os.path.lexists(copy.path):
                _remove(copy.path, inode, over=order.method != Method.DELETION)
            if not copy.stays and copy.path.parent.is_dir():
                sync_folder(copy.path.parent)  # also if an earlier attempt removed it and came no further
        except (OSError, RequestError) as fault:
            failed[f"file {number} of {len(order.copies)}"] = _why(fault)
    if order.shards and means.delete_shards is not None:
        why, gone = "the server still has it", frozenset[str]()
        try:
            gone = frozenset(means.delete_shards(order.shards))
        except Exception as fault:  # the caller's own code: whatever it raises, nothing counts as deleted
            why = _why(fault)
        for number, shard in enumerate(order.shards, start=1):
            if shard not in gone:
                failed[f"shard {number} of {len(order.shards)}"] = why
    return failed


def _remove(path: Path, inode: int, *, over: bool) -> None:
    """Overwrite and unlink one file. Raises OSError; RequestError if another file took its place since it was examined."""
    flags = os.O_RDWR if over else os.O_RDONLY
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if os.fstat(descriptor).st_ino != inode:
            raise RequestError("another file stands in the place of the one that was examined")
        if over:
            overwrite(descriptor)
    finally:
        os.close(descriptor)
    path.unlink()


def _check(order: Order, means: Means, begun: _Begun) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Whether anything can still be read: what was checked, in sentences, and what is left, by its number."""
    checks, left = [], []
    copies = [(f"file {number} of {len(order.copies)}", copy) for number, copy in enumerate(order.copies, start=1)]
    removed = [(label, copy) for label, copy in copies if not copy.stays]
    if removed:
        left += [label for label, copy in removed if os.path.lexists(copy.path)]
        checks.append(f"{len(removed)} of {len(removed)} paths lead to nothing.")
    if order.keys:
        present = {name for ring in means.rings for name in ring.names}
        left += [f"key {number} of {len(order.keys)}" for number, name in enumerate(order.keys, 1) if name in present]
        checks.append(
            f"{len(order.keys)} of {len(order.keys)} keys are absent from {len(means.rings)} key rings, read anew."
        )
        remaining = [ring.key(name) for ring in means.rings for name in ring.names]
        for (label, copy), header in zip(copies, begun.headers, strict=True):
            headers = (bytes.fromhex(header), _header(copy.path) if copy.stays else b"")
            if any(key.opens(copy.name, header) for key in remaining for header in headers):
                left.append(f"what is sealed as {label}")
        checks.append(f"{len(copies)} sealed copies open under none of the {len(remaining)} keys that are left.")
    if order.shards:
        checks.append(f"The server says that it no longer has {len(order.shards)} of {len(order.shards)} shards.")
    return tuple(checks), tuple(left)


def _certificate(order: Order, means: Means, begun: _Begun, checks: tuple[str, ...], now: datetime) -> Certificate:
    limits = []
    if order.keys:
        limits.append(
            f"Copies of the key ring other than the {len(means.rings)} given here were not looked at. Old blocks of the rings' "
            "files may be left on their media, sealed under the rings' own key."
        )
    loose = sum(item.what == "file" and item.medium.endswith("proves nothing") for item in begun.items)
    if loose and order.method == Method.OVERWRITING:
        limits.append(f"For {loose} of {len(order.copies)} files overwriting proves nothing: old blocks may be left.")
    if order.method == Method.DELETION and order.copies:
        limits.append("Deletion removes names: the content stays on the medium until it is used again.")
    if order.shards:
        limits.append("What the server deleted, and that it kept no copy, is its own word.")
    if order.media:
        limits.append(f"The destruction of the medium is for people and was not checked: {order.media}")
    if order.derived:
        limits.append(f"{len(order.derived)} models made of the data stay, and are marked.")
    unsigned = Certificate.model_validate(
        {
            "id": order.id,
            "order": order.digest,
            "object": order.object,
            "data_class": order.data_class,
            "level": order.level,
            "method": order.method,
            "required": requirement(order.data_class, order.level).says,
            "clauses": CLAUSES,
            "reason": order.reason,
            "requested_by": order.requested_by,
            "approved_by": order.approved_by,
            "approved_on": order.approved_on,
            "site": means.site,
            "site_key": means.key.public_hex,
            "began": begun.began,
            "ended": now,
            "items": begun.items,
            "checks": checks,
            "limits": tuple(limits),
            "derived": order.derived,
        }
    )
    return unsigned.model_copy(update={"signature": means.key.sign(unsigned.signed_bytes()).hex()})


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEADER_BYTES)


def _person(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _why(fault: Exception) -> str:
    """A fault in a few words. Of an error that is not ours the type alone: its message may quote anything."""
    if isinstance(fault, FedprivsegError):
        return str(fault).rstrip(".")
    return (fault.strerror if isinstance(fault, OSError) else None) or type(fault).__name__
