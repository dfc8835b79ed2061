"""Who is enrolled at a site: whom its policy and its register of consent let in, and what the site notes of that.

A register is read when subjects are enrolled, and again for every payload: a consent that was withdrawn takes effect with the
next one. What cannot be read allows nothing.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Any, Literal, final

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import RequestError
from fedprivseg.core.records import Decision, Subject
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.policy.consent import Duo, Register, Use
from fedprivseg.governance.policy.levels import CLASSES, IDENTIFYING, UNKNOWN_CLASS, subject_level
from fedprivseg.governance.policy.profile import SitePolicy
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.history import History
from fedprivseg.governance.sitefolder.notes import INTAKE, PARTICIPANTS, Notes
from fedprivseg.imaging.dicom.imported import Imported, read_imported
from fedprivseg.imaging.splits import Cohort

Side = Literal["train", "test"]

_LICENSED = Decision(
    True, "consent.released-under-licence", "The licence of the data's release stands for consent.", "5.1.1"
)


@final
@dataclass(frozen=True)
class Enrolment:
    """Who was enrolled, as the site notes it.

    Attributes:
        subjects: their codes, those who train first, each side in the order of the site's cohort.
        train: how many of them train.
        facts: what the line of the ledger says of it.
        recorded: whether the line was written.
    """

    subjects: tuple[str, ...] = ()
    train: int = 0
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({"level": 0}))
    recorded: bool = True

    @classmethod
    def read(cls, notes: Notes) -> Enrolment:
        """What the site's notes say; nobody if nobody was enrolled yet. Raises OSError, ValueError or FedprivsegError if they
        are gone or damaged, or encrypted under another key."""
        if not notes.has(INTAKE):
            if notes.has(PARTICIPANTS):  # written after the enrolment, and read instead of enrolling anybody again
                raise ValueError("who takes part is noted, and the record of their enrolment is gone")
            return cls()
        content = json.loads(notes.read(INTAKE))
        if not isinstance(content, dict) or not {"subjects", "train", "facts", "recorded"} <= content.keys():
            raise ValueError("what is kept of the enrolment is no record of one")
        return cls(tuple(content["subjects"]), content["train"], content["facts"], content["recorded"])

    def write(self, notes: Notes) -> None:
        """Put it into the site's notes."""
        notes.write(INTAKE, {**vars(self), "facts": dict(self.facts)})

    @property
    def sides(self) -> dict[Side, tuple[str, ...]]:
        """The codes by side."""
        return {"train": self.subjects[: self.train], "test": self.subjects[self.train :]}


@final
class ConsentCheck:
    """Whether subjects may take part today, by a site's policy and by its register of consent as it is now."""

    def __init__(self, policy: SitePolicy | None, folder: SiteFolder, scenario: Scenario, today: date) -> None:
        study = scenario.study
        self.policy, self._today = policy, today
        self._use = Use(Duo(study.purpose), frozenset(study.diseases), study.data, study.commercial, study.ethics)
        self._kept = os.path.lexists(folder.register)
        self.register: Register | None = None
        if self._kept:
            try:
                self.register = Register.read(folder.register)
            except RequestError:  # then no consent is valid
                self.register = None

    @property
    def demanded(self) -> bool:
        """Whether the policy enrols only those whose consent is on file."""
        return self.policy is not None and self.policy.consent == "register"

    def decide(self, subject: str) -> Decision:
        """Whether the subject of that code may take part, and why."""
        if self.policy is None:
            return Decision(False, "policy.absent", "This site has no policy that can be read.", "5.6.2-b")
        if not self.demanded and not self._kept:
            return _LICENSED
        if self.register is None:
            return Decision(
                False, "consent.no-register", "This site has no register of consent that can be read.", "5.1.2-b"
            )
        if self.demanded:
            return self.register.decide(subject, self._use, self._today)
        # A licence stands for consent that was given, never for one that was withdrawn.
        consent = self.register.consents.get(subject)
        return (None if consent is None else consent.withdrawal(self._today)) or _LICENSED

    def revoked(self, subjects: Iterable[str]) -> int | None:
        """How many of `subjects` may not take part any more; None if there is no register to ask."""
        if self.register is None and (self.demanded or not self._kept):
            return None
        return sum(not self.decide(subject).allowed for subject in subjects)

    def still_withdrawn(self, subject: str, history: History) -> Decision | None:
        """Why a subject of whose withdrawal the ledger tells stays out. Only consent given afterwards changes it, not a
        register from which the withdrawal was taken."""
        if history.unreadable:
            reason = "The site's ledger cannot be read, so it is not known who withdrew."
            return Decision(False, "ledger.unreadable", reason, "5.6.2-d")
        day = history.withdrew(subject)
        consent = None if self.register is None else self.register.consents.get(subject)
        if day is None or (consent is not None and consent.valid_from > day):
            return None
        reason = f"The ledger tells of a withdrawal on {day}, and the register of no consent that was given afterwards."
        return Decision(False, "consent.withdrawn", reason, "5.1.2-b")


def enrol(
    found: Cohort,
    check: ConsentCheck,
    configuration: SiteConfiguration,
    scenario: Scenario,
    begins: date,
) -> tuple[Cohort, Enrolment]:
    """Enrol those who may take part (5.1.2-b, 5.1.2-d).

    Args:
        found: everybody whom the site has.
        check: the site's policy, and its register of consent as it is now.
        configuration: where the site's folder and images are.
        scenario: the study.
        begins: the day of enrolment.

    Returns:
        Those of `found` who are enrolled, and what is to be noted: who, on which state of the register, and how many were
        excluded, by rule.
    """
    history = History(configuration.folder)
    excluded: Counter[str] = Counter()

    def side(people: tuple[Subject, ...]) -> tuple[Subject, ...]:
        decided = [(one, check.still_withdrawn(one.code, history) or check.decide(one.code)) for one in people]
        excluded.update(decision.rule for _, decision in decided if not decision.allowed)
        return tuple(one for one, decision in decided if decision.allowed)

    enrolled = Cohort(side(found.train), side(found.test))
    people = [*enrolled.train, *enrolled.test]
    asked = check.register if check.demanded else None
    consents = [asked.consents[one.code] for one in people] if asked else []
    imports = _imports(configuration)
    imported = {
        one.code: [each.subjects[one.code] for each in imports or () if one.code in each.subjects] for one in people
    }
    records = [record for each in imported.values() for record in each]
    policy = check.policy
    special = set() if policy is None else {name.strip().casefold() for name in policy.special_diseases}
    study = scenario.study
    classes = {CLASSES[study.data].value if study.data in CLASSES else UNKNOWN_CLASS}
    classes |= {series.data_class for record in records for series in record.series}
    channels = {consent.channel for consent in consents} | {each.channel for each in imports or () if records}
    levels = [
        subject_level(
            # Where the record of an import cannot be read, everybody counts as identified.
            identified=imports is None or any(record.level >= IDENTIFYING for record in imported[one.code]),
            special=one.attributes.get("disease", "").strip().casefold() in special,
        ).level
        for one in people
    ]
    facts: dict[str, Fact] = {
        "basis": "none" if policy is None else policy.consent,
        "channel": sorted(channels) or ["release"],
        "class": UNKNOWN_CLASS if UNKNOWN_CLASS in classes else ", ".join(sorted(classes)),
        # A withdrawal, after which everybody else is enrolled again, does not begin the term of retention again.
        "day": min([begins, *history.enrolments]).isoformat(),
        "imported": "unreadable" if imports is None else len(records),
        "level": max(levels, default=0),
        "purpose": study.purpose,
        "range": [scenario.data.split, *scenario.task.times],
        "refused": [f"{rule}: {count}" for rule, count in sorted(excluded.items())],
        "register": asked.sha256 if asked else "",
        "source": sorted({consent.source for consent in consents}) or ["release"],
        "subjects": len(people),
        "type": study.data,
    }
    return enrolled, Enrolment(tuple(one.code for one in people), len(enrolled.train), facts, recorded=False)


def _imports(configuration: SiteConfiguration) -> tuple[Imported, ...] | None:
    """What imports wrote beside the release's files; None if one of these files cannot be read."""
    try:
        found = [read_imported(folder) for folder in (configuration.release, configuration.release / "OpenDataset")]
    except RequestError:
        return None
    return tuple(each for each in found if each is not None)
