"""What a site's program knows for one order, opened once and handed from the gate to the action.

Looked at for every order: the site's configuration, the scenario, the keys, the policy and the record of enrolment. They are
parsed again where a byte of them changed since the site last did (`memory`), and policy and enrolment also if that happens
while the order is carried out: then the change counts for the answer. Read when the answer is decided: the data-use agreement,
the register of consent, and whether the site's data was destroyed. So whatever a hospital changes takes effect with the next
payload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TypeVar, final

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import DataError, FedprivsegError, RequestError
from fedprivseg.core.files import write_durably
from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.records import Subject, Volume
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto.hpke import KeyCertificate
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.policy.agreement import read_agreement
from fedprivseg.governance.policy.levels import IDENTIFYING, LEVELS
from fedprivseg.governance.policy.policy_context import Enrolled, PolicyContext, Safeguards, Transfer
from fedprivseg.governance.policy.profile import SitePolicy
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.history import History, disposed
from fedprivseg.governance.sitefolder.notes import INTAKE, PARTICIPANTS, Notes
from fedprivseg.governance.sitefolder.vault import Vault, policy_of, seals
from fedprivseg.imaging.dataset import Dataset
from fedprivseg.imaging.datasets import dataset_of
from fedprivseg.imaging.splits import COHORT, Cohort, cohort
from fedprivseg.methods import resolve
from fedprivseg.runtime.site.enrolment import ConsentCheck, Enrolment, enrol
from fedprivseg.runtime.site.memory import Memory
from fedprivseg.runtime.site.payload_techniques import techniques_of
from fedprivseg.runtime.wire import Envelope

T = TypeVar("T")

_UNREADABLE = (OSError, LookupError, ValueError, FedprivsegError)
"""What reading the record of enrolment raises if it is damaged, or encrypted under another key."""


@final
class SiteContext:
    """One site in one scenario, for one order. memory: what it knows from orders before."""

    def __init__(self, configuration: SiteConfiguration, scenario: Scenario, memory: Memory | None = None) -> None:
        self.configuration, self.scenario = configuration, scenario
        self.name = configuration.site.name
        self.folder = SiteFolder(configuration.folder)
        self.today = configuration.today or date.today()
        self.method = resolve(scenario.method)
        self._memory = Memory() if memory is None else memory  # an empty record is false
        self.notes = Notes(self.folder.path, sealed=seals(self.policy))

    @classmethod
    def open(cls, configuration: SiteConfiguration, envelope: Envelope, memory: Memory) -> SiteContext:
        """The context of the order in `envelope`. Raises RequestError if it is an order under another scenario than the one in
        which the site takes part."""
        return cls(configuration, _scenario_of(configuration, envelope, memory), memory)

    @cached_property
    def key(self) -> SiteKey:
        """The site's private key; made if there is none yet."""
        return self._memory.recall(lambda: SiteKey.at(self.folder.key), self.folder.key)

    @cached_property
    def vault(self) -> Vault:
        """The site's own disk. Raises RequestError if it is to be encrypted and there is no key."""
        return Vault(self.folder.vault, self.notes.key)

    @property
    def cache(self) -> Path | None:
        """Where images on the network grid are kept between runs. They are plain: a site that encrypts keeps none."""
        return None if self.notes.sealed else self.configuration.cache

    @cached_property
    def policy(self) -> SitePolicy | None:
        """The site's policy; None if there is none that can be read, and then nothing leaves."""
        return self._memory.recall(lambda: policy_of(self.folder.path), self.folder.policy)

    @cached_property
    def enrolment(self) -> Enrolment:
        """Who is enrolled. Raises OSError, ValueError or FedprivsegError if the record cannot be read."""
        return self._recall(INTAKE, lambda: Enrolment.read(self.notes))

    @property
    def closed(self) -> bool:
        """Whether nothing may leave whatever it is (`PolicyContext.closed`), so that nothing is to be computed."""
        return PolicyContext(self.policy, self.today, enrolled=self._enrolled(destroyed=self._destroyed())).closed

    def ledger(self) -> Ledger:
        """The site's ledger, open for its next line. Raises LedgerError if it cannot be opened."""
        opened = self._memory.ledger
        same = opened is not None and (opened.site, opened.public_hex) == (self.name, self.key.public_hex)
        if opened is None or not same or not opened.is_current:
            opened = Ledger(self.folder.ledger, self.key, self.name)
            self._memory.ledger = None if History(self.folder.path).destroyed else opened
        return opened

    def begin_line(self, ledger: Ledger, stage: str, policy: SitePolicy | None) -> None:
        """Settle when the next line of `ledger` comes to the disk: at once, or with the others of its stage where the policy
        lets it. What is there of an earlier stage is brought there now.

        Args:
            ledger: the site's.
            stage: the action that the line answers.
            policy: the site's, as it is now.

        Raises:
            LedgerError: it cannot be brought to the disk.
        """
        grouped = policy is not None and policy.ledger == "stage"
        if not grouped or self._memory.stage != stage:
            ledger.commit()
        ledger.grouped, self._memory.stage = grouped, stage

    @cached_property
    def dataset(self) -> Dataset:
        """How the site's images lie."""
        return dataset_of(self.configuration.data, self.configuration.release)

    def volumes(self, subject: Subject) -> dict[str, Volume]:
        """The labelled frames of a subject by time point. Raises DataError if the files have a fault."""
        return self.dataset.load(subject, self.scenario.task)

    @cached_property
    def cohort(self) -> Cohort:
        """The site's subjects who take part. They are enrolled, from those in its release, by the first order that asks."""
        if not self.notes.has(PARTICIPANTS):
            configuration = self.configuration
            own, task = self.dataset.task(configuration.release), self.scenario.task
            if (own.names, own.times) != (task.names, task.times):
                raise DataError("the scenario's task names other structures or time points than this site's data have")
            subjects = self.dataset.read(configuration.release).subjects
            found = cohort(subjects, configuration.site, configuration.data)
            self.notes.write(PARTICIPANTS, COHORT.dump_python(self.admit(found), mode="json"))
        return self._recall(PARTICIPANTS, lambda: COHORT.validate_json(self.notes.read(PARTICIPANTS)))

    def admit(self, found: Cohort) -> Cohort:
        """Those of `found` who may take part, which the site notes. Without a policy, or without a register that can be read
        where one is asked, nobody."""
        begins = self.configuration.intake or self.today
        enrolled, enrolment = enrol(found, self._check(self.policy), self.configuration, self.scenario, begins)
        enrolment.write(self.notes)
        self._look_again()
        return enrolled

    def record_enrolment(self, ledger: Ledger) -> None:
        """Write into `ledger` who was enrolled, as pseudonyms, and how many were excluded, unless that was done (5.1.2-d)."""
        enrolment = self.enrolment
        if enrolment.recorded:
            return
        facts: dict[str, Fact] = dict(enrolment.facts)
        for side, codes in enrolment.sides.items():
            facts[side] = [self.key.pseudonym(code) for code in codes]
        ledger.append("enrolment", facts)
        Enrolment(enrolment.subjects, enrolment.train, enrolment.facts, recorded=True).write(self.notes)
        self._look_again()

    def level(self, kind: KindSpec) -> int:
        """The level of a payload of `kind` made of the enrolled subjects (T/SCGS 313008-2024 clause 5.5)."""
        return PolicyContext(None, self.today, enrolled=self._enrolled(destroyed=False)).level(kind).level

    def policy_context(self, card: str = "") -> PolicyContext:
        """What the gate holds a payload against, by the site's files as they are now.

        Args:
            card: the certificate of the server's encryption key, as it came with the order.
        """
        self._look_again()
        policy = self.policy
        agreement, unreadable = None, False
        try:
            if policy is not None and policy.agreement == "required":
                agreement = read_agreement(self.folder.agreement)
        except RequestError:
            unreadable = True
        return PolicyContext(
            policy=policy,
            today=self.today,
            transfer=Transfer(
                site_key=self.key.public_hex,
                server_key=self.configuration.server_key,
                agreement=agreement,
                unreadable=unreadable,
                card=KeyCertificate.read(card),
                domain=self.configuration.site.domain,
                server_domain=self.configuration.server_domain,
            ),
            enrolled=self._enrolled(self._check(policy), destroyed=self._destroyed()),
            safeguards=Safeguards(self.scenario.protections, techniques_of(self.method, self.scenario.protections)),
        )

    def _check(self, policy: SitePolicy | None) -> ConsentCheck:
        return ConsentCheck(policy, self.folder, self.scenario, self.today)

    def _enrolled(self, check: ConsentCheck | None = None, *, destroyed: bool) -> Enrolled:
        """Who is enrolled, in numbers. check: the register of consent, if it is to be asked."""
        try:
            enrolment = self.enrolment
            day, level = enrolment.facts.get("day"), int(enrolment.facts["level"])
            since = (self.configuration.intake or self.today) if day is None else date.fromisoformat(day)
        except _UNREADABLE:  # then the worst is to be thought
            return Enrolled(special=True, identified=True, unreadable=True, destroyed=destroyed)
        return Enrolled(
            subjects=len(enrolment.subjects),
            revoked=None if check is None else check.revoked(enrolment.subjects),
            special=level == max(LEVELS),
            identified=level >= IDENTIFYING,
            since=since,
            destroyed=destroyed,
        )

    def _look_again(self) -> None:
        """Take policy and enrolment from their files when they are asked for next."""
        for name in ("policy", "enrolment"):
            self.__dict__.pop(name, None)

    def _destroyed(self) -> bool:
        """Whether what the site held was destroyed, or is being. A ledger that is kept open told of none, and tells of none
        still if nobody else wrote to it."""
        opened = self._memory.ledger
        if opened is not None and opened.is_current:
            return disposed(self.folder.path)
        return History(self.folder.path).destroyed

    def _recall(self, note: str, read: Callable[[], T]) -> T:
        """What `read` makes of the site's `note`; of one that is encrypted, while the key is the same."""
        return self._memory.recall(
            read, self.notes.path(note), *([self.folder.sealing_key] if self.notes.sealed else [])
        )


def _scenario_of(configuration: SiteConfiguration, envelope: Envelope, memory: Memory) -> Scenario:
    """The scenario of an order. The first one that comes is kept in the site's folder; orders under another are none of this
    site's. Of the hospitals that take part it holds this one alone: a site has nothing to do with the others, and in a
    simulation of a thousand each would keep a thousand."""
    path = SiteFolder(configuration.folder).scenario
    kept = path.read_bytes() if path.exists() else None
    text = kept or envelope.scenario_text.encode()
    if not text:
        raise RequestError("this site knows no scenario yet: the roll call, with which a run begins, brings it")
    sha256 = hashlib.sha256(text).hexdigest()
    if sha256 != envelope.scenario:
        raise RequestError(
            f"the order is under another scenario than the one in which this site takes part ({path.name} in its folder)"
        )

    def read() -> Scenario:
        whole = Scenario.model_validate_json(text)
        return whole.model_copy(update={"sites": (configuration.site,)})

    scenario = memory.keep(path, sha256, read)
    if kept is None:
        write_durably(path, [text])
    return scenario
