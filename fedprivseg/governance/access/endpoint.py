"""The desk of a site: somebody asks for a record, the policies decide, and the site's ledger says so before anybody is told.

Doctors, nurses and researchers stand in the site's ``staff.toml`` (A.1), patients, guardians and children in its
``accounts.jsonl`` (A.2); what can be asked for stands in ``records.jsonl``. All of them, the site's own policies and its
approved requests are read again by every `AccessEndpoint`, and one is opened for one question, so that a right that was taken
away is gone with the next one (5.4.2-d).

Denied is what no policy permits, and also whoever is not known, what is not held, and everything while one of these files
cannot be relied on or the ledger cannot be written. Who asked and about whom stands in the ledger under pseudonyms that only
the site can make.
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
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.access.authorizer import Authorizer, CedarAuthorizer, Ruling, site_authorizer, wall_clock
from fedprivseg.governance.access.record_index import ACCOUNTS, RECORDS, Entry, read_accounts, read_records
from fedprivseg.governance.access.request_book import KEY, LEDGER, open_requests, recorded
from fedprivseg.governance.access.roles import Action, Context, Principal, Project, Request, Staff
from fedprivseg.governance.access.staff import STAFF, read_staff
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.ledger import Ledger

DECISION = "decision"
"""What a line of event ``access`` calls one of these decisions; the other lines of that event are of requests."""

UNKNOWN_PERSON, NO_RECORD = "access.unknown-person", "access.no-record"
"""Rules of the desk's own, under which somebody is refused before any policy is asked."""

STUDY = frozenset({Action.RESEARCH, Action.TRAIN, Action.RELEASE})
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Answer:
    """What came of one question. item: what was asked for. entry: None if the site holds no such thing or did not look. line:
    where the site's ledger says so; None only if it could not be written."""

    item: str
    ruling: Ruling
    entry: Entry | None
    line: int | None


@dataclass(frozen=True)
class Role:
    """In which role somebody asks (A.1.2). name: a title, or patient, guardian, child, unknown. groups: treatment groups."""

    name: str
    department: str = ""
    groups: tuple[str, ...] = ()


@final
class AccessEndpoint:
    """Where one site's records are asked for. home: the site's folder. today: the day to which records are old; the clock's
    if None. Raises RequestError if the folder holds no staff and records, so that there is nothing to ask for."""

    def __init__(self, home: Path, *, today: date | None = None, clock: Callable[[], datetime] = wall_clock) -> None:
        lacking = [name for name in (STAFF, RECORDS, ACCOUNTS) if not (home / name).exists()]
        if lacking:
            raise RequestError(
                f"the site {home.name} has no {', '.join(lacking)}, so nobody can ask there for anything. Write them, or run "
                "the scenario anew into a new folder, which gives each simulated hospital its own."
            )
        self._home, self._clock = home, clock
        self._today = today or clock().date()
        self._authorizer: Authorizer = site_authorizer(home, clock=clock)

    def staff(self, who: str, subject: str, item: str, action: Action, context: Context) -> Answer:
        """Put the question of a member of staff. `who` is an id of ``staff.toml``."""
        role, entry = Role(UNKNOWN), None
        try:
            known = read_staff(self._home / STAFF)
            if who not in known:
                ruling = _denied(UNKNOWN_PERSON, f"Nobody who works here has this id: {STAFF} does not name it.")
            else:
                person, entry = known[who], self._records.get((subject, item))
                role = Role(person.title.value, person.department, tuple(sorted(person.groups)))
                if action in STUDY:
                    person = replace(person, projects=self._projects(person))
                ruling = self._decide(person, action, entry, known, context)
        except FedprivsegError as fault:
            ruling = self._fault(fault)
        return self._told(who, role, subject, item, action, context, ruling, entry)

    def person(self, who: str, subject: str, item: str, action: Action, context: Context) -> tuple[Answer, ...]:
        """Put the question of a patient, guardian or child. `who` is an id of ``accounts.jsonl``. subject: empty for the
        patient of the account, if it is of one. item: empty for everything that the site holds under the subject's name, which
        copies made for studies are not."""
        role = Role(UNKNOWN)
        wanted: dict[str, Entry | None] = {item: None}
        rulings = {}
        try:
            accounts = read_accounts(self._home / ACCOUNTS)
            if who not in accounts:
                rulings[item] = _denied(UNKNOWN_PERSON, f"There is no such account: {ACCOUNTS} does not name it.")
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
                staff = read_staff(self._home / STAFF)
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
            return _denied(NO_RECORD, "This site holds no such part of this patient's data.")
        return self._authorizer.decide(Request(principal, action, entry.record(staff, self._today), context))

    @cached_property
    def _records(self) -> Mapping[tuple[str, str], Entry]:
        return read_records(self._home / RECORDS)

    def _projects(self, person: Staff) -> frozenset[Project]:
        """What was approved for `person` and is in force. Raises RequestError if the requests do not end where the ledger says
        that they do: an approval counts only if it is on record."""
        return open_requests(self._home).projects(person.id, self._clock(), head=recorded(self._home))

    def _fault(self, fault: FedprivsegError) -> Ruling:
        # The machine's folders are nobody's affair.
        why = str(fault).replace(f"{self._home}/", "")
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
            key = SiteKey.load(self._home / KEY)
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
            line = Ledger(self._home / LEDGER, key, self._home.name).append("access", facts)
        except FedprivsegError as fault:
            reason = f"The ledger could not be written ({type(fault).__name__}); what is not recorded is not given out."
            return Answer(item, Ruling(Decision(False, "ledger.unwritable", reason, "5.6.2-d")), entry, None)
        return Answer(item, ruling, entry, line.index)


def _denied(rule: str, reason: str) -> Ruling:
    return Ruling(Decision(False, rule, reason, "5.6.2-c"))
