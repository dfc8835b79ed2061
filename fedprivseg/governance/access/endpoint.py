"""A site's access endpoint: somebody asks for a record, policies decide, and the ledger says so before anybody is told.

Doctors, nurses and researchers stand in the site's ``staff.toml`` (A.1), patients, guardians and children in its
``accounts.jsonl`` (A.2); what can be asked for stands in ``records.jsonl``. All of them, the site's own policies and its
approved requests are read again by every `AccessEndpoint`, and one is opened for one question, so that a right that was taken
away is gone with the next one (5.4.2-d).

Denied is what no policy permits, and also whoever is not known, what the site does not have, and everything while one of these
files cannot be relied on or the ledger cannot be written. Who asked and about whom stands in the ledger under pseudonyms that
only the site can make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import final

from fedprivseg.core.errors import FedprivsegError, RequestError
from fedprivseg.core.records import Decision
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.access.authorizer import Authorizer, CedarAuthorizer, Ruling, site_authorizer, wall_clock
from fedprivseg.governance.access.record_index import Entry, read_accounts, read_records
from fedprivseg.governance.access.requests import Requests
from fedprivseg.governance.access.roles import Action, Context, Principal, Request, Staff
from fedprivseg.governance.access.staff import read_staff
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.ledger import Ledger

DECISION = "decision"
"""What a line of event ``access`` calls one of these decisions; the other lines of that event are of requests."""

UNKNOWN_PERSON, NO_RECORD = "access.unknown-person", "access.no-record"
"""Rules of the endpoint's own, under which somebody is refused before any policy is asked."""

STUDY = frozenset({Action.RESEARCH, Action.TRAIN, Action.RELEASE})
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Answer:
    """What came of one question.

    Attributes:
        item: what was asked for.
        entry: its entry in the record index; None if the site has no such thing or did not look.
        line: index of the ledger's line that says so; None only if it could not be written.
    """

    item: str
    ruling: Ruling
    entry: Entry | None
    line: int | None


@dataclass(frozen=True)
class Role:
    """In which role somebody asks (A.1.2).

    Attributes:
        name: a title, or patient, guardian, child, unknown.
        groups: treatment groups.
    """

    name: str
    department: str = ""
    groups: tuple[str, ...] = ()


@final
class AccessEndpoint:
    """Where one site's records are asked for."""

    def __init__(self, home: Path, *, today: date | None = None, clock: Callable[[], datetime] = wall_clock) -> None:
        """Open it.

        Args:
            home: the folder of the site.
            today: the day to which records are old; the clock's if None.

        Raises:
            RequestError: the folder has no staff, record index or accounts, so that there is nothing to ask for.
        """
        self._folder = folder = SiteFolder(home)
        lacking = [path.name for path in (folder.staff, folder.records, folder.accounts) if not path.exists()]
        if lacking:
            raise RequestError(
                f"the site {home.name} has no {', '.join(lacking)}, so nobody can ask there for anything. Write them, or run "
                "the scenario again into a new folder, which gives each simulated hospital its own."
            )
        self._clock = clock
        self._today = today or clock().date()
        self._authorizer: Authorizer = site_authorizer(home, clock=clock)

    def staff(self, who: str, subject: str, item: str, action: Action, context: Context) -> Answer:
        """Answer a member of staff.

        Args:
            who: an id of ``staff.toml``.
            subject: whose data.
            item: what of it.
        """
        role, entry = Role(UNKNOWN), None
        try:
            known = read_staff(self._folder.staff)
            if who not in known:
                why = f"Nobody who works here has this id: {self._folder.staff.name} does not name it."
                ruling = _denied(UNKNOWN_PERSON, why)
            else:
                person, entry = known[who], self._records.get((subject, item))
                role = Role(person.title.value, person.department, tuple(sorted(person.groups)))
                if action in STUDY:
                    approved = Requests(self._folder.path).projects(person.id, self._clock())
                    person = replace(person, projects=approved)
                ruling = self._decide(person, action, entry, known, context)
        except FedprivsegError as fault:
            ruling = self._fault(fault)
        return self._told(who, role, subject, item, action, context, ruling, entry)

    def person(self, who: str, subject: str, item: str, action: Action, context: Context) -> tuple[Answer, ...]:
        """Answer a patient, guardian or child.

        Args:
            who: an id of ``accounts.jsonl``.
            subject: whose data; empty for the patient of the account, if it is of one.
            item: what of it; empty for everything that the site has under the subject's name, which copies made for studies
                are not.
        """
        role = Role(UNKNOWN)
        wanted: dict[str, Entry | None] = {item: None}
        rulings = {}
        try:
            accounts = read_accounts(self._folder.accounts)
            if who not in accounts:
                why = f"There is no such account: {self._folder.accounts.name} does not name it."
                rulings[item] = _denied(UNKNOWN_PERSON, why)
            else:
                account = accounts[who]
                role = Role(account.role)
                subject = subject or (account.patients[0] if len(account.patients) == 1 else "")
                if not item and subject in account.patients:
                    held = (
                        each for each in self._records.values() if each.subject == subject and not each.deidentified
                    )
                    wanted = {each.item: each for each in held} or wanted
                else:
                    wanted = {item: self._records.get((subject, item))}
                context = replace(context, window_approved=account.window_days)
                staff = read_staff(self._folder.staff)
                for name, entry in wanted.items():
                    rulings[name] = self._decide(account.principal(), action, entry, staff, context)
        except FedprivsegError as fault:
            rulings = dict.fromkeys(wanted, self._fault(fault))
        return tuple(
            self._told(who, role, subject, name, action, context, ruling, wanted[name])
            for name, ruling in rulings.items()
        )

    def _decide(
        self, principal: Principal, action: Action, entry: Entry | None, staff: Mapping[str, Staff], context: Context
    ) -> Ruling:
        if entry is None:
            return _denied(NO_RECORD, "This site has no such part of this patient's data.")
        return self._authorizer.decide(Request(principal, action, entry.record(staff, self._today), context))

    @cached_property
    def _records(self) -> Mapping[tuple[str, str], Entry]:
        return read_records(self._folder.records)

    def _fault(self, fault: FedprivsegError) -> Ruling:
        # The machine's folders are nobody's affair.
        why = str(fault).replace(f"{self._folder.path}/", "")
        return Ruling(Decision(False, "access.fault", f"Nothing is given out: {why}", "5.4.2-d"))

    def _told(
        self,
        who: str,
        role: Role,
        subject: str,
        item: str,
        action: Action,
        context: Context,
        ruling: Ruling,
        entry: Entry | None,
    ) -> Answer:
        """Write the decision into the ledger, and only then say it. What is not recorded is not granted."""
        try:
            key = SiteKey.load(self._folder.key)
            facts: dict[str, Fact] = {
                "action": action.value,
                "clause": ruling.clause,
                "department": role.department,
                "decision": "permit" if ruling.allowed else "deny",
                "encrypted": context.encrypted,
                "granularity": "" if entry is None else entry.granularity.value,
                "groups": list(role.groups),
                "integrity": context.integrity,
                "item": item if entry is not None else "",  # what is not held may be any text
                "level": 0 if entry is None else entry.level,
                "notices": list(ruling.notices),
                "notified": context.notified,
                "policies": [policy.id for policy in ruling.policies],
                "policy_set": self._authorizer.sha256 if isinstance(self._authorizer, CedarAuthorizer) else "",
                "project": context.project,
                "purpose": context.purpose.value if context.purpose else "",
                "reason": ruling.decision.reason,
                "role": role.name,
                "rule": ruling.decision.rule,
                "subject": key.pseudonym(subject),
                "what": DECISION,
                "who": key.pseudonym(who),
            }
            line = Ledger(self._folder.ledger, key, self._folder.name).append("access", facts)
        except FedprivsegError as fault:
            reason = f"The ledger could not be written ({type(fault).__name__}); what is not recorded is not given out."
            return Answer(item, Ruling(Decision(False, "ledger.unwritable", reason, "5.6.2-d")), entry, None)
        return Answer(item, ruling, entry, line.index)


def _denied(rule: str, reason: str) -> Ruling:
    return Ruling(Decision(False, rule, reason, "5.6.2-c"))
