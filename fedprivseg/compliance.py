"""Which clauses of T/SCGS 313008-2024 a run kept, on what evidence, and what would mend those that it broke.

A clause counts as kept only if code prevented the breach (a rule of the gate that every payload passed) or a signed record
proves the act (a line of a ledger that verifies). What only people can do stands as outside of software. No legal advice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fedprivseg import compliance_access as access
from fedprivseg import compliance_destruction
from fedprivseg import compliance_storage as storage
from fedprivseg import compliance_transport as transport
from fedprivseg.compliance_strategy import strategy
from fedprivseg.errors import LedgerError, RequestError
from fedprivseg.hospitals import write_text
from fedprivseg.policy import ledger
from fedprivseg.policy.agreement import Agreement, read_agreement
from fedprivseg.policy.ledger import Line
from fedprivseg.policy.profile import SitePolicy, read_policy
from fedprivseg.records import Kind
from fedprivseg.results import read_scenario
from fedprivseg.site.rules import AGREEMENT
from fedprivseg.site.vault import POLICY
from fedprivseg.withdrawal import read_withdrawals, traces

State = Literal["kept", "broken", "not applicable", "outside software"]

COMPLIANCE = "compliance.json"


class Finding(BaseModel):
    """One clause. evidence: where to look: ledger lines as ``site:index``, files of the run, rules. mend: what would help, for
    a clause that is broken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clause: str
    asks: str
    state: State
    why: str
    evidence: tuple[str, ...] = ()
    mend: str = ""


@dataclass(frozen=True)
class Papers:
    """What one site of a run has on file. fault: why its ledger does not hold, empty if it does."""

    name: str
    home: Path
    policy: SitePolicy | None
    agreement: Agreement | None
    lines: tuple[Line, ...]
    fault: str

    def of(self, event: str) -> list[Line]:
        """The lines of one event."""
        return [line for line in self.lines if line.event == event]


class Evidence:
    """A run's folder, read for the report. Sites are sorted by name."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.scenario = read_scenario(run)
        self.sites = [self._papers(site.name) for site in sorted(self.scenario.sites, key=lambda each: each.name)]

    def _papers(self, name: str) -> Papers:
        home = self.run / "sites" / name
        keys = self.run / "server" / "identities.json"
        known: Mapping[str, str] = json.loads(keys.read_text(encoding="utf-8")) if keys.exists() else {}
        policy, agreement, fault = None, None, ""
        lines: tuple[Line, ...] = ()
        try:
            policy = read_policy(home / POLICY)
        except RequestError:
            policy = None  # a site without a policy: clauses that ask for one are broken, and say so
        try:
            agreement = read_agreement(home / AGREEMENT)
        except RequestError:
            agreement = None
        try:
            ledger.verify(home / "ledger.jsonl", public_hex=known.get(name))
            lines = tuple(ledger.read(home / "ledger.jsonl"))
        except (LedgerError, OSError) as error:
            fault = str(error)
        return Papers(name, home, policy, agreement, lines, fault)

    def lines(self, event: str) -> list[tuple[Papers, Line]]:
        """Every site's lines of one event."""
        return [(site, line) for site in self.sites for line in site.of(event)]

    @cached_property
    def released_raw(self) -> list[str]:
        """Where raw data left."""
        return [_at(site, line) for site, line in self.lines("release") if line.facts.get("kind") == Kind.RAW]

    @cached_property
    def left_traces(self) -> list[str]:
        """What is still there of subjects who withdrew."""
        return [trace for each in read_withdrawals(self.run) for trace in traces(self.run, each)]

    @cached_property
    def destructions(self) -> compliance_destruction.Destructions:
        """What is told of destructions."""
        return compliance_destruction.Destructions(self)


def assess(run: Path) -> tuple[Finding, ...]:
    """Every clause of the standard, in its order. Raises FolderError if `run` is no run."""
    evidence = Evidence(run)
    found = []
    for clause, asks, judge in CLAUSES:
        state, why, where, mend = judge(evidence)
        found.append(Finding(clause=clause, asks=asks, state=state, why=why, evidence=tuple(where[:6]), mend=mend))
    return tuple(found)


def write_compliance(run: Path) -> tuple[Finding, ...]:
    """`assess`, kept as ``compliance.json`` in the run's folder."""
    found = assess(run)
    write_text(run / COMPLIANCE, json.dumps([each.model_dump() for each in found], indent=1, ensure_ascii=False))
    return found


def read_compliance(run: Path) -> tuple[Finding, ...]:
    """What `write_compliance` kept; nothing if it was not called."""
    path = run / COMPLIANCE
    if not path.exists():
        return ()
    return tuple(Finding.model_validate(each) for each in json.loads(path.read_text(encoding="utf-8")))


Verdict = tuple[State, str, list[str], str]
"""(state, why, evidence, what would mend it)."""


def _at(site: Papers, line: Line) -> str:
    return f"{site.name}:{line.index}"


def _intake(evidence: Evidence) -> Verdict:
    """5.1.1: purpose stated, nobody taken in beyond it."""
    lacking = [site.name for site in evidence.sites if site.of("release") and not site.of("intake")]
    where = [_at(site, line) for site, line in evidence.lines("intake")]
    if lacking:
        return "broken", f"{', '.join(lacking)} recorded no intake.", where, "Run the scenario anew into a new folder."
    if not where:
        return "not applicable", "No site took anybody in.", [], ""
    return (
        "kept",
        "Each site's ledger states purpose, type and number of what was taken in; other purposes are refused.",
        where,
        "",
    )


def _rules_stated(evidence: Evidence) -> Verdict:
    without = [site.name for site in evidence.sites if site.policy is None]
    where = [f"sites/{site.name}/{POLICY}" for site in evidence.sites if site.policy is not None]
    if without:
        return (
            "broken",
            f"No policy that can be read at {', '.join(without)}; nothing left there.",
            where,
            f"Write a {POLICY}.",
        )
    return "kept", "Each site's policy is on file and was read for every payload.", where, ""


def _consent(evidence: Evidence) -> Verdict:
    register = [site for site in evidence.sites if site.policy is not None and site.policy.consent == "register"]
    where = [_at(site, line) for site in register for line in site.of("intake")]
    if evidence.left_traces:
        return "broken", "; ".join(evidence.left_traces), where, "Carry the withdrawal out again: fedprivseg withdraw."
    relying = [site.name for site in evidence.sites if site not in register]
    if relying:
        names = ", ".join(relying)
        why = (
            f"{names} rely on the licence under which the data was released; consent was asked by whoever released it."
        )
        return "outside software", why, where, 'Set consent = "register" in the site\'s policy to have it checked.'
    return "kept", "Only subjects whose consent covers the study were taken in; withdrawal closes the gate.", where, ""


def _chosen_types(evidence: Evidence) -> Verdict:
    where = [_at(site, line) for site, line in evidence.lines("intake") if line.facts.get("type")]
    if not where:
        return "not applicable", "No site took anybody in.", [], ""
    types = sorted({str(line.facts["type"]) for _, line in evidence.lines("intake")})
    return "kept", f"Of type {', '.join(types)} alone, and of each subject the two annotated phases.", where, ""


def _no_identity(evidence: Evidence) -> Verdict:
    if evidence.released_raw:
        return (
            "broken",
            "Raw images left a site.",
            evidence.released_raw,
            "Choose a method that does not export raw data.",
        )
    where = [_at(site, line) for site, line in evidence.lines("release")]
    why = "No raw image or mask left a site; an error leaves as its type and an id. What codes tell is measured by attacks."
    return "kept", why, where[:2], ""


def _classified(evidence: Evidence) -> Verdict:
    where = [_at(site, line) for site, line in evidence.lines("intake")]
    classes = sorted({str(line.facts.get("class", "unknown")) for _, line in evidence.lines("intake")})
    if not where:
        return "not applicable", "No site took anybody in.", [], ""
    if "unknown" in classes:
        return "broken", "A type of data has no class in Table 1.", where, "Name a type of Table 1 in study.data."
    return "kept", f"Class: {', '.join(classes)}.", where, ""


def _levels(evidence: Evidence) -> Verdict:
    released = evidence.lines("release")
    if not released:
        return "not applicable", "Nothing was sent.", [], ""
    above = [
        _at(site, line)
        for site, line in released
        if line.facts.get("kind") != Kind.RAW and (site.policy is None or _level(line) > site.policy.max_level)
    ]
    if above:
        why = "Payloads left above the level that the site's policy lets out."
        return "broken", why, above, "Find out who changed the policy, and when."
    highest = max(_level(line) for _, line in released)
    why = f"Levels are assigned by rule; the highest that left is {highest}, within each policy."
    return "kept", why, [_at(site, line) for site, line in released][:2], ""


def _level(line: Line) -> int:
    return int(str(line.facts.get("level", 0)))


def _audited(evidence: Evidence) -> Verdict:
    faults = [f"{site.name}: {site.fault}" for site in evidence.sites if site.fault]
    where = [f"sites/{site.name}/ledger.jsonl" for site in evidence.sites]
    if faults:
        return "broken", " ".join(faults), where, "Keep the files as evidence and compare them with a backup."
    return "kept", "Every release, refusal, intake and error stands in a ledger that verifies.", where, ""


def _limits_of_use(evidence: Evidence) -> Verdict:
    refused = [_at(site, line) for site, line in evidence.lines("refusal")]
    allowed = [_at(site, line) for site, line in evidence.lines("release")]
    why = f"{len(allowed)} payloads left under a rule and {len(refused)} were refused; each line names its rule and clause."
    return "kept", why, refused[:3] or allowed[:3], ""


CLAUSES: tuple[tuple[str, str, Callable[[Evidence], Verdict]], ...] = (
    ("5.1.1", "Minimal necessity, a stated purpose, lawful collection.", _intake),
    ("5.1.2-a", "The safety rules of collection are stated.", _rules_stated),
    ("5.1.2-b", "For each patient the scope of consent is known.", _consent),
    ("5.1.2-c", "Only images of chosen types, as needed.", _chosen_types),
    ("5.1.2-d", "Channel, source, range and type are recorded.", _intake),
    ("5.1.2-e", "Nothing that identifies leaks during collection.", _no_identity),
    ("5.1.3", "Data is classified by attribute (Table 1).", _classified),
    ("5.2", "De-identification by utility and confidentiality (Table 2).", strategy),
    ("5.3.1", "Protection of transmission differs by need.", transport.differs_by_need),
    ("5.3.2-a", "A data-use agreement before transmission.", transport.agreed),
    ("5.3.2-b", "Encryption, signatures, authentication by class and level.", transport.encrypted),
    ("5.3.2-c", "Rules for interfaces within and between domains.", transport.interfaces),
    ("5.4.1", "Control of storage.", storage.storage_controlled),
    ("5.4.2-a", "A policy for media and logical storage.", storage.storage_policy),
    ("5.4.2-b", "Integrity by cryptographic means.", storage.integrity),
    ("5.4.2-c", "Backup and recovery, regular and verified.", storage.backed_up),
    ("5.4.2-d", "Control of access by role, by attribute, and anew each time.", access.by_role_and_attribute),
    ("5.5", "Five levels.", _levels),
    ("5.6.2-a", "A review of each request for access.", access.reviewed),
    ("5.6.2-b", "Stated range, rights, limits and protections of use.", _limits_of_use),
    ("5.6.2-c", "Authentication and rights by role, the least that are needed.", access.least_rights),
    ("5.6.2-d", "The use of data is audited.", _audited),
    ("5.7-a", "Archive: policies by class, level and stage.", storage.archive_policy),
    ("5.7-b", "Archive: procedures by life cycle.", storage.archive_procedure),
    ("5.7-c", "Archive: no access for the unauthorised.", storage.archive_closed),
    ("5.7-d", "Archive: compressed or encrypted.", storage.archive_sealed),
    *compliance_destruction.CLAUSES,
    ("A.1.1", "Patient data for doctors: default, informed, authorised.", access.granularity_of_doctors),
    ("A.1.2", "Roles by department, title and treatment group.", access.roles_of_doctors),
    ("A.1.3", "Doctors see patients in their charge; special and infectious diseases.", access.charge_of_doctors),
    ("A.2.1", "Patients' own queries: identity, and limits on what is shown.", access.own_queries),
    ("A.2.2", "Rights to save, copy, print, download, with a notice.", access.own_copies),
    ("A.2.3", "What is sent to persons stays confidential and whole.", access.own_channel),
)
"""Each clause, what it asks in a few words, and how it is judged."""
