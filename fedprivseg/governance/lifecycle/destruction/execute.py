"""Destruction as an irreversible act (T/SCGS 313008-2024 clauses 5.8-a, 5.8-d to 5.8-f).

`destroy` examines everything before it touches anything: an order that is refused destroys nothing. From then on the records
folder holds ``<order>.begun.json``, and at the end ``<order>.certificate.json``, both signed. If the process is killed, or
something could not be destroyed, the same order resumes it; there is a certificate only when nothing is left.

Where overwriting proves nothing (`medium`), what counts is that the data was encrypted from the first byte on and that its key
is gone. The certificate says of each file what could be told of its medium.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import final

from pydantic import ValidationError

from fedprivseg.core.errors import FedprivsegError, RequestError
from fedprivseg.core.files import overwrite, sync_folder, write_durably
from fedprivseg.core.lock import locked
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.crypto.key_store import KeyFile
from fedprivseg.crypto.sealed_files import HEADER_BYTES, SealError, SealingKey
from fedprivseg.governance.lifecycle.destruction.certificate import (
    Begun,
    Certificate,
    DestructionError,
    Item,
    certified,
    read_begun,
)
from fedprivseg.governance.lifecycle.destruction.medium import PROVES_NOTHING, medium_of
from fedprivseg.governance.lifecycle.destruction.order import Copy, Method, Order, refuse, requirement

_PIECE = 1 << 20
_KEY = "key 1 of 1"


@final
@dataclass(frozen=True)
class Means:
    """What a site destroys with.

    Attributes:
        site: its name.
        key: signs the certificate.
        records: the folder of records, which exists.
        approvers: who may approve.
        key_file: the key under which copies are encrypted, for cryptographic erase.
        delete_shards: asks the server to delete what has these SHA-256, and returns those that it no longer has, which
            includes what it deleted for an earlier attempt.
        search: looks for files that still hold what has one of these SHA-256, and says so in sentences.
    """

    site: str
    key: SiteKey
    records: Path
    approvers: frozenset[str]
    key_file: KeyFile | None
    delete_shards: Callable[[tuple[str, ...]], Collection[str]]
    search: Callable[[Collection[str]], Sequence[str]]


def destroy(order: Order, means: Means, now: datetime) -> Certificate:
    """Execute an order. One that was executed before returns the certificate of that time.

    Args:
        order: approved.
        means: what the site destroys with.
        now: with a time zone.

    Returns:
        The signed certificate, which stands in the records folder too.

    Raises:
        RequestError: it names the rule and clause if the order is refused; or a file or key is not as the order says. Nothing
            was destroyed.
        DestructionError: it says what is left. The key goes first, so that what was encrypted is unreadable whatever else is
            left; the same order again resumes it.
    """
    if now.tzinfo is None:
        raise RequestError("the time of a destruction has a time zone, such as +00:00. Nothing was destroyed.")
    try:
        order = Order.model_validate(order.model_dump())  # a copy that was made with changes was not checked
    except ValidationError as fault:
        raise RequestError(f"the order is none ({fault.error_count()} faults). Nothing was destroyed.") from None
    refuse(order, means.approvers, now.date())
    record = means.records / f"{order.id}.begun.json"
    try:
        if (done := certified(order, means.records, means.key)) is not None:
            return done
        if not record.exists():
            write_durably(record, [_examine(order, means, now).to_json(means.key)])
        with locked(record, wait=False):
            done = certified(order, means.records, means.key)
            return done or _execute(order, means, now, read_begun(record, order, means.key))
    except BlockingIOError:
        raise RequestError("another process is executing this order. Wait for it.") from None
    except OSError as fault:
        raise RequestError(
            f"the records folder cannot be used ({fault.strerror or type(fault).__name__}), and nothing was destroyed. "
            "Check its owner and the space left."
        ) from None


def _execute(order: Order, means: Means, now: datetime, begun: Begun) -> Certificate:
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
            f"the destruction is not complete, and nothing is certified. Left: {said}. Remove the cause, then execute the same "
            "order again.",
            left,
        )
    certificate = _certificate(order, means, begun, checks, now)
    try:
        write_durably(means.records / f"{order.id}.certificate.json", [certificate.to_json().encode("ascii")])
    except OSError as fault:
        raise DestructionError(
            f"everything is destroyed, but the certificate could not be written ({fault.strerror or type(fault).__name__}). "
            "Execute the same order again."
        ) from None
    return certificate


def _examine(order: Order, means: Means, now: datetime) -> Begun:
    """Look at everything that the order names. Raises RequestError if anything is not as the order says."""
    items: list[Item] = []
    key: SealingKey | None = None
    if order.keys:
        file = means.key_file
        if file is None or order.keys != file.names:
            raise RequestError("the key of the order is not in the site's key file. Nothing was destroyed.")
        key = file.key(file.name)
        how = "1 key file overwritten once with random bytes and removed"
        items.append(Item(what="key", number=1, id=key.id, how=how, medium=medium_of(file.path)))
    inodes: list[int] = []
    headers: list[str] = []
    for number, copy in enumerate(order.copies, start=1):
        label = f"file {number} of {len(order.copies)}"
        try:
            inodes.append(_is_whole(copy, order, label))
            headers.append(_header(copy, key, label) if _by_key(copy, order) else "")
            items.append(_file_item(copy, order, number))
        except OSError as fault:
            raise RequestError(f"{label} could not be examined ({fault.strerror}). Nothing was destroyed.") from None
    items += [
        Item(what="shard", number=number, id=shard, how="deleted by the server, by its own word")
        for number, shard in enumerate(order.shards, start=1)
    ]
    return Begun(order=order.digest, began=now, items=tuple(items), inodes=tuple(inodes), headers=tuple(headers))


def _by_key(copy: Copy, order: Order) -> bool:
    """Whether the destruction of the key is what destroys this copy."""
    return order.method == Method.ERASE and copy.form == "ordered"


def _is_whole(copy: Copy, order: Order, label: str) -> int:
    """The inode of a copy. Raises RequestError unless it is a file that can be reached by the order's names alone."""
    state = copy.path.lstat()
    if not stat.S_ISREG(state.st_mode):
        raise RequestError(f"{label} is a link, a folder or a device, and no file. Nothing was destroyed.")
    named = sum(os.path.samestat(state, other.path.lstat()) for other in order.copies if os.path.lexists(other.path))
    if state.st_nlink > named:
        raise RequestError(
            f"{label} has {state.st_nlink} names on the disk, and the order lists {named}: it could be read under another. "
            "List all of them. Nothing was destroyed."
        )
    return state.st_ino


def _header(copy: Copy, key: SealingKey | None, label: str) -> str:
    """The header of an encrypted copy, in hex. Raises RequestError if cryptographic erase would do nothing to this copy."""
    with copy.path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if key is None or not key.opens(copy.name, header):
        raise RequestError(
            f"{label} is not encrypted under the key of the order, by the name that the order gives: the destruction of the "
            "key would do nothing to it. Correct the order, or order it to be overwritten. Nothing was destroyed."
        )
    return header.hex()


def _file_item(copy: Copy, order: Order, number: int) -> Item:
    size, digest = 0, hashlib.sha256()
    with copy.path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    over = "" if order.method == Method.DELETION else "overwritten once with random bytes and "
    return Item(
        what="file",
        number=number,
        id=digest.hexdigest(),
        size=size,
        how=f"{over}removed from its folder",
        medium=medium_of(copy.path),
    )


def _act(order: Order, means: Means, begun: Begun) -> dict[str, str]:
    """Destroy, the key first. What fails does not stop the rest. Returns what failed, by its number, and why."""
    failed: dict[str, str] = {}
    file = means.key_file
    try:
        if file is not None and file.names:
            file.destroy(file.name)
    except SealError as fault:
        failed[_KEY] = _why(fault)
    for number, (copy, inode) in enumerate(zip(order.copies, begun.inodes, strict=True), start=1):
        try:
            if os.path.lexists(copy.path):
                _remove(copy.path, inode, over=order.method != Method.DELETION)
            if copy.path.parent.is_dir():
                sync_folder(copy.path.parent)  # also if an earlier attempt removed it and came no further
        except (OSError, RequestError) as fault:
            failed[f"file {number} of {len(order.copies)}"] = _why(fault)
    if order.shards:
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


def _check(order: Order, means: Means, begun: Begun) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Whether anything can still be read: what was checked, in sentences, and what is left, by its number."""
    checks, left = [], []
    copies = [(f"file {number} of {len(order.copies)}", copy) for number, copy in enumerate(order.copies, start=1)]
    if copies:
        left += [label for label, copy in copies if os.path.lexists(copy.path)]
        checks.append(f"{len(copies)} of {len(copies)} paths lead to nothing.")
    if (file := means.key_file) is not None:
        if file.names:
            remaining = file.key(file.name)
            left.append(_KEY)
            for (label, copy), header in zip(copies, begun.headers, strict=True):
                if _by_key(copy, order) and remaining.opens(copy.name, bytes.fromhex(header)):
                    left.append(f"what is encrypted as {label}")
        checks.append("The key's file is gone, looked for again.")
        checks.append(f"{sum(_by_key(copy, order) for _, copy in copies)} copies were encrypted under that key alone.")
    left += means.search({item.id for item in begun.items if item.what != "key"})
    checks.append("No file within reach of the site and of the server holds, byte for byte, what was destroyed.")
    if order.shards:
        checks.append(f"The server says that it no longer has {len(order.shards)} of {len(order.shards)} shards.")
    return tuple(checks), tuple(left)


def _limits(order: Order, means: Means, begun: Begun) -> tuple[str, ...]:
    """What the destruction does not prove, in sentences."""
    limits = []
    if means.key_file is not None:
        limits.append("Copies of the key other than the site's key file were not looked at.")
    if any(item.what == "key" and item.medium.endswith(PROVES_NOTHING) for item in begun.items):
        limits.append(
            "For the key's file overwriting proves nothing: old blocks that hold the key may be left on its medium."
        )
    files = [item for item in begun.items if item.what == "file"]
    loose = sum(
        item.medium.endswith(PROVES_NOTHING) and not _by_key(copy, order)
        for copy, item in zip(order.copies, files, strict=True)
    )
    if order.method == Method.DELETION:
        limits.append("Deletion removes names: the content stays on the medium until it is used again.")
    elif loose:
        limits.append(f"For {loose} of {len(files)} files overwriting proves nothing: old blocks may be left.")
    if order.shards:
        limits.append("What the server deleted, and that it kept no copy, is its own word.")
    limits += [f"Out of reach of this order: {copy}" for copy in order.elsewhere]
    if order.media:
        limits.append(f"The destruction of the medium is for people and was not checked: {order.media}")
    if order.derived:
        limits.append(f"{len(order.derived)} models made of the data stay, and are marked.")
    return tuple(limits)


def _certificate(order: Order, means: Means, begun: Begun, checks: tuple[str, ...], now: datetime) -> Certificate:
    stated = order.model_dump(exclude={"copies", "keys", "shards", "media"})
    unsigned = Certificate.model_validate(
        {
            **stated,
            "order": order.digest,
            "required": requirement(order.data_class, order.level).says,
            "site": means.site,
            "site_key": means.key.public_hex,
            "began": begun.began,
            "ended": now,
            "items": begun.items,
            "checks": checks,
            "limits": _limits(order, means, begun),
        }
    )
    return unsigned.model_copy(update={"signature": means.key.sign(unsigned.signed_bytes()).hex()})


def _why(fault: Exception) -> str:
    """A fault in a few words. Of an error that is not ours the type alone: its message may quote anything."""
    if isinstance(fault, FedprivsegError):
        return str(fault).rstrip(".")
    return (fault.strerror if isinstance(fault, OSError) else None) or type(fault).__name__
