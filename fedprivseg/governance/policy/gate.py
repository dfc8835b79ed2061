"""The gate of a site: everything that would leave is decided here, and nothing leaves unless a rule says that it may.

A payload of a kind that the method declares is checked first against the site's policy (`context`), then by the rules in
`RULES`, one function each, in their order; the first that objects decides, and if none does the payload may leave (rule
``kind.declared``), provided that it is exactly what the method declares of the answer to this order (`declaration`). Everything
else is refused: an undeclared kind, raw data, bytes that are no payload, a fault in the gate, a ledger that cannot be
written, a site without a policy, a decision that took too long.

What must be encrypted by the policy is encrypted to the server's key after the decision and before the signature, which is over
what travels. A rule that hangs cannot be stopped from outside (a thread cannot be killed): while it hangs nothing leaves, since
only the gate hands a payload out, and a decision after the time limit is a refusal. The server waits until its deadline.

The size rules bound what could leave under the name of a metric or a status; they do not prove that a small array is
what it is called. That is for whoever reads the method, and for the attacks. A method's code is trusted with the values of what
it declares (`methods.method`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import final, get_args

import numpy as np

from fedprivseg.core.errors import PayloadError, RequestError, named
from fedprivseg.core.expected import Expected
from fedprivseg.core.kinds import KindSpec, known_kinds
from fedprivseg.core.records import Decision, Payload, digest
from fedprivseg.crypto.hpke import slot
from fedprivseg.crypto.identity import SiteKey, statement
from fedprivseg.governance.ledger.checkpoints import Checkpoint
from fedprivseg.governance.ledger.format import MODEL, SUBJECTS, Fact
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.policy.declaration import departure
from fedprivseg.governance.policy.policy_context import PolicyContext
from fedprivseg.governance.policy.profile import Level, Purpose

LEVELS: tuple[int, ...] = get_args(Level)
"""Sensitivity, 1 (public) to 5 (strictly limited): T/SCGS 313008-2024 clause 5.5."""

RAW_LEVEL = 4
"""The highest level of raw data that ``raw_sharing`` lets out: de-identified, without the subject's name or code."""

DTYPES = ("bool", "float16", "float32", "float64", "int32", "int64", "uint8")

PATIENCE_S = 30.0
"""The longest that a decision may take, in seconds. The largest payload is looked through in a few."""

_CHUNK = 1 << 20  # values looked at in one go, so that looking needs no memory of a payload's size


@dataclass(frozen=True)
class Released:
    """What may be sent.

    Attributes:
        body: the payload, or the encrypted payload.
        digest: of the payload.
        signature: the site's, over the statement about `body`.
        line: where the ledger says so.
        encrypted_to: the id of the key to which `body` is encrypted; empty if it is not.
    """

    body: bytes
    digest: str
    signature: bytes
    decision: Decision
    line: Line
    encrypted_to: str = ""


@dataclass(frozen=True)
class Refused:
    """What may not be sent. line: where the ledger says so; None only if the ledger could not be written."""

    digest: str
    decision: Decision
    line: Line | None


@final
@dataclass(frozen=True)
class Gate:
    """The policy of one site for one method.

    Attributes:
        exports: the kinds that the method declares.
        site: the site's name.
        context: the site's policy context on this day.
        patience_s: how long a decision may take; a later one is a refusal.

    Raises:
        RequestError: something in `exports` is no kind.
    """

    exports: frozenset[KindSpec]
    site: str
    context: PolicyContext
    patience_s: float = PATIENCE_S

    def __post_init__(self) -> None:
        unknown = sorted(
            repr(kind) for kind in self.exports if not isinstance(kind, KindSpec) or kind not in known_kinds()
        )
        if unknown:
            raise RequestError(f"a gate cannot export {', '.join(unknown)}; kinds are: {_list(known_kinds())}.")

    def decide(self, payload: Payload) -> Decision:
        """Whether a payload like this one may leave, by which rule, and why: all that does not depend on what was ordered.
        Raises nothing: a fault in a rule is a refusal."""
        try:
            if payload.kind not in self.exports:
                return self._undeclared(payload.kind)
            if (refusal := self.context.objection(payload.kind, payload.purpose)) is not None:
                return refusal
            for rule, clause, objection in RULES:
                reason = objection(self, payload)
                if reason is not None:
                    return Decision(False, rule.format(kind=payload.kind), reason, clause)
            if payload.kind.raw:
                return Decision(True, "raw-data.allowed", "This site's policy allows raw data to leave.", "5.6.2-b")
            reason = f"The method declares that '{payload.kind}' may leave a site."
            return Decision(True, "kind.declared", reason, "5.6.2-b")
        except Exception as fault:
            return _broken(fault)

    def release(
        self,
        body: bytes,
        ledger: Ledger,
        key: SiteKey,
        action: str,
        *,
        run_id: str,
        number: int,
        expected: Callable[[], Expected | None],
        shown: Checkpoint | None = None,
        model: str = "",
        owners: Callable[[Payload], Sequence[str]] = lambda payload: (),
    ) -> Released | Refused:
        """Decide on the encoded payload `body`, write that into the ledger, and only then hand it back.

        The signature is over ``statement(run_id, site, action, number, digest)``, with the digest of what is sent. Exactly one
        ledger line is written, before the return; if that fails, nothing is released. Any exception from here means that
        nothing was released either.

        Args:
            action, number: the order that the payload answers.
            run_id: the run.
            expected: says what the method declares of that answer; None if it declares nothing, and then nothing may leave.
            shown: the checkpoint of the server's ledger that came with the order, for the line.
            model: the SHA-256 of the weights that came with it, for the line; empty if none came.
            owners: the pseudonyms of those whose data the payload is made of, for the line; an exception there is a refusal.
        """
        begun = time.monotonic()
        body = sent = bytes(body)
        name = sealed = digest(body)
        payload: Payload | None = None
        signature, encrypted_to = b"", ""
        subjects: list[Fact] = []
        as_declared = False
        try:
            payload = Payload.decode(body)
            departs = departure(payload, expected(), number)
            as_declared = departs is None
            subjects = [*owners(payload)]
            if ledger.site != self.site or ledger.public_hex != key.public_hex:
                reason = "The ledger or the signing key is not the one of this gate's site."
                decision = Decision(False, "ledger.mismatch", reason, "5.6.2-d")
            else:
                decision = self.decide(payload)
                decision = self._in_time(departs if decision.allowed and departs else decision, begun)
            if decision.allowed:
                if self.context.encrypts(payload.level):
                    card = self.context.transfer.card
                    assert card is not None  # or the rule about it had refused
                    sent = card.seal(slot(run_id, self.site, action, number, payload.kind), body)
                    encrypted_to, sealed = card.key_id, digest(sent)
                signature = key.sign(statement(run_id, self.site, action, number, sealed))
        except PayloadError as fault:
            reason = f"What was to leave cannot be examined: {fault}."
            decision = Decision(False, "payload.malformed", reason, "5.1.2-c")
        except Exception as fault:
            decision = _broken(fault)
        facts: dict[str, Fact] = {
            "action": action,
            "bytes": len(sent),
            "clause": decision.clause,
            "decision": "permit" if decision.allowed else "deny",
            "digest": name,
            "number": number,
            "reason": decision.reason,
            "rule": decision.rule,
            "run": run_id,
            **({} if shown is None else {"server_checkpoint": shown.as_fact()}),
            **({MODEL: model} if model else {}),
            **({} if payload is None else {**_describe(payload, as_declared), **self._advice(payload.kind)}),
            **({SUBJECTS: subjects} if subjects else {}),
            **({"encrypted_to": encrypted_to, "encrypted_digest": sealed} if decision.allowed and encrypted_to else {}),
            **({"transfer": "within" if self.context.transfer.within else "across"} if decision.allowed else {}),
            **({"agreement": under} if decision.allowed and (under := self.context.under) else {}),
        }
        try:
            line = ledger.append("release" if decision.allowed else "refusal", facts)
        except Exception as fault:
            reason = f"The ledger could not be written ({named(type(fault))}); what is not recorded does not leave."
            return Refused(name, Decision(False, "ledger.unwritable", reason, "5.6.2-d"), None)
        if not decision.allowed:
            return Refused(name, decision, line)
        return Released(sent, name, signature, decision, line, encrypted_to)

    def _in_time(self, decision: Decision, begun: float) -> Decision:
        """`decision`, or a refusal if it comes later than `patience_s` after `begun` (of the clock that never goes back)."""
        if time.monotonic() - begun <= self.patience_s:
            return decision
        reason = (
            f"The gate took longer than {self.patience_s:g} s to decide; a decision after that allows nothing to leave."
        )
        return Decision(False, "gate.timeout", reason, "5.6.2-b")

    def _advice(self, kind: KindSpec) -> dict[str, Fact]:
        """The techniques under which the payload leaves and what Table 2 says of them; nothing where it is not graded."""
        judged = self.context.judged(kind)
        if not judged:
            return {}
        return {
            "techniques": [technique.value for technique in judged[0].techniques],
            "technique_advice": [
                f"{each.grading.utility} utility, {each.grading.confidentiality} confidentiality: {each.verdict}"
                for each in judged
            ],
        }

    def _undeclared(self, kind: KindSpec) -> Decision:
        if kind.raw:
            return Decision(
                False,
                "raw-data.not-allowed",
                "Raw images and masks do not leave: the method does not declare it.",
                "5.6.2-b",
            )
        reason = f"The method does not declare that '{kind}' leaves a site; it declares: {_list(self.exports)}."
        return Decision(False, "kind.undeclared", reason, "5.6.2-b")


def _other_site(gate: Gate, payload: Payload) -> str | None:
    if payload.site == gate.site:
        return None
    return f"The payload claims to come from another site; this is the gate of '{gate.site}'."


def _level(gate: Gate, payload: Payload) -> str | None:
    if type(payload.level) is not int or payload.level not in LEVELS:
        return f"The sensitivity level does not exist; levels are: {_list(LEVELS)}."
    most = RAW_LEVEL if payload.kind.raw else gate.context.highest
    if payload.level <= most:
        return None
    return f"The sensitivity level is {payload.level}; from this site at most level {most} may leave."


def _under_classified(gate: Gate, payload: Payload) -> str | None:
    assigned = gate.context.level(payload.kind)
    if payload.level >= assigned.level:
        return None
    return f"The payload claims level {payload.level} and is of level {assigned.level}: {assigned.reason}."


def _unencryptable(gate: Gate, payload: Payload) -> str | None:
    return gate.context.unencryptable(payload.level)


def _dtype(gate: Gate, payload: Payload) -> str | None:
    # Compared as dtypes, not by name: a big-endian float32 is also called 'float32'.
    allowed = [np.dtype(name) for name in DTYPES]
    for name, array in payload.arrays.items():
        if array.dtype not in allowed:
            return f"{_array(payload, name)} is of type {array.dtype.str}; allowed are: {_list(DTYPES)}."
    return None


def _non_finite(gate: Gate, payload: Payload) -> str | None:
    for name, array in payload.arrays.items():
        flat = array.reshape(-1)
        if array.dtype.kind == "f" and not all(
            np.isfinite(flat[start : start + _CHUNK]).all() for start in range(0, flat.size, _CHUNK)
        ):
            return f"{_array(payload, name)} holds values that are no finite numbers; such values may not leave."
    return None


def _too_large(gate: Gate, payload: Payload) -> str | None:
    kind = payload.kind
    for name, array in payload.arrays.items():
        if kind.max_values is not None and array.size > kind.max_values:
            return (
                f"Arrays of a payload of kind '{kind}' hold at most {kind.max_values} values, so that no images leave under "
                f"its name. {_array(payload, name)} holds {array.size}."
            )
    if kind.max_bytes is not None and _size(payload, kind.max_bytes) > kind.max_bytes:
        return f"A payload of kind '{kind}' holds at most {kind.max_bytes} bytes in all; this one holds more."
    return None


def _too_many_axes(gate: Gate, payload: Payload) -> str | None:
    kind = payload.kind
    for name, array in payload.arrays.items():
        if kind.max_axes is not None and array.ndim > kind.max_axes:
            return (
                f"Arrays of a payload of kind '{kind}' have at most {kind.max_axes} axes. {_array(payload, name)} has "
                f"{array.ndim}."
            )
    return None


RULES: tuple[tuple[str, str, Callable[[Gate, Payload], str | None]], ...] = (
    ("site.mismatch", "5.3.2-b", _other_site),
    ("level.too-high", "5.5", _level),
    ("level.under-classified", "5.5", _under_classified),
    ("encryption.no-valid-key", "5.3.2-b", _unencryptable),
    ("arrays.dtype", "5.1.2-c", _dtype),
    ("arrays.non-finite", "5.1.2-c", _non_finite),
    ("{kind}.size", "5.1.2-c", _too_large),
    ("{kind}.shape", "5.1.2-c", _too_many_axes),
)
"""Each rule's id (``{kind}`` stands for the payload's kind), the clause that it serves, and its objection: a sentence if the
payload may not leave, else None."""


def _describe(payload: Payload, as_declared: bool) -> dict[str, Fact]:
    """What the ledger says about a payload: names, types and shapes, and no value of any array. Of one that departs from what
    is declared no word or number that could be anything: a ledger is shown to others, and its rule tells what was wrong."""
    known: dict[str, Fact] = {"kind": payload.kind.value}
    known |= {"level": payload.level} if payload.level in LEVELS else {}
    known |= {"purpose": payload.purpose} if payload.purpose in get_args(Purpose) else {}
    if not as_declared:
        return known
    return {
        **known,
        "history": list(payload.history),
        "shapes": [f"{name} {array.dtype} {array.shape}" for name, array in sorted(payload.arrays.items())],
        "shard": payload.shard,
        "shards": payload.shards,
    }


def _size(payload: Payload, limit: int) -> int:
    """Bytes of the payload with its names; the arrays alone if these are above `limit`, which spares the encoding."""
    arrays = sum(array.nbytes for array in payload.arrays.values())
    return arrays if arrays > limit else len(payload.encode())


def _broken(fault: Exception) -> Decision:
    # The type only: a message may quote what the rule was looking at.
    reason = f"The gate failed while it decided ({named(type(fault))}); nothing leaves."
    return Decision(False, "gate.fault", reason, "5.6.2-b")


def _list(names: Iterable[object]) -> str:
    return ", ".join(sorted(str(name) for name in names)) or "nothing"


def _array(payload: Payload, name: str) -> str:
    """Which array it is, by its place: a reason leaves the site, and a name that a payload brought along may hold anything."""
    return f"Array {sorted(payload.arrays).index(name) + 1} of {len(payload.arrays)}, in the order of their names,"
