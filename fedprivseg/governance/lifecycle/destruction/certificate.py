"""What a destruction leaves: the record that it was begun, and the certificate that it is done, both signed by the site.

T/SCGS 313008-2024 clauses 5.8-b, 5.8-f. Neither holds a path, and no content but digests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError

from fedprivseg.core.errors import FedprivsegError, RequestError
from fedprivseg.core.model import Frozen
from fedprivseg.crypto.identity import SiteKey, canonical, verify
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.lifecycle.destruction.order import Method, Order
from fedprivseg.governance.policy.levels import DataClass


class DestructionError(FedprivsegError):
    """A destruction that is not complete, or a certificate that is none. left: what remains, such as ``file 2 of 3``."""

    def __init__(self, message: str, left: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.left = left


class Item(Frozen):
    """One thing that was destroyed.

    Attributes:
        number: its place in the order, from 1.
        id: of a file or shard the SHA-256 that it had, of a key its id in the headers of encrypted files.
        size: in bytes.
        medium: what could be told of a file's.
    """

    what: Literal["file", "key", "shard"]
    number: int
    id: str
    size: int = 0
    how: str
    medium: str = ""


CLAUSES = ("5.8-a", "5.8-b", "5.8-c", "5.8-d", "5.8-e", "5.8-f")


class Certificate(Frozen):
    """That an order was executed, signed by the site. Its fields are those of the order, and what was done and checked."""

    format: Literal["fedprivseg destruction 1"] = "fedprivseg destruction 1"
    id: str
    order: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the order")
    object: str
    data_class: DataClass
    level: int
    method: Method
    required: str
    clauses: tuple[str, ...] = CLAUSES
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
    elsewhere: tuple[str, ...] = ()
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
        """The certificate in `text`, unchecked (see `verify`). Raises DestructionError unless `to_json` writes exactly this."""
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


class Begun(Frozen):
    """What was found before anything was touched: enough to resume after a kill, and no path.

    Attributes:
        order: its SHA-256.
        inodes: of the order's copies.
        headers: of those that are encrypted under the order's key, in hex; empty for others.
    """

    format: Literal["fedprivseg destruction begun 1"] = "fedprivseg destruction begun 1"
    order: str
    began: AwareDatetime
    items: tuple[Item, ...]
    inodes: tuple[int, ...]
    headers: tuple[str, ...]

    def to_json(self, key: SiteKey) -> bytes:
        """The record as its one JSON text, signed with the site's key."""
        fields = self.model_dump(mode="json")
        return canonical({**fields, "signature": key.sign(canonical(fields)).hex()})


def certified(order: Order, records: Path, key: SiteKey) -> Certificate | None:
    """The certificate of an order, None if it was not executed.

    Args:
        order: which.
        records: the folder of records.
        key: the site's.

    Raises:
        DestructionError: the certificate was changed, or is another site's.
        RequestError: the id of the order stands for another one.
    """
    path = records / f"{order.id}.certificate.json"
    if not path.exists():
        return None
    certificate = Certificate.from_json(path.read_bytes())
    if not certificate.verify(key.public_hex):
        raise DestructionError("the certificate under this order's id was changed or is foreign. Keep it as evidence.")
    if certificate.order != order.digest:
        raise RequestError("the id of this order stands for another one that was executed. Choose another id.")
    return certificate


def read_begun(path: Path, order: Order, key: SiteKey) -> Begun:
    """What was found before this order was begun, perhaps by an earlier attempt. Raises as `certified`."""
    try:
        fields = json.loads(path.read_bytes())
        signature = bytes.fromhex(fields.pop("signature"))
        begun = Begun.model_validate_json(canonical(fields))
        signed = verify(key.public_hex, canonical(fields), signature)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        signed = False
    if not signed:
        raise DestructionError("the record that this order was begun was changed. Keep it, and make a new order.")
    if begun.order != order.digest:
        raise RequestError("the id of this order stands for another one that was begun. Choose another id.")
    return begun
