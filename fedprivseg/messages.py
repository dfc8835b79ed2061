"""Orders and replies as Flower records: the one wire format of every engine.

An order carries the action, its number, the run's id and the resolved scenario; a reply is one of `Released` (a signed
payload), `Refused` (the gate's decision) or `Failed` (an error's type and the id of the site's own log entry, nothing more).
"""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

from fedprivseg.errors import PayloadError
from fedprivseg.records import Order, Payload

MESSAGE_TYPE = "train.perform"
"""Flower's category and the one action under which site programs are registered; the order names the method's own."""


@dataclass(frozen=True)
class Envelope:
    """An order with what a site needs to carry it out: the run's id, the resolved scenario as JSON, the signed head of the
    server's ledger, and the card of its encryption key (`policy.transport.Card`), empty if it has none."""

    order: Order
    run_id: str
    scenario: str
    head: str
    card: str = ""


@dataclass(frozen=True)
class Released:
    """A payload that the gate let out: its bytes, the signature over them, the signed head of the site's ledger, the effort it
    took (s, MiB), the id of the key to which the bytes are encrypted, empty if they are not, and the site's name: a server that
    has still to learn it cannot read it from encrypted bytes, and the signature shows whether it is true."""

    body: bytes
    signature: bytes
    public_key: str
    head: str
    seconds: float
    peak_rss_mb: float
    encrypted_to: str = ""
    site: str = ""


@dataclass(frozen=True)
class Refused:
    """A payload that the gate kept: the rule, the reason, and the signed head of the site's ledger, empty if that cannot be
    opened."""

    site: str
    rule: str
    reason: str
    head: str


@dataclass(frozen=True)
class Failed:
    """An exception at a site: its type and the id under which the site logged it."""

    site: str
    error: str
    log_id: str


Reply = Released | Refused | Failed


def write_order(envelope: Envelope) -> RecordDict:
    """The envelope as Flower content."""
    order = envelope.order
    fields = {"action": order.action, "number": order.number, "run": envelope.run_id, "scenario": envelope.scenario}
    fields |= {"head": envelope.head, "card": envelope.card}
    content = RecordDict({"order": ConfigRecord(fields)})  # type: ignore[arg-type]
    if order.answer is not None:
        content["answer"] = ConfigRecord({"body": order.answer.encode()})
    return content


def read_order(content: RecordDict) -> Envelope:
    """The envelope in Flower content. Raises PayloadError if it is none."""
    try:
        fields = content.config_records["order"]
        answer = content.config_records["answer"]["body"] if "answer" in content.config_records else None
        payload = None if answer is None else Payload.decode(bytes(answer))  # type: ignore[arg-type]
        order = Order(str(fields["action"]), int(fields["number"]), payload)  # type: ignore[arg-type]
        return Envelope(order, *(str(fields[name]) for name in ("run", "scenario", "head", "card")))
    except (KeyError, TypeError, ValueError) as fault:
        raise PayloadError(f"the message is no order of this format ({type(fault).__name__})") from None


def write_reply(reply: Reply) -> RecordDict:
    """The reply as Flower content."""
    return RecordDict({type(reply).__name__.lower(): ConfigRecord(vars(reply))})


def read_reply(content: RecordDict) -> Reply:
    """The reply in Flower content. Raises PayloadError if it is none."""
    for kind in (Released, Refused, Failed):
        if (name := kind.__name__.lower()) in content.config_records:
            try:
                return kind(**content.config_records[name])  # type: ignore[arg-type]
            except TypeError:
                break
    raise PayloadError("the message is no reply of this format")
