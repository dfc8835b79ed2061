"""The words of a ledger, and what they were called in format 1.

Each line states its format in the field ``format``; a line without it is of format 1. So a ledger that was begun in format
1 goes on in format 2, and every signature and hash stays over the bytes that were written. `line.parse` gives the lines of
either format in today's words: nothing else in the package knows the old ones, but for questions that somebody asks in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Fact = str | int | list[Any]

CURRENT = 2
"""The format in which lines are written."""

EVENTS = (
    "access",
    "archive",
    "backup",
    "close",
    "destruction",
    "enrolment",
    "error",
    "key",
    "open",
    "receipt",
    "recovery",
    "refusal",
    "release",
    "storage",
    "withdrawal",
)
"""What a line can tell."""

OWN_EVENTS = ("key", "recovery")
"""The events that only a ledger itself writes: ``key``, its first line, and ``recovery``, an incomplete line that was moved
aside."""

SUBJECTS = "subjects"
"""The fact of a release or a refusal that lists the pseudonyms of those whose data the payload was made of."""

MODEL = "model"
"""The fact of a release or a refusal that names the weights which the server sent with the order, by their SHA-256."""

GROUPED = "grouped"
"""The fact of a line that went to the disk together with others, some time after it was written; absent from one that was there
before what it permits had left."""

SIDES = ("train", "test")
"""The facts of an enrolment that list who was enrolled: nothing that is released after it is made of anybody else's data."""

OLD_EVENTS: Mapping[str, str] = MappingProxyType({"intake": "enrolment"})
"""Event of format 1 -> event."""

OLD_FACTS: Mapping[str, str] = MappingProxyType(
    {
        "head": "checkpoint",
        "sealed": "encrypted_digest",
        "server_head": "server_checkpoint",
        "strategy": "technique_advice",
    }
)
"""Name of a fact in format 1 -> name."""

OLD_RULES: Mapping[str, str] = MappingProxyType(
    {
        "consent.lapsed": "consent.no-longer-valid",
        "consent.nobody": "consent.no-subjects",
        "consent.range": "consent.data-type",
        "consent.register": "consent.no-register",
        "consent.release": "consent.released-under-licence",
        "gate.late": "gate.timeout",
        "kind.raw": "raw-data.not-allowed",
        "kind.raw-allowed": "raw-data.allowed",
        "ledger.foreign": "ledger.mismatch",
        "level.above": "level.too-high",
        "level.understated": "level.under-classified",
        "policy.kind": "kind.not-allowed",
        "project.lapsed": "project.expired",
        "purpose.unknown": "purpose.not-allowed",
        "retention.ended": "retention.expired",
        "site.foreign": "site.mismatch",
        "strategy.unadvised": "technique.not-recommended",
        "transfer.across": "transfer.across-domains",
        "transfer.within": "transfer.within-domain",
        "transport.key": "encryption.no-valid-key",
        "undeclared.answer": "declaration.absent",
        **{
            f"undeclared.{name}": f"declaration.{name}"
            for name in ("dtype", "history", "kind", "names", "purpose", "range", "shape", "shard", "shards")
        },
    }
)
"""Rule id of format 1 -> rule id; the others are the same."""

OLD_ACTIONS: Mapping[str, str] = MappingProxyType({"glance": "validate", "glance_alone": "validate_alone"})
"""Action of format 1 -> action."""

_OLD_VERDICTS = MappingProxyType({"advised": "recommended", "unadvised": "not recommended"})


def in_todays_words(event: str, facts: Mapping[str, Fact]) -> tuple[str, dict[str, Fact]]:
    """The event and facts of a line of format 1 as format 2 has them."""
    new: dict[str, Fact] = {OLD_FACTS.get(name, name): fact for name, fact in facts.items()}
    if isinstance(rule := new.get("rule"), str):
        new["rule"] = OLD_RULES.get(rule, rule)
    if isinstance(action := new.get("action"), str):
        new["action"] = OLD_ACTIONS.get(action, action)
    if isinstance(refused := new.get("refused"), list):  # such as "consent.sharing: 2"
        new["refused"] = [_start(str(each), OLD_RULES) for each in refused]
    if isinstance(graded := new.get("technique_advice"), list):  # such as "low utility, high confidentiality: advised"
        new["technique_advice"] = [_end(str(each), _OLD_VERDICTS) for each in graded]
    return OLD_EVENTS.get(event, event), new


def _start(text: str, words: Mapping[str, str]) -> str:
    first, colon, rest = text.partition(": ")
    return f"{words.get(first, first)}{colon}{rest}"


def _end(text: str, words: Mapping[str, str]) -> str:
    rest, colon, last = text.rpartition(": ")
    return f"{rest}{colon}{words.get(last, last)}"
