"""What a site's program knows for one order, opened once and handed from the gate to the action.

Read once for every order: the site's configuration, the scenario, the method, the keys. The policy and the record of enrolment
too, unless their files change while the order is carried out: then they are read again, and the change counts for the answer.
Read when the answer is decided: the data-use agreement, the register of consent, and whether the site's data was destroyed. So
whatever a hospital changes takes effect with the next payload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar, final

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
from fedprivseg.governance.sitefolder.history import History
from fedprivseg.governance.sitefolder.notes import INTAKE, PARTICIPANTS, Notes
from fedprivseg.governance.sitefolder.vault import Vault, policy_of, seals
from fedprivseg.imaging.dataset import Dataset
from fedprivseg.imaging.datasets import dataset_of
from fedprivseg.imaging.splits import COHORT, Cohort, cohort
from fedprivseg.methods import resolve
from fedprivseg.runtime.site.enrolment import ConsentCheck, Enrolment, enrol
from fedprivseg.runtime.site.payload_techniques import techniques_of
from fedprivseg.runtime.wire import Envelope

_UNREADABLE = (OSError, LookupError, ValueError, FedprivsegError)
"""What reading the record of enrolment raises if it is damaged, or encrypted under another key."""

T = TypeVar("T")


@final
class SiteContext:
    """One site in one scenario, for one order."""

    def __init__(self, configuration: SiteConfiguration, scenario: Scenario) -> None:
        self.configuration, self.scenario = configuration, scenario
        self.name = configuration.site.name
        self.folder = SiteFolder(configuration.folder)
        self.today = configuration.today or date.today()
        self.method = resolve(scenario.method)
        self._policy = _Reading(self.folder.policy, lambda: policy_of(self.folder.path))
        self.notes = Notes(self.folder.path, sealed=seals(self.policy))
        self._enrolment = _Reading(self.notes.path(INTAKE), lambda: Enrolment.read(self.notes))

    @classmethod
    def open(cls, configuration: SiteConfiguration, envelope: Envelope) -> SiteContext:
        """The context of the order in `envelope`. Raises RequestError if it is an order under another scenario than the one in
        which the site takes part."""
        return cls(configuration, _scenario_of(SiteFolder(configuration.folder).scenario, envelope))

    @cached_property
    def key(self) -> SiteKey:
        """The site's private key; made if there is none yet."""
        return SiteKey.at(self.folder.key)

    @cached_property
    def vault(self) -> Vault:
        """The site's own disk. Raises RequestError if it is to be encrypted and there is no key."""
        return Vault(self.folder.vault, self.notes.key)

    @property
    def cache(self) -> Path | None:
        """Where images on the network grid are kept between runs. They are plain: a site that encrypts keeps none."""
        return None if self.notes.sealed else self.configuration.cache

    @property
    def policy(self) -> SitePolicy | None:
        """The site's policy; None if there is none that can be read, and then nothing leaves."""
        return self._policy.value

    @property
    def enrolment(self) -> Enrolment:
        """Who is enrolled. Raises OSError, ValueError or FedprivsegError if the record cannot be read."""
        return self._enrolment.value

    @property
    def closed(self) -> bool:
        """Whether nothing may leave whatever it is, so that nothing is to be computed: there is no policy, the record of
        enrolment cannot be read, the term of retention has ended, or what the site held was destroyed."""
        enrolled = self._enrolled()
        context = PolicyContext(self.policy, self.today, enrolled=enrolled)
        return context.policy is None or enrolled.unreadable or context.expired is not None

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
        return COHORT.validate_json(self.notes.read(PARTICIPANTS))

    def admit(self, found: Cohort) -> Cohort:
        """Those of `found` who may take part, which the site notes. Without a policy, or without a register that can be read
        where one is asked, nobody."""
        begins = self.configuration.intake or self.today
        enrolled, enrolment = enrol(found, self._check(self.policy), self.configuration, self.scenario, begins)
        self._keep(enrolment)
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
        self._keep(Enrolment(enrolment.subjects, enrolment.train, enrolment.facts, recorded=True))

    def level(self, kind: KindSpec) -> int:
        """The level of a payload of `kind` made of the enrolled subjects (T/SCGS 313008-2024 clause 5.5)."""
        return PolicyContext(None, self.today, enrolled=self._enrolled()).level(kind).level

    def policy_context(self, card: str = "") -> PolicyContext:
        """What the gate holds a payload against, now.

        Args:
            card: the certificate of the server's encryption key, as it came with the order.
        """
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
            enrolled=self._enrolled(self._check(policy)),
            safeguards=Safeguards(self.scenario.protections, techniques_of(self.method, self.scenario.protections)),
        )

    def _check(self, policy: SitePolicy | None) -> ConsentCheck:
        return ConsentCheck(policy, self.folder, self.scenario, self.today)

    def _enrolled(self, check: ConsentCheck | None = None) -> Enrolled:
        """Who is enrolled, in numbers. check: the register of consent, if it is to be asked."""
        destroyed = History(self.folder.path).destroyed
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

    def _keep(self, enrolment: Enrolment) -> None:
        enrolment.write(self.notes)
        self._enrolment.now(enrolment)


@final
class _Reading(Generic[T]):
    """What `read` finds in the file at `path`: read again only after the file has changed."""

    def __init__(self, path: Path, read: Callable[[], T]) -> None:
        self._path, self._read = path, read
        self._found: tuple[bytes | None, T] | None = None

    @property
    def value(self) -> T:
        """It, as the file is now. Raises what `read` raises."""
        content = self._content()
        if self._found is None or self._found[0] != content:
            self._found = content, self._read()
        return self._found[1]

    def now(self, value: T) -> None:
        """Take `value` for what was just written to the file."""
        self._found = self._content(), value

    def _content(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except OSError:
            return None


def _scenario_of(path: Path, envelope: Envelope) -> Scenario:
    """The scenario of an order. The first one that comes is kept at `path`; orders under another are none of this site's."""
    kept = path.read_bytes() if path.exists() else None
    text = kept or envelope.scenario_text.encode()
    if not text:
        raise RequestError("this site knows no scenario yet: the roll call, with which a run begins, brings it")
    if hashlib.sha256(text).hexdigest() != envelope.scenario:
        raise RequestError(
            f"the order is under another scenario than the one in which this site takes part ({path.name} in its folder)"
        )
    scenario = Scenario.model_validate_json(text)
    if kept is None:
        write_durably(path, [text])
    return scenario
