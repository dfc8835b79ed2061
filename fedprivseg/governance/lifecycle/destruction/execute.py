"""Destruction: an approved, recorded and irreversible act (T/SCGS 313008-2024 clauses 5.8-a, 5.8-d to 5.8-f).

`destroy` examines everything before it touches anything: an order that is refused destroys nothing. From then on the records
folder holds ``<order>.begun.json``, and at the end ``<order>.certificate.json``, both signed. If the process is killed, or
something could not be destroyed, the same order takes it up again; there is a certificate only when nothing is left.

Where overwriting proves nothing (`medium`), what counts is that the data was sealed from the first byte on and that all copies
of its key are gone. The certificate says of each file what could be told of its medium.
"""

from __future__ import annotations

import hashlib
import os
import stat
from datetime import datetime
from itertools import product
from pathlib import Path

from pydantic import ValidationError

from fedprivseg.core.errors import FedprivsegError, RequestError
from fedprivseg.core.files import overwrite, sync_folder, write_durably
from fedprivseg.core.lock import locked
from fedprivseg.crypto.sealed_files import HEADER_BYTES, SealError, SealingKey
from fedprivseg.governance.lifecycle.destruction.certificates import (
    Begun,
    Certificate,
    DestructionError,
    Item,
    certified,
    read_begun,
)
from fedprivseg.governance.lifecycle.destruction.medium import medium_of
from fedprivseg.governance.lifecycle.destruction.order import CLAUSES, Copy, Means, Method, Order, refuse, requirement

_PIECE = 1 << 20


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
    refuse(order, means, now.date())
    record = means.records / f"{order.id}.begun.json"
    try:
        if (done := certified(order, means)) is not None:
            return done
        if not record.exists():
            write_durably(record, [_examine(order, means, now).to_json(means.key)])
        with locked(record, wait=False):
            return certified(order, means) or _carry_out(order, means, now, read_begun(record, order, means))
    except BlockingIOError:
        raise RequestError("another process is carrying this order out. Wait for it.") from None
    except OSError as fault:
        raise RequestError(
            f"the records folder cannot be used ({fault.strerror or type(fault).__name__}), and nothing was destroyed. "
            "Check its owner and the space left."
        ) from None


def _carry_out(order: Order, means: Means, now: datetime, begun: Begun) -> Certificate:
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
        write_durably(means.records / f"{order.id}.certificate.json", [certificate.to_json().encode("ascii")])
    except OSError as fault:
        raise DestructionError(
            f"everything is destroyed, but the certificate could not be written ({fault.strerror or type(fault).__name__}). "
            "Carry the same order out again."
        ) from None
    return certificate


def _examine(order: Order, means: Means, now: datetime) -> Begun:
    """Look at everything that the order names. Raises RequestError if anything is not as the order says."""
    keys = {name: [file.key(name) for file in means.key_files if name in file.names] for name in order.keys}
    items: list[Item] = []
    for number, found in enumerate(keys.values(), start=1):
        if not found:
            raise RequestError(f"key {number} of {len(keys)} is in none of the key files given. Nothing was destroyed.")
        ids = " ".join(sorted({key.id for key in found}))
        items.append(_key_item(order.keys[number - 1], number, ids, means))
    inodes: list[int] = []
    headers: list[str] = []
    for number, copy in enumerate(order.copies, start=1):
        label = f"file {number} of {len(order.copies)}"
        try:
            inodes.append(_is_whole(copy, order, label))
            _is_sealed(copy, order, [key for found in keys.values() for key in found], label)
            items.append(_file_item(copy, order, number))
            headers.append(_header(copy.path).hex() if _by_key(copy, order) else "")
        except OSError as fault:
            raise RequestError(f"{label} could not be examined ({fault.strerror}). Nothing was destroyed.") from None
    items += [
        Item(what="shard", number=number, id=shard, how="deleted by the server, by its own word")
        for number, shard in enumerate(order.shards, start=1)
    ]
    return Begun(order=order.digest, began=now, items=tuple(items), inodes=tuple(inodes), headers=tuple(headers))


def _key_item(name: str, number: int, ids: str, means: Means) -> Item:
    """What the certificate says of a key, and of the medium of its files, where old blocks may hold it."""
    files = [file for file in means.key_files if name in file.names]
    how = f"{len(files)} key file{'s' * (len(files) > 1)} overwritten once with random bytes and removed"
    media = " ".join(sorted({medium_of(file.path).reason for file in files}))
    return Item(what="key", number=number, id=ids, how=how, medium=media)


def _by_key(copy: Copy, order: Order) -> bool:
    """Whether the destruction of a key is what destroys this copy."""
    return order.method == Method.ERASE and copy.form == "ordered"


def _stays(item: Item, order: Order) -> bool:
    return order.copies[item.number - 1].stays


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
    if _by_key(copy, order) and not any(key.opens(copy.name, _header(copy.path)) for key in keys):
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


def _act(order: Order, means: Means, begun: Begun) -> dict[str, str]:
    """Destroy, the keys first. What fails does not stop the rest. Returns what failed, by its number, and why."""
    failed: dict[str, str] = {}
    for (number, name), file in product(enumerate(order.keys, start=1), means.key_files):
        try:
            if name in file.names:
                file.destroy(name)
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


def _check(order: Order, means: Means, begun: Begun) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Whether anything can still be read: what was checked, in sentences, and what is left, by its number."""
    checks, left = [], []
    copies = [(f"file {number} of {len(order.copies)}", copy) for number, copy in enumerate(order.copies, start=1)]
    removed = [(label, copy) for label, copy in copies if not copy.stays]
    if removed:
        left += [label for label, copy in removed if os.path.lexists(copy.path)]
        checks.append(f"{len(removed)} of {len(removed)} paths lead to nothing.")
    if order.keys:
        present = {name for file in means.key_files for name in file.names}
        left += [f"key {number} of {len(order.keys)}" for number, name in enumerate(order.keys, 1) if name in present]
        checks.append(
            f"{len(order.keys)} of {len(order.keys)} keys are absent from {len(means.key_files)} key files, read again."
        )
        remaining = [file.key(name) for file in means.key_files for name in file.names]
        for (label, copy), header in zip(copies, begun.headers, strict=True):
            headers = (bytes.fromhex(header), _header(copy.path) if copy.stays else b"")
            if _by_key(copy, order) and any(key.opens(copy.name, header) for key in remaining for header in headers):
                left.append(f"what is sealed as {label}")
        sealed = sum(_by_key(copy, order) for _, copy in copies)
        checks.append(f"{sealed} sealed copies open under none of the {len(remaining)} keys that are left.")
    if means.search is not None:
        gone = {
            item.id for item in begun.items if item.what == "shard" or (item.what == "file" and not _stays(item, order))
        }
        left += means.search(gone)
        checks.append("No file within reach of the site and of the server holds, byte for byte, what was destroyed.")
    if order.shards:
        checks.append(f"The server says that it no longer has {len(order.shards)} of {len(order.shards)} shards.")
    return tuple(checks), tuple(left)


def _certificate(order: Order, means: Means, begun: Begun, checks: tuple[str, ...], now: datetime) -> Certificate:
    limits = []
    if means.key_files:
        limits.append(f"Copies of the key other than the {len(means.key_files)} given here were not looked at.")
    if any(item.what == "key" and item.medium.endswith("proves nothing") for item in begun.items):
        limits.append(
            "For the key's file overwriting proves nothing: old blocks that hold the key may be left on its medium."
        )
    files_found = [item for item in begun.items if item.what == "file"]
    loose = sum(
        found.medium.endswith("proves nothing") and not _by_key(copy, order)
        for copy, found in zip(order.copies, files_found, strict=True)
    )
    if loose and order.method != Method.DELETION:
        limits.append(f"For {loose} of {len(order.copies)} files overwriting proves nothing: old blocks may be left.")
    if order.method == Method.DELETION and order.copies:
        limits.append("Deletion removes names: the content stays on the medium until it is used again.")
    if order.shards:
        limits.append("What the server deleted, and that it kept no copy, is its own word.")
    limits += [f"Out of reach of this order: {copy}" for copy in order.elsewhere]
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
            "elsewhere": order.elsewhere,
        }
    )
    return unsigned.model_copy(update={"signature": means.key.sign(unsigned.signed_bytes()).hex()})


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEADER_BYTES)


def _why(fault: Exception) -> str:
    """A fault in a few words. Of an error that is not ours the type alone: its message may quote anything."""
    if isinstance(fault, FedprivsegError):
        return str(fault).rstrip(".")
    return (fault.strerror if isinstance(fault, OSError) else None) or type(fault).__name__
