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
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import final

from fedprivseg.core.errors import RequestError
from fedprivseg.core.records import Decision
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.governance.access.cedar_files import Policy, check_policies, own_files, policies_of, policy_text
from fedprivseg.governance.access.cedar_terms import context_of, entities, seconds, uid
from fedprivseg.governance.access.roles import Request, aware

MOST_POLICIES = 500
LONGEST_S = 1.0
"""Seconds after which an answer is not used, unless an authorizer is told otherwise."""

_MOST_WHY = 400  # characters of a fault in policies that a decision repeats
_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Ruling:
    """The answer.

    Attributes:
        policies: those that decided, in the order of the files; none for a refusal by default or after a fault.
    """

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
        """What the user is to be shown, whether allowed or not (A.2.2-b)."""
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

    Policies and schema are parsed once, here. Each decision builds its entities again from the request and checks them
    against the schema. The engine cannot be interrupted within a decision; its time is bounded by the bounds on a request
    and on the policies, and an answer that took longer than `limit_s` seconds is not used.
    """

    def __init__(
        self, extra: Sequence[Path] = (), *, clock: Callable[[], datetime] = wall_clock, limit_s: float | None = None
    ) -> None:
        """Read and check all policies.

        Args:
            extra: a hospital's policy files, each policy a ``forbid`` with @id, @clause and @says.
            clock: tells the time of decisions.
            limit_s: seconds after which an answer is not used; None for `LONGEST_S`.

        Raises:
            RequestError: a file cannot be read, does not parse, permits, does not fit the schema or lacks an annotation; it
                names the file and the policy.
        """
        import cedarpy

        folder = resources.files("fedprivseg.governance.access") / "cedar"
        packaged = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".cedar")), key=lambda e: e.name)
        self._schema = cedarpy.Schema.from_str((folder / "schema.cedarschema").read_text(encoding="utf-8"))
        texts = [(entry.name, entry.read_text(encoding="utf-8")) for entry in packaged]
        texts += [(path.name, policy_text(path)) for path in extra]
        for place, (name, text) in enumerate(texts):
            check_policies(name, text, self._schema, own=place >= len(packaged))
        merged = "\n".join(text for _, text in texts)
        self._set = cedarpy.PolicySet.from_str(merged)
        # Cedar numbers policies in the order of the text and answers with these numbers, not with our names.
        self._by_number = MappingProxyType(policies_of(merged))
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
    """Grants nothing: what stands in place of policies that cannot be relied on.

    Attributes:
        why: in a sentence.
    """

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
        return CedarAuthorizer(own_files(SiteFolder(home).cedar), clock=clock, limit_s=limit_s)
    except RequestError as fault:
        return Closed(f"The site's own policies do not hold, and nothing is granted: {str(fault)[:_MOST_WHY]}")


def _fault(reason: str) -> Ruling:
    return Ruling(Decision(False, "access.fault", reason, "5.4.2-d"))
