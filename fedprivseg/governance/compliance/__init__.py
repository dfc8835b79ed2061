"""Which clauses of a standard a run kept, on what evidence, and what would fix those that it broke.

A clause counts as kept only if code prevented the breach (a rule of the gate that every payload passed) or a signed record
proves the act (a line of a ledger that verifies). What only people can do stands as outside of software. No legal advice.

To judge a clause more: an entry in the standard's file and a function. To judge another standard: its file, its checks, and a
line in `STANDARDS`.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import AliasChoices, Field, TypeAdapter, ValidationError

from fedprivseg.core.documents import damaged, read_json
from fedprivseg.core.files import write_text
from fedprivseg.core.model import Frozen
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.compliance import (
    access_clauses,
    collection_clauses,
    destruction_clauses,
    storage_clauses,
    transport_clauses,
    use_clauses,
)
from fedprivseg.governance.compliance.evidence import Evidence
from fedprivseg.governance.compliance.standard import read_standard
from fedprivseg.governance.compliance.verdict import State, broken

CHECKS = (access_clauses, collection_clauses, destruction_clauses, storage_clauses, transport_clauses, use_clauses)

SCGS = read_standard("scgs_313008_2024", CHECKS)

STANDARDS = (SCGS,)
"""The standards that a run is judged by: a title, and clauses with their checks."""

_COMPARE = "Keep the files as evidence and compare them with a backup: fedprivseg ledger verify."


class Finding(Frozen):
    """How one clause was judged.

    Attributes:
        standard: its title.
        clause: its number.
        asks: what it asks, in a few words.
        state: what it came to.
        why: in sentences.
        evidence: where to look: ledger lines as ``site:index``, and files of the run.
        fix: what would help, for a clause that is broken.
    """

    standard: str = "T/SCGS 313008-2024"
    clause: str
    asks: str
    state: State
    why: str
    evidence: tuple[str, ...] = ()
    fix: str = Field(default="", validation_alias=AliasChoices("fix", "mend"))


def judge(run: Path) -> tuple[Finding, ...]:
    """Every clause of every standard, in its order. While a ledger does not verify, or is not what the other side was shown,
    no clause is kept: what did not happen is not known. Raises FolderError if `run` is no run."""
    evidence = Evidence(run)
    found = []
    for title, clauses in STANDARDS:
        for clause, check in clauses:
            verdict = check(evidence)
            if evidence.ledger_faults and verdict.state in ("kept", "not applicable"):
                verdict = broken(f"The ledgers prove nothing: {' '.join(evidence.ledger_faults)}", (), _COMPARE)
            found.append(
                Finding(
                    standard=title,
                    clause=clause.id,
                    asks=clause.asks,
                    state=verdict.state,
                    why=verdict.why,
                    evidence=tuple(verdict.evidence[:6]),
                    fix=verdict.fix,
                )
            )
    return tuple(found)


def assess(run: Path) -> tuple[Finding, ...]:
    """`judge`, written to ``compliance.json`` in the run's folder."""
    found = judge(run)
    content = json.dumps([each.model_dump() for each in found], indent=1, ensure_ascii=False)
    write_text(RunFolder(run).compliance, content)
    return found


def read_compliance(run: Path) -> tuple[Finding, ...]:
    """What `assess` wrote; nothing if it was not called. Raises FolderError if it is damaged."""
    path = RunFolder(run).compliance
    if not path.exists():
        return ()
    remedy = "Delete it and assess the run again"
    try:
        return TypeAdapter(tuple[Finding, ...]).validate_python(read_json(path, remedy))
    except ValidationError:
        raise damaged(path, "was changed: it is no record of clauses", remedy) from None
