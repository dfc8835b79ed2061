"""Which clauses of T/SCGS 313008-2024 a run kept, on what evidence, and what would mend those that it broke.

A clause counts as kept only if code prevented the breach (a rule of the gate that every payload passed) or a signed record
proves the act (a line of a ledger that verifies). What only people can do stands as outside of software. No legal advice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fedprivseg.core.documents import damaged, read_json
from fedprivseg.core.files import write_text
from fedprivseg.core.model import Frozen
from fedprivseg.governance.compliance import (
    access_clauses,
    collection_clauses,
    destruction_clauses,
    storage_clauses,
    transport_clauses,
    use_clauses,
)
from fedprivseg.governance.compliance.evidence import Evidence, State, Verdict
from fedprivseg.governance.compliance.technique_clauses import graded

COMPLIANCE = "compliance.json"

_COMPARE = "Keep the files as evidence and compare them with a backup: fedprivseg ledger verify."


class Finding(Frozen):
    """One clause. evidence: where to look: ledger lines as ``site:index``, files of the run, rules. mend: what would help, for
    a clause that is broken."""

    clause: str
    asks: str
    state: State
    why: str
    evidence: tuple[str, ...] = ()
    mend: str = ""


def assess(run: Path) -> tuple[Finding, ...]:
    """Every clause of the standard, in its order. While a ledger does not hold, or is not what the other side was shown, no
    clause is kept: what did not happen is not known. Raises FolderError if `run` is no run."""
    evidence = Evidence(run)
    found = []
    for clause, asks, judge in CLAUSES:
        state, why, where, mend = judge(evidence)
        if evidence.doubts and state in ("kept", "not applicable"):
            state, why, where, mend = "broken", f"The ledgers prove nothing: {' '.join(evidence.doubts)}", [], _COMPARE
        found.append(Finding(clause=clause, asks=asks, state=state, why=why, evidence=tuple(where[:6]), mend=mend))
    return tuple(found)


def write_compliance(run: Path) -> tuple[Finding, ...]:
    """`assess`, kept as ``compliance.json`` in the run's folder."""
    found = assess(run)
    write_text(run / COMPLIANCE, json.dumps([each.model_dump() for each in found], indent=1, ensure_ascii=False))
    return found


def read_compliance(run: Path) -> tuple[Finding, ...]:
    """What `write_compliance` kept; nothing if it was not called. Raises FolderError if it is damaged."""
    path = run / COMPLIANCE
    if not path.exists():
        return ()
    remedy = "Delete it and write the report again"
    try:
        return TypeAdapter(tuple[Finding, ...]).validate_python(read_json(path, remedy))
    except ValidationError:
        raise damaged(path, "was changed: it is no record of clauses", remedy) from None


CLAUSES: tuple[tuple[str, str, Callable[[Evidence], Verdict]], ...] = (
    ("5.1.1", "Minimal necessity, a stated purpose, lawful collection.", collection_clauses.purposeful),
    ("5.1.2-a", "The safety rules of collection are stated.", collection_clauses.rules_stated),
    ("5.1.2-b", "For each patient the scope of consent is known.", collection_clauses.consent),
    ("5.1.2-c", "Only images of chosen types, as needed.", collection_clauses.chosen_types),
    ("5.1.2-d", "Channel, source, range and type are recorded.", collection_clauses.recorded),
    ("5.1.2-e", "Nothing that identifies leaks during collection.", collection_clauses.no_identity),
    ("5.1.3", "Data is classified by attribute (Table 1).", collection_clauses.classified),
    ("5.2", "De-identification by utility and confidentiality (Table 2).", graded),
    ("5.3.1", "Protection of transmission differs by need.", transport_clauses.differs_by_need),
    ("5.3.2-a", "A data-use agreement before transmission.", transport_clauses.agreed),
    ("5.3.2-b", "Encryption, signatures, authentication by class and level.", transport_clauses.encrypted),
    ("5.3.2-c", "Rules for interfaces within and between domains.", transport_clauses.interfaces),
    ("5.4.1", "Control of storage.", storage_clauses.storage_controlled),
    ("5.4.2-a", "A policy for media and logical storage.", storage_clauses.storage_policy),
    ("5.4.2-b", "Integrity by cryptographic means.", storage_clauses.integrity),
    ("5.4.2-c", "Backup and recovery, regular and verified.", storage_clauses.backed_up),
    ("5.4.2-d", "Control of access by role, by attribute, and anew each time.", access_clauses.by_role_and_attribute),
    ("5.5", "Five levels.", collection_clauses.levels),
    ("5.6.2-a", "A review of each request for access.", access_clauses.reviewed),
    ("5.6.2-b", "Stated range, rights, limits and protections of use.", use_clauses.limits_of_use),
    ("5.6.2-c", "Authentication and rights by role, the least that are needed.", access_clauses.least_rights),
    ("5.6.2-d", "The use of data is audited.", use_clauses.audited),
    ("5.7-a", "Archive: policies by class, level and stage.", storage_clauses.archive_policy),
    ("5.7-b", "Archive: procedures by life cycle.", storage_clauses.archive_procedure),
    ("5.7-c", "Archive: no access for the unauthorised.", storage_clauses.archive_closed),
    ("5.7-d", "Archive: compressed or encrypted.", storage_clauses.archive_sealed),
    *destruction_clauses.CLAUSES,
    ("A.1.1", "Patient data for doctors: default, informed, authorised.", access_clauses.granularity_of_doctors),
    ("A.1.2", "Roles by department, title and treatment group.", access_clauses.roles_of_doctors),
    (
        "A.1.3",
        "Doctors see patients in their charge; special and infectious diseases.",
        access_clauses.charge_of_doctors,
    ),
    ("A.2.1", "Patients' own queries: identity, and limits on what is shown.", access_clauses.own_queries),
    ("A.2.2", "Rights to save, copy, print, download, with a notice.", access_clauses.own_copies),
    ("A.2.3", "What is sent to persons stays confidential and whole.", access_clauses.own_channel),
)
"""Each clause, what it asks in a few words, and how it is judged."""
