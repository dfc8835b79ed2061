"""Thousands of drawn requests for a site's records, and what its policies say to them: who would get what, by which clause.

A hospital that writes a policy, and whoever studies one, wants to see what it does before anybody is refused. Requests are
drawn from the site's own staff, accounts and records, and from circumstances in the shares of `Mixture`, which are ours and no
count of any hospital: what a trial shows is how the policies divide such requests, not how many of them a hospital gets.

A trial leaves one line in the site's ledger, with the number of decisions by policy and the SHA-256 of all of them. A line
each would cost about fourteen times as much as the decision in it, since every line is brought down to the disk before the next
(medians on a busy machine: 13.5 ms a line, 0.95 ms a decision), and nobody was given anything that had to be accounted for.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar, final

import numpy as np

from fedprivseg.core.errors import RequestError
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.crypto.identity import SiteKey, canonical
from fedprivseg.governance.access.authorizer import CedarAuthorizer, Ruling, site_authorizer
from fedprivseg.governance.access.cedar_files import Policy
from fedprivseg.governance.access.endpoint import STUDY
from fedprivseg.governance.access.record_index import Account, Entry, read_accounts, read_records
from fedprivseg.governance.access.roles import Action, Context, Granularity, Project, Purpose, Request, Staff, Title
from fedprivseg.governance.access.staff import read_staff
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.ledger.line import Line

TRIAL = "simulation"
"""What a line of event ``access`` calls a trial."""

MOST_REQUESTS = 1_000_000
KEEPS = (Action.SAVE, Action.COPY, Action.PRINT, Action.DOWNLOAD)
STUDIES = (Action.RESEARCH, Action.TRAIN, Action.RELEASE)
CLINICAL = (Title.CHIEF, Title.ATTENDING, Title.RESIDENT, Title.NURSE)
LONG_DAYS, SHORT_DAYS = 365, 92
STRICT = 5
LIMIT_S = 600.0
"""Seconds for a decision: a trial says how long they took, and ends the same on a busy machine."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Mixture:
    """The shares (0 to 1) of which requests are drawn.

    Attributes:
        persons: asked by patients, guardians and children.
        own: of these, for a patient of the account.
        in_charge: asked by staff for a patient in whose treatment they take part, if there is such a patient.
        keeps: to save, copy, print or download.
        studies: asked by doctors for research.
        deidentified: for studies, of de-identified data.
        approved: for studies, with an approved request that is in force.
        expired: for studies, with one whose term has ended.
        signed_in: by a person who proved who it is.
        encrypted: on a channel that encrypts and shows changes.
        fresh: attested just now.
        second_factor: with a second factor, for level 5.
        controlled: from a controlled place, for level 5.
        notified: after the notice.
        longer: by persons, for a year instead of three months.
        strays: for treatment or own care, of what was made for studies.
        strict: for treatment or own care, of level 5.
    """

    persons: float = 0.3
    own: float = 0.85
    in_charge: float = 0.6
    keeps: float = 0.25
    studies: float = 0.05
    deidentified: float = 0.8
    approved: float = 0.7
    expired: float = 0.15
    signed_in: float = 0.97
    encrypted: float = 0.97
    fresh: float = 0.98
    second_factor: float = 0.6
    controlled: float = 0.6
    notified: float = 0.7
    longer: float = 0.3
    strays: float = 0.1
    strict: float = 0.1


@dataclass(frozen=True)
class Cell:
    """How many requests of a role for a level were decided so under a clause. One that is refused under several clauses counts
    for each, and once for each."""

    role: str
    level: int
    allowed: bool
    clause: str
    count: int


@dataclass(frozen=True)
class Deciding:
    """How many requests a policy decided, alone or with others. says: its sentence."""

    clause: str
    policy: str
    allowed: bool
    count: int
    says: str


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        asked: (role, level) to (allowed, denied).
        cells: sorted.
        deciding: sorted.
        median_ms: wall time of a decision.
        p99_ms: wall time of a decision, 99th percentile.
        policies: how many there are.
        policy_set: their SHA-256, empty if they do not hold.
        decisions_sha256: of all decisions in their order, the same for the same files, day, seed and policies.
    """

    requests: int
    seed: int
    mixture: Mixture
    asked: Mapping[tuple[str, int], tuple[int, int]]
    cells: tuple[Cell, ...]
    deciding: tuple[Deciding, ...]
    median_ms: float
    p99_ms: float
    policies: int
    policy_set: str
    decisions_sha256: str

    @property
    def allowed(self) -> int:
        """How many were granted."""
        return sum(allowed for allowed, _ in self.asked.values())

    @property
    def facts(self) -> dict[str, Fact]:
        """What the ledger says of it."""
        return {
            "decisions_sha256": self.decisions_sha256,
            "denied": self.requests - self.allowed,
            "permitted": self.allowed,
            "policy_set": self.policy_set,
            "requests": self.requests,
            "rules": [f"{each.policy}: {each.count}" for each in self.deciding],
            "seed": self.seed,
            "what": TRIAL,
        }


def simulate(
    home: Path, requests: int, seed: int, *, now: datetime, today: date | None = None, mixture: Mixture | None = None
) -> Trial:
    """Draw requests of a site and put them to its policies.

    Args:
        home: the folder of the site.
        requests: how many.
        now: the clock of all of them.
        today: the day to which records are old; that of `now` if None.

    Raises:
        RequestError: the site has no staff, accounts or records, or they cannot be read.
    """
    if not 1 <= requests <= MOST_REQUESTS:
        raise RequestError(f"a trial draws from 1 to {MOST_REQUESTS} requests; given {requests}")
    authorizer = site_authorizer(home, clock=lambda: now, limit_s=LIMIT_S)
    crowd = _Crowd(
        home, now, today or now.date(), mixture or Mixture(), numpy_generator(seed, home.name, "access trial")
    )
    asked: dict[tuple[str, int], tuple[int, int]] = {}
    cells: Counter[tuple[str, int, bool, str]] = Counter()
    decided: Counter[tuple[str, str, bool]] = Counter()
    says: dict[str, str] = {}
    seconds, told = [], hashlib.sha256()
    for _ in range(requests):
        role, request = crowd.draw()
        begun = time.perf_counter()
        ruling = authorizer.decide(request)
        seconds.append(time.perf_counter() - begun)
        level = request.record.level
        allowed, denied = asked.get((role, level), (0, 0))
        asked[role, level] = (allowed + ruling.allowed, denied + (not ruling.allowed))
        policies = _deciding(ruling)
        cells.update((role, level, ruling.allowed, clause) for clause in {policy.clause for policy in policies})
        decided.update((policy.clause, policy.id, ruling.allowed) for policy in policies)
        says |= {policy.id: policy.says for policy in policies}
        told.update(canonical({"allowed": ruling.allowed, "policies": [policy.id for policy in policies]}))
    median, high = np.quantile(seconds, (0.5, 0.99)) * 1e3
    known = authorizer if isinstance(authorizer, CedarAuthorizer) else None
    return Trial(
        requests=requests,
        seed=seed,
        mixture=crowd.mixture,
        asked=MappingProxyType(dict(sorted(asked.items()))),
        cells=tuple(Cell(*key, count) for key, count in sorted(cells.items())),
        deciding=tuple(Deciding(*key, count, says[key[1]]) for key, count in sorted(decided.items())),
        median_ms=float(median),
        p99_ms=float(high),
        policies=len(known.policies) if known else 0,
        policy_set=known.sha256 if known else "",
        decisions_sha256=told.hexdigest(),
    )


def record(home: Path, trial: Trial) -> Line:
    """Write the trial's line into the site's ledger. Raises LedgerError if it cannot be written, RequestError without a key."""
    folder = SiteFolder(home)
    return Ledger(folder.ledger, SiteKey.load(folder.key), folder.name).append("access", trial.facts)


def _deciding(ruling: Ruling) -> Sequence[Policy]:
    decision = ruling.decision
    return ruling.policies or (Policy(decision.rule, "forbid", decision.clause, decision.reason),)


@final
class _Crowd:
    """Who could ask for what at one site, and the generator that says who does."""

    def __init__(self, home: Path, now: datetime, today: date, mixture: Mixture, draw: np.random.Generator) -> None:
        folder = SiteFolder(home)
        self._staff = read_staff(folder.staff)
        self._accounts = tuple(read_accounts(folder.accounts).values())
        self._entries = tuple(read_records(folder.records).values())
        if not self._accounts or not self._entries:
            raise RequestError(f"the site {home.name} has no records or no accounts, so there is nothing to draw from")
        self._records = {id(entry): entry.record(self._staff, today) for entry in self._entries}
        deidentified = tuple(entry for entry in self._entries if entry.deidentified)
        named = tuple(entry for entry in self._entries if not entry.deidentified and entry.level < STRICT)
        strict = tuple(entry for entry in self._entries if entry.level == STRICT)
        self._deidentified, self._named, self._strict = (
            deidentified or self._entries,
            named or self._entries,
            strict or self._entries,
        )
        self._titles = tuple(sorted({person.title for person in self._staff.values()}))
        self._now, self.mixture, self._draw = now, mixture, draw

    def draw(self) -> tuple[str, Request]:
        """One request, and the role in which it is asked."""
        if self._likely(self.mixture.persons):
            return self._person()
        title = self._one(self._titles)
        person = self._one([each for each in self._staff.values() if each.title is title])
        study = title not in CLINICAL or self._likely(self.mixture.studies)
        return title.value, self._study(person) if study else self._care(person)

    def _person(self) -> tuple[str, Request]:
        account: Account = self._one(self._accounts)
        pool = self._cared()
        own = [entry for entry in pool if entry.subject in account.patients]
        entry = self._one(own if own and self._likely(self.mixture.own) else pool)
        window = LONG_DAYS if self._likely(self.mixture.longer) else SHORT_DAYS
        context = replace(self._context(Purpose.OWN_CARE), window_asked=window, window_approved=account.window_days)
        action = self._one(KEEPS) if self._likely(self.mixture.keeps) else Action.QUERY
        return account.role, Request(account.principal(), action, self._records[id(entry)], context)

    def _care(self, person: Staff) -> Request:
        pool = self._cared()
        near = [each for each in pool if person.id in (*each.doctors, *each.treating, *each.attending)]
        entry = self._one(near if near and self._likely(self.mixture.in_charge) else pool)
        action = self._one(KEEPS) if self._likely(self.mixture.keeps) else Action.VIEW
        return Request(person, action, self._records[id(entry)], self._context(Purpose.TREATMENT))

    def _cared(self) -> Sequence[Entry]:
        if self._likely(self.mixture.strays):
            return self._deidentified
        return self._strict if self._likely(self.mixture.strict) else self._named

    def _study(self, person: Staff) -> Request:
        entry = self._one(self._deidentified if self._likely(self.mixture.deidentified) else self._entries)
        chance = float(self._draw.random())
        approved = chance < self.mixture.approved + self.mixture.expired
        term = timedelta(days=1 if chance < self.mixture.approved else -1)
        level = 2 + int(self._draw.integers(2))
        sources = frozenset({entry.source})
        project = Project("request-1", sources, level, frozenset(Granularity), STUDY, self._now + term)
        person = replace(person, projects=frozenset({project}) if approved else frozenset())
        context = replace(self._context(Purpose.RESEARCH), project=project.id)
        return Request(person, self._one(STUDIES), self._records[id(entry)], context)

    def _context(self, purpose: Purpose) -> Context:
        mixture, now = self.mixture, self._now
        encrypted = self._likely(mixture.encrypted)
        return Context(
            asked=now if self._likely(mixture.fresh) else now - timedelta(hours=1),
            authenticated=now if self._likely(mixture.signed_in) else None,
            purpose=purpose,
            encrypted=encrypted,
            integrity=encrypted,
            second_factor=self._likely(mixture.second_factor),
            controlled_place=self._likely(mixture.controlled),
            notified=self._likely(mixture.notified),
        )

    def _likely(self, share: float) -> bool:
        return bool(self._draw.random() < share)

    def _one(self, choices: Sequence[_Item]) -> _Item:
        return choices[int(self._draw.integers(len(choices)))]


def as_json(trial: Trial) -> dict[str, object]:
    """The trial for programs: everything in it, with asked as a list."""
    return {
        **vars(trial),
        "allowed": trial.allowed,
        "denied": trial.requests - trial.allowed,
        "asked": [
            {"role": role, "level": level, "allowed": allowed, "denied": denied}
            for (role, level), (allowed, denied) in trial.asked.items()
        ],
        "cells": [asdict(cell) for cell in trial.cells],
        "deciding": [asdict(each) for each in trial.deciding],
        "mixture": asdict(trial.mixture),
    }
