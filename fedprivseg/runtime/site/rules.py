"""A site's own rules as its program finds them on its disk: policy, agreement and register of consent, on the day that it is.

Everything here is read anew for every order: a policy that was changed, a consent that was withdrawn and an agreement that ran
out take effect with the next payload. What cannot be read allows nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import date
from functools import cached_property
from typing import Any, Literal

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import FedprivsegError, RequestError
from fedprivseg.core.records import Decision, Subject
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto.hpke import KeyCertificate
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.ledger import Fact, Ledger
from fedprivseg.governance.policy.agreement import read_agreement
from fedprivseg.governance.policy.consent import Duo, Register, Use, write_register
from fedprivseg.governance.policy.context import Enrolled, InForce, PolicyContext
from fedprivseg.governance.policy.levels import CLASSES, IDENTIFYING, LEVELS, UNKNOWN_CLASS, subject_level
from fedprivseg.governance.policy.profile import SitePolicy, read_policy
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.history import History, disposed
from fedprivseg.governance.sitefolder.notes import INTAKE, PARTICIPANTS, Notes
from fedprivseg.governance.sitefolder.vault import POLICY
from fedprivseg.imaging.dicom.imported import Imported, ImportedSubject, read_imported
from fedprivseg.imaging.splits import Cohort
from fedprivseg.runtime.site.techniques import techniques_of

WITHDREW = "withdrew"
"""A file in a site's folder: a simulated subject's withdrawal has happened."""

RECORDS = "records"
"""What `PolicyContext.unreadable` calls the record of the intake."""
LICENSED = "The licence of the data's release stands for consent."
UNREADABLE = (OSError, ValueError, FedprivsegError)
"""What reading it raises if it is damaged, or sealed under another key."""


class Rules:
    """The rules of one site for one scenario."""

    def __init__(self, station: SiteConfiguration, scenario: Scenario, notes: Notes | None = None) -> None:
        """notes: the site's own, if they were opened already."""
        self.notes = notes or Notes(station.folder)
        self._folder = station.folder
        self._past = History(station.folder)
        self._release = station.release
        self._server_key = station.server_key
        self._domain, self._server_domain = station.site.domain, station.server_domain
        self._withdraws = station.withdraws
        self._scenario = scenario
        self.today = station.today or date.today()
        self._begins = station.intake or self.today

    @cached_property
    def policy(self) -> SitePolicy | None:
        """The site's policy; None if there is none that can be read, and then nothing leaves."""
        try:
            return read_policy(self._folder / POLICY)
        except RequestError:
            return None

    @property
    def closed(self) -> bool:
        """Whether nothing may leave whatever it is, so that nothing is to be computed: there is no policy, what is kept of the
        intake cannot be read, the term of retention has ended, or what the site held was destroyed."""
        if self.policy is None:
            return True
        try:
            content = self._intake()
        except UNREADABLE:
            return True
        since = self._since(content)
        return PolicyContext(self.policy, self.today, since=since, destroyed=self._gone).expired is not None

    def admit(self, found: Cohort) -> Cohort:
        """Those of `found` who may be taken into the study. Under a policy that relies on the licence of a release that is
        everybody but who withdrew, if the site keeps a register all the same; without a policy, or without a register that can
        be read, nobody. Remembers who was taken in, on which state
        of the register, and how many were not, by rule (5.1.2-b, 5.1.2-d)."""
        refused: dict[str, int] = {}

        def side(people: tuple[Subject, ...]) -> tuple[Subject, ...]:
            taken = []
            for subject in people:
                decision = self._back_again(register, subject.code) or self._decide(register, subject.code)
                if decision.allowed:
                    taken.append(subject)
                else:
                    refused[decision.rule] = refused.get(decision.rule, 0) + 1
            return tuple(taken)

        register = self._register()
        taken = Cohort(side(found.train), side(found.test))
        people = [*taken.train, *taken.test]
        asked = register if self.policy is not None and self.policy.consent == "register" else None
        papers = [asked.consents[one.code] for one in people] if asked else []
        study = self._scenario.study
        imported = [record for one in people for record in self._imported(one.code)]
        classes = {CLASSES[study.data].value if study.data in CLASSES else UNKNOWN_CLASS}
        classes |= {series.data_class for record in imported for series in record.series}
        channels = {paper.channel for paper in papers} | {each.channel for each in self._imports or () if imported}
        facts: dict[str, Fact] = {
            "basis": "none" if self.policy is None else self.policy.consent,
            "channel": sorted(channels) or ["release"],
            "class": UNKNOWN_CLASS if UNKNOWN_CLASS in classes else ", ".join(sorted(classes)),
            # A withdrawal, after which everybody else is taken in again, does not begin the term of retention anew.
            "day": min([self._begins, *self._past.intakes]).isoformat(),
            "imported": "unreadable" if self._imports is None else len(imported),
            "level": max(
                (subject_level(identified=self._identifies(one), special=self._special(one)).level for one in people),
                default=0,
            ),
            "purpose": study.purpose,
            "range": [self._scenario.data.split, *self._scenario.task.times],
            "refused": [f"{rule}: {count}" for rule, count in sorted(refused.items())],
            "register": asked.sha256 if asked else "",
            "source": sorted({paper.source for paper in papers}) or ["release"],
            "subjects": len(people),
            "type": study.data,
        }
        self._write_intake(
            {"subjects": [one.code for one in people], "train": len(taken.train), "facts": facts, "recorded": False}
        )
        return taken

    def live(self, action: str) -> None:
        """Let happen what a simulated hospital's patients do when `action` is ordered: once, the first subject who was taken
        in withdraws consent. A real hospital's register is changed by the hospital."""
        done = self._folder / WITHDREW
        if action != self._withdraws or done.exists():
            return
        consents = dict(Register.read(SiteFolder(self._folder).register).consents)
        first = self._intake()["subjects"][0]
        write_register(
            SiteFolder(self._folder).register,
            {**consents, first: replace(consents[first], withdrawn=self.today)}.values(),
        )
        done.touch()

    def record_intake(self, ledger: Ledger, key: SiteKey) -> None:
        """Write into `ledger` who was taken in, as pseudonyms under `key`, and how many were not, unless that was done
        (5.1.2-d)."""
        if self.policy is None:
            return
        content = self._intake()
        if not content["recorded"]:
            facts: dict[str, Fact] = dict(content["facts"])
            for side, codes in self.enrolled().items():
                facts[side] = [key.pseudonym(code) for code in codes]
            ledger.append("intake", facts)
            self._write_intake({**content, "recorded": True})

    def enrolled(self) -> dict[Literal["train", "test"], list[str]]:
        """The codes of those who were taken in, by side, each in the order of the site's cohort."""
        content = self._intake()
        return {"train": content["subjects"][: content["train"]], "test": content["subjects"][content["train"] :]}

    def standing(self, site_key: str, card: str = "") -> PolicyContext:
        """What the gate holds a payload against, for the site whose public key (hex) is `site_key`. card: that of the server's
        encryption key, as it came with the order. Papers that are there and cannot be read allow nothing."""
        policy = self.policy
        if policy is None:
            return PolicyContext(None, self.today, site_key, self._server_key)
        agreement, unreadable = None, ""
        try:
            agreement = read_agreement(SiteFolder(self._folder).agreement) if policy.agreement == "required" else None
        except RequestError:
            unreadable = "agreement"
        try:
            content = self._intake()
        except UNREADABLE:
            content = {"subjects": [], "train": 0, "facts": {"level": max(LEVELS)}, "recorded": True}
            unreadable = RECORDS
        return PolicyContext(
            policy=policy,
            today=self.today,
            site_key=site_key,
            server_key=self._server_key,
            agreement=agreement,
            card=KeyCertificate.read(card),
            domain=self._domain,
            server_domain=self._server_domain,
            unreadable=unreadable,
            protections=tuple(
                InForce(kind, config.name, config.parameters)
                for config in self._scenario.protections
                for kind in config.of
            ),
            techniques=techniques_of(self._scenario),
            taken=self._taken(content) if policy.consent == "register" or self._registers else None,
            special=content["facts"]["level"] == max(LEVELS),
            identified=content["facts"]["level"] >= IDENTIFYING,
            subjects=len(content["subjects"]),
            since=self._since(content),
            destroyed=self._gone,
        )

    def _taken(self, content: dict[str, Any]) -> Enrolled | None:
        register = self._register()
        if register is None and self.policy is not None and self.policy.consent == "register":
            return None
        lapsed = sum(not self._decide(register, code).allowed for code in content["subjects"])
        return Enrolled(len(content["subjects"]), lapsed)

    def _since(self, content: dict[str, Any]) -> date:
        """The day on which those of `content` were taken in; that on which they would be, if nobody is."""
        day = content["facts"].get("day")
        return self._begins if day is None else date.fromisoformat(day)

    def _intake(self) -> dict[str, Any]:
        if not self.notes.has(INTAKE):
            if self.notes.has(
                PARTICIPANTS
            ):  # it is written after the intake, and read instead of admitting anybody anew
                raise ValueError("who takes part is noted, and the record of their intake is gone")
            return {"subjects": [], "train": 0, "facts": {"level": 0}, "recorded": True}
        content = json.loads(self.notes.read(INTAKE))
        if not isinstance(content, dict) or not {"subjects", "train", "facts", "recorded"} <= content.keys():
            raise ValueError("what is kept of the intake is no record of one")
        return content

    def _write_intake(self, content: dict[str, Any]) -> None:
        self.notes.write(INTAKE, content)

    def _register(self) -> Register | None:
        """The register of consent; None if the site has none that can be read, and then no consent stands."""
        try:
            return Register.read(SiteFolder(self._folder).register)
        except RequestError:
            return None

    @property
    def _registers(self) -> bool:
        """Whether the site keeps a register of consent, readable or not."""
        return os.path.lexists(SiteFolder(self._folder).register)

    @cached_property
    def _imports(self) -> tuple[Imported, ...] | None:
        """What imports wrote beside the release's files; None if one of these files cannot be read."""
        try:
            found = [read_imported(folder) for folder in (self._release, self._release / "OpenDataset")]
        except RequestError:
            return None
        return tuple(each for each in found if each is not None)

    def _imported(self, code: str) -> list[ImportedSubject]:
        return [each.subjects[code] for each in self._imports or () if code in each.subjects]

    def _identifies(self, subject: Subject) -> bool:
        """Whether the subject's images show a face or text; so do all of them where a record is there and cannot be read."""
        return self._imports is None or any(each.level >= IDENTIFYING for each in self._imported(subject.code))

    def _special(self, subject: Subject) -> bool:
        special = set() if self.policy is None else {name.strip().casefold() for name in self.policy.special_diseases}
        return subject.attributes.get("disease", "").strip().casefold() in special

    @property
    def _gone(self) -> bool:
        """Whether what the site held was destroyed, or is being: by the records of it, or by the ledger if these are gone."""
        return disposed(self._folder) or self._past.destroyed

    def _back_again(self, register: Register | None, subject: str) -> Decision | None:
        """Why a subject of whose withdrawal the ledger tells stays out. Only consent given afterwards changes it, not a
        register from which the withdrawal was taken."""
        if self._past.unreadable:
            reason = "The site's ledger cannot be read, so it is not known who withdrew."
            return Decision(False, "ledger.unreadable", reason, "5.6.2-d")
        day = self._past.withdrew(subject)
        paper = None if register is None else register.consents.get(subject)
        if day is None or (paper is not None and paper.valid_from > day):
            return None
        reason = f"The ledger tells of a withdrawal on {day}, and the register of no consent that was given afterwards."
        return Decision(False, "consent.withdrawn", reason, "5.1.2-b")

    def _decide(self, register: Register | None, subject: str) -> Decision:
        if self.policy is None:
            return Decision(False, "policy.absent", "This site has no policy that can be read.", "5.6.2-b")
        if self.policy.consent == "release" and not self._registers:
            return Decision(True, "consent.release", LICENSED, "5.1.1")
        if register is None:
            return Decision(
                False, "consent.register", "This site has no register of consent that can be read.", "5.1.2-b"
            )
        if self.policy.consent == "release":
            # A licence stands for consent that was given, never for one that was taken back.
            paper = register.consents.get(subject)
            if paper is None or (withdrawn := paper.withdrawal(self.today)) is None:
                return Decision(True, "consent.release", LICENSED, "5.1.1")
            return withdrawn
        study = self._scenario.study
        use = Use(Duo(study.purpose), frozenset(study.diseases), study.data, study.commercial, study.ethics)
        return register.decide(subject, use, self.today)
