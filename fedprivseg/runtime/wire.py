"""Orders and replies as Flower records: the one wire format of every engine.

An order carries the action, its number, the run's id and the digest of the resolved scenario; the roll call, with which every
attempt of a run begins, brings the scenario itself. A reply is one of `Released` (a signed
payload), `Refused` (the gate's decision) or `Failed` (an error's type and the id of the site's own log entry, nothing more).

A server believes nothing of a reply: `read_reply` checks type, length and range of every field, so that no site can send a
value that would stop the run of the others, or a text that would do something where it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from flwr.app import ConfigRecord, RecordDict
from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from fedprivseg.core.errors import PayloadError
from fedprivseg.core.records import Order, Payload
from fedprivseg.core.validation import Name

MESSAGE_TYPE = "train.perform"
"""Flower's category and the one action under which site programs are registered; the order names the method's own."""

MOST_BYTES = 2**31 - 1
"""Largest body of a reply. Nothing larger can come: it is the limit of a protobuf message, which carries it."""

LONGEST_S = 366 * 86_400.0
"""Most seconds that a site may say an order took: a year."""

MOST_MIB = float(2**26)
"""Most memory that a site may say it used: 64 TiB."""


MOST_HEAD = 1024
"""Most characters of the signed checkpoint of a ledger: three times what one has."""

MOST_REASON = 500
"""Characters of a gate's reason that are kept."""


def printable(text: str, most: int) -> str:
    """`text` as it may be shown anywhere: what is no printable character is escaped, and at most `most` characters stay."""
    shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def _identifier(text: str) -> str:
    if not text.isidentifier():
        raise ValueError("it is not the name of a type")
    return text


# Strict each by itself: a strict dataclass would take nothing but itself.
_Site = Annotated[Name, Field(strict=True)]
_Hex = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]
_KeyId = Annotated[str, StringConstraints(strict=True, pattern=r"^([0-9a-f]{16})?$")]
_Rule = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z][a-z0-9._-]{0,63}$")]
_Type = Annotated[str, StringConstraints(strict=True, max_length=100), AfterValidator(_identifier)]
_LogId = Annotated[str, StringConstraints(strict=True, pattern=r"^(unlogged-)?[0-9a-f]{1,32}$")]
_Reason = Annotated[str, StringConstraints(strict=True), AfterValidator(lambda text: printable(text, MOST_REASON))]
_HeadText = Annotated[str, StringConstraints(strict=True, max_length=MOST_HEAD)]
_CONFIG = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Envelope:
    """An order with what a site needs to carry it out.

    Attributes:
        order: the order.
        run_id: the run's id.
        scenario: SHA-256 of the resolved scenario's JSON.
        head: the signed checkpoint of the server's ledger.
        card: the certificate of its encryption key, empty if it has none.
        scenario_text: the scenario's JSON; empty in all orders but those of the roll call.
        announced: the server's signature (hex) over the one model that it sends every site with this order (`announcement`);
            empty in an order without.
    """

    order: Order
    run_id: str
    scenario: str
    head: str
    card: str = ""
    scenario_text: str = ""
    announced: str = ""


@dataclass(frozen=True)
class Released:
    """A payload that the gate let out.

    Attributes:
        body: its bytes.
        signature: over them.
        public_key: the site's (hex).
        head: the signed checkpoint of the site's ledger.
        seconds: the time it took.
        peak_rss_mb: the memory it took, MiB.
        encrypted_to: the id of the key to which the bytes are encrypted, empty if they are not.
        site: the site's name: a server that has still to learn it cannot read it from encrypted bytes, and the signature shows
            whether it is true.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    body: Annotated[bytes, Field(strict=True, max_length=MOST_BYTES)]
    signature: Annotated[bytes, Field(strict=True, min_length=64, max_length=64)]
    public_key: _Hex
    head: _HeadText
    seconds: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=LONGEST_S)]
    peak_rss_mb: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=MOST_MIB)]
    encrypted_to: _KeyId = ""
    site: _Site = ""


@dataclass(frozen=True)
class Refused:
    """A payload that the gate kept: the rule, the reason, and the signed checkpoint of the site's ledger, empty if that cannot
    be opened."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    site: _Site
    rule: _Rule
    reason: _Reason
    head: _HeadText


UNKNOWN = "unknown"
"""As which a site fails that could not read who it is."""


@dataclass(frozen=True)
class Failed:
    """An exception at a site: its type and the id under which the site logged it."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    site: _Site
    error: _Type
    log_id: _LogId


Reply = Released | Refused | Failed

_REPLIES: MappingProxyType[str, TypeAdapter[Any]] = MappingProxyType(
    {kind.__name__.lower(): TypeAdapter(kind) for kind in (Released, Refused, Failed)}
)


_TEXTS = ("scenario", "head", "card", "scenario_text", "announced")
"""The fields of an envelope that travel under their own names."""


def write_order(envelope: Envelope) -> RecordDict:
    """The envelope as Flower content."""
    order = envelope.order
    fields = {"action": order.action, "number": order.number, "run": envelope.run_id}
    fields |= {name: getattr(envelope, name) for name in _TEXTS}
    content = RecordDict({"order": ConfigRecord(fields)})  # type: ignore[arg-type]
    if order.answer is not None:
        content["answer"] = ConfigRecord({"body": order.answer.encode()})
    return content


def read_order(content: RecordDict) -> Envelope:
    """The envelope in Flower content. Raises PayloadError if it is none."""
    try:
        fields = content["order"]
        answer = content["answer"]["body"] if "answer" in content else None
        payload = None if answer is None else Payload.decode(bytes(answer))  # type: ignore[arg-type]
        order = Order(str(fields["action"]), int(fields["number"]), payload)  # type: ignore[arg-type]
        return Envelope(order, str(fields["run"]), *(str(fields[name]) for name in _TEXTS))
    except (KeyError, TypeError, ValueError) as fault:
        raise PayloadError(f"the message is no order of this format ({type(fault).__name__})") from None


def write_reply(reply: Reply) -> RecordDict:
    """The reply as Flower content."""
    return RecordDict({type(reply).__name__.lower(): ConfigRecord(vars(reply))})


def read_reply(content: RecordDict) -> Reply:
    """The reply in Flower content, each field of its type, length and range. Raises PayloadError if it is none, naming the
    field."""
    names = [*content]
    if len(names) != 1 or names[0] not in _REPLIES or not isinstance(content[names[0]], ConfigRecord):
        raise PayloadError(f"the message is no reply of this format: it is one record of {', '.join(_REPLIES)}")
    try:
        reply: Reply = _REPLIES[names[0]].validate_python(dict(content[names[0]]))
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        field = printable(".".join(map(str, first["loc"])), 40)
        raise PayloadError(
            f"the message is no reply of this format: field {field!r} of {names[0]!r}: {first['msg']}"
        ) from None
    return reply
