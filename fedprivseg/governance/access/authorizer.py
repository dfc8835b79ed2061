"""Who may do what with which part of a patient's data (T/SCGS 313008-2024 clauses 5.4.2-d, 5.5, 5.6.2, annexes A.1 and A.2).

The rules stand in `cedar/`, files of the Cedar policy language that a reader can review (Cutler et al., Cedar: A New Language
for Expressive, Fast, Safe, and Analyzable Authorization, OOPSLA 2024); `roles` has what they speak of. Here is the authorizer
that puts a request to them. What no policy permits is refused, and a policy that forbids overrides all that permit. A hospital
can add files of its own in its folder ``cedar/``; they only forbid, so with them it can grant less and never more.

The standard says that levels, titles and detail are to be matched with each other, and not how; that match is ours and stands
in the files with its clauses.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, final

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import is_companion
from fedprivseg.core.records import Decision
from fedprivseg.governance.access.cedar_terms import HOUSE, context_of, entities, seconds, uid
from fedprivseg.governance.access.roles import Request, aware

if TYPE_CHECKING:  # the engine is loaded when it is first asked something: whoever only names a rule does without
    import cedarpy

MOST_POLICIES = 500
MOST_BYTES = 1 << 18
"""Bounds on policies and on the bytes of a policy file; those on a request stand with its records (`roles`)."""

_ANNOTATIONS = ("id", "clause", "says", "notice")
LONGEST_S = 1.0
"""Seconds after which an answer is not used, unless an authorizer is told otherwise."""

_MOST_WHY = 400  # characters of a fault in policies that a decision repeats
_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_ID = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")

OWN = "hospital."
"""How the ids of a hospital's own policies begin, so that a decision says whose rule it was."""


@dataclass(frozen=True)
class Policy:
    """A policy in words. effect: ``permit`` or ``forbid``. clause: of the standard, or what a hospital names. says: the rule
    as a sentence. notice: what the user is to be shown when it decides, empty if nothing."""

    id: str
    effect: str
    clause: str
    says: str
    notice: str = ""


@dataclass(frozen=True)
class Ruling:
    """The answer. policies: those that decided, in the order of the files; none for a refusal by default or after a fault.
    notices: what the user is to be shown, whether allowed or not."""

    decision: Decision
    policies: tuple[Policy, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the request is granted."""
        return self.decision.allowed

    @property
    def clause(self) -> str:
        """The clause of the first policy that decided."""
        return self.decision.clause

    @property
    def notices(self) -> tuple[str, ...]:
        """The notices of the policies that decided (A.2.2-b)."""
        return tuple(policy.notice for policy in self.policies if policy.notice)


class Authorizer(ABC):
    """Decides on requests. Final subclasses only."""

    @abstractmethod
    def decide(self, request: Request) -> Ruling:
        """Whether `request` is granted. Raises nothing: whatever goes wrong is a refusal with rule ``access.fault``."""


def wall_clock() -> datetime:
    """The time now, UTC."""
    return datetime.now(UTC)


@final
class CedarAuthorizer(Authorizer):
    """The policies of the package, and a hospital's own after them. Safe to use from several threads; it keeps no state.

    Policies and schema are parsed once, here. Each decision builds its entities anew from the request and checks them
    against the schema. The engine cannot be interrupted within a decision; its time is bounded by the bounds on a request
    and on the policies, and an answer that took longer than `limit_s` seconds is not used.
    """

    def __init__(
        self, extra: Sequence[Path] = (), *, clock: Callable[[], datetime] = wall_clock, limit_s: float | None = None
    ) -> None:
        """extra: a hospital's policy files, each policy a ``forbid`` with @id, @clause and @says. Raises RequestError that
        names the file and the policy if one cannot be read, does not parse, permits, does not fit the schema or lacks an
        annotation."""
        import cedarpy

        folder = resources.files("fedprivseg.governance.access") / "cedar"
        packaged = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".cedar")), key=lambda e: e.name)
        self._schema = cedarpy.Schema.from_str((folder / "schema.cedarschema").read_text(encoding="utf-8"))
        texts = [(entry.name, entry.read_text(encoding="utf-8")) for entry in packaged]
        texts += [(path.name, _read(path)) for path in extra]
        for place, (name, text) in enumerate(texts):
            _check(name, text, self._schema, own=place >= len(packaged))
        merged = "\n".join(text for _, text in texts)
        self._set = cedarpy.PolicySet.from_str(merged)
        # Cedar numbers policies in the order of the text and answers with these numbers, not with our names.
        self._by_number = MappingProxyType(_policies(merged))
        self.policies = tuple(self._by_number.values())
        self.sha256 = hashlib.sha256(merged.encode()).hexdigest()
        """Of all policies: whoever keeps a ruling can say under which ones it was made."""
        names = [policy.id for policy in self.policies]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RequestError(f"two policies have one @id: {', '.join(twice)}. Rename those of the added files.")
        if len(names) > MOST_POLICIES:
            raise RequestError(f"there are {len(names)} policies; at most {MOST_POLICIES} keep decisions in time.")
        self._clock, self._limit_s = clock, LONGEST_S if limit_s is None else limit_s

    def decide(self, request: Request) -> Ruling:
        """See `Authorizer`."""
        begun = time.monotonic()
        try:
            ruling = self._decide(request)
            late = time.monotonic() - begun > self._limit_s
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as fault:  # a panic of the engine, which is Rust, is no Exception
            # The type only: a message may quote the request.
            return _fault(f"The decision failed ({type(fault).__name__}); nothing is given out.")
        if late:
            return _fault(f"The decision took longer than {self._limit_s:g} seconds; nothing is given out.")
        return ruling

    def _decide(self, request: Request) -> Ruling:
        import cedarpy

        now = seconds(aware("the clock's time", self._clock()))
        known = cedarpy.Entities.from_json_str(_JSON.encode(entities(request)), self._schema)
        asked = {
            "principal": uid(type(request.principal).__name__, request.principal.id),
            "action": uid("Action", request.action),
            "resource": uid("Record", request.record.id),
            "context": _JSON.encode(context_of(request.context, now)),
        }
        answer = cedarpy.is_authorized(asked, self._set, known, self._schema)
        # Cedar passes over a policy that fails, also one that forbids; we do not.
        if answer.diagnostics.errors:
            return _fault("A policy could not be evaluated for this request; nothing is given out.")
        deciding = set(answer.diagnostics.reasons)
        policies = tuple(policy for number, policy in self._by_number.items() if number in deciding)
        if len(policies) != len(deciding) or (answer.allowed and not policies):
            return _fault("The engine named a policy that is not known; nothing is given out.")
        if not policies:
            reason = "No policy permits this, and what no policy permits is refused."
            return Ruling(Decision(False, "access.no-permit", reason, "5.6.2-c"))
        first, reason = policies[0], " ".join(policy.says for policy in policies)
        return Ruling(Decision(answer.allowed, first.id, reason, first.clause), policies)


@final
@dataclass(frozen=True)
class Closed(Authorizer):
    """Grants nothing: what stands in place of policies that cannot be relied on. why: in a sentence."""

    why: str

    def decide(self, request: Request) -> Ruling:
        """A refusal with rule ``access.fault``."""
        return _fault(self.why)


def site_authorizer(
    home: Path, *, clock: Callable[[], datetime] = wall_clock, limit_s: float | None = None
) -> Authorizer:
    """The policies of the package, narrowed by the files ``cedar/*.cedar`` of the site whose folder is `home`. Raises nothing:
    if one of these cannot be relied on, nothing is granted (`Closed`), for what it forbids is not known."""
    try:
        return CedarAuthorizer(_house(home / HOUSE), clock=clock, limit_s=limit_s)
    except RequestError as fault:
        return Closed(f"The site's own policies do not hold, and nothing is granted: {str(fault)[:_MOST_WHY]}")


def _house(folder: Path) -> list[Path]:
    try:
        files = (path for path in folder.iterdir() if path.suffix.casefold() == ".cedar")
        return sorted(path for path in files if not is_companion(path))
    except FileNotFoundError:
        return []
    except OSError as fault:
        raise RequestError(
            f"the folder {HOUSE}/ of the site cannot be read ({type(fault).__name__}). Restore it, or take it away."
        ) from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise RequestError(
            f"the policy file {path.name} cannot be read ({type(fault).__name__}). Nothing is decided without it: "
            "restore it, or leave it out of the site's policy files."
        ) from None
    if len(raw) > MOST_BYTES:
        raise RequestError(f"the policy file {path.name} holds more than {MOST_BYTES} bytes. Split it.")
    return text


def _check(name: str, text: str, schema: cedarpy.Schema, *, own: bool) -> None:
    """Raise RequestError unless `text` holds annotated policies that fit the schema. Each file on its own, so that a file
    that ends within a policy cannot change the next. own: whether it is a hospital's, which only forbids."""
    import cedarpy

    try:
        parsed = cedarpy.policies_to_pst(text)
    except ValueError as fault:
        raise RequestError(f"the policy file {name} is not in the Cedar language: {fault}. Correct it.") from None
    if parsed.templates or not parsed.static_policies:
        raise RequestError(f"the policy file {name} holds a template, or no policy. Write policies without slots.")
    for number, policy in parsed.static_policies.items():
        given = policy.annotations
        lacking = [key for key in ("id", "clause", "says") if not given.get(key)]
        unknown = sorted(set(given) - set(_ANNOTATIONS))
        if lacking or unknown or not _ID.fullmatch(given["id"]) or given["id"].startswith("access."):
            raise RequestError(
                f"{name}: the policy {given.get('id') or number} has annotations {', '.join(sorted(given)) or 'none'}; "
                f"it needs @id, @clause and @says, not empty, may have @notice, and nothing else. An id is of lower-case "
                "letters, digits, dots and hyphens and does not begin with 'access.'."
            )
        if own != given["id"].startswith(OWN) or (own and policy.effect != "forbid"):
            raise RequestError(
                f"{name}: the policy {given['id']} is a {policy.effect}. A site's own policies can only forbid, and their ids "
                f"begin with '{OWN}'; write it as a forbid with such an id, or take it out."
            )
    result = cedarpy.validate_policies(text, schema)
    if not result.validation_passed:
        known = result.id_annotations_by_policy_id
        faults = sorted({f"{known.get(each.policy_id, each.policy_id)}: {each.error}" for each in result.errors})
        raise RequestError(
            f"{name}: policies do not fit the schema. {'; '.join(faults) or 'The validator does not say why'}. "
            "Speak only of what schema.cedarschema declares."
        )


def _policies(text: str) -> dict[str, Policy]:
    import cedarpy

    parsed = cedarpy.policies_to_pst(text).static_policies
    found = {}
    for number, node in parsed.items():
        words = node.annotations
        found[number] = Policy(words["id"], node.effect, words["clause"], words["says"], words.get("notice", ""))
    return found


def _fault(reason: str) -> Ruling:
    return Ruling(Decision(False, "access.fault", reason, "5.4.2-d"))
