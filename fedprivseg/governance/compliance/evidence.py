"""A run's folder as the clauses are judged on it: what each site has on file, and what its ledger tells if it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from fedprivseg.core.errors import LedgerError, RequestError
from fedprivseg.core.kinds import find_kind
from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.governance.compliance.destruction_clauses import Destructions
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.checkpoints import SERVER, equivocations
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle.withdrawal import read_withdrawals, traces
from fedprivseg.governance.policy.agreement import Agreement, read_agreement
from fedprivseg.governance.policy.profile import SitePolicy, read_policy
from fedprivseg.governance.sitefolder.audit import known_keys
from fedprivseg.governance.sitefolder.vault import POLICY

State = Literal["kept", "broken", "not applicable", "outside software"]
Verdict = tuple[State, str, list[str], str]
"""(state, why, evidence, what would mend it)."""


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
        self._keys: Mapping[str, str] = {}
        self._unknown = ""
        try:
            self._keys = known_keys(run)
        except LedgerError as fault:
            self._unknown = str(fault)
        self.sites = [self._papers(site.name) for site in sorted(self.scenario.sites, key=lambda each: each.name)]

    def _papers(self, name: str) -> Papers:
        home = self.run / "sites" / name
        policy, agreement, fault = None, None, ""
        lines: tuple[Line, ...] = ()
        try:
            policy = read_policy(home / POLICY)
        except RequestError:
            policy = None  # a site without a policy: clauses that ask for one are broken, and say so
        try:
            agreement = read_agreement(SiteFolder(home).agreement)
        except RequestError:
            agreement = None
        try:
            ledger.verify(home / "ledger.jsonl", public_hex=self._keys.get(name))
            lines = tuple(ledger.read(home / "ledger.jsonl"))
        except (LedgerError, OSError) as error:
            fault = str(error)
        return Papers(name, home, policy, agreement, lines, fault)

    @cached_property
    def doubts(self) -> list[str]:
        """Why the ledgers prove nothing: which does not hold by itself, or is not what the other side was shown (5.6.2-d)."""
        if faults := [f"{site.name}: {site.fault}" for site in self.sites if site.fault]:
            return faults
        if self._unknown:
            return [f"{self._unknown}."]
        path, server = self.run / SERVER / "ledger.jsonl", []
        try:
            if path.exists():
                ledger.verify(path, public_hex=self._keys.get(SERVER))
                server = ledger.read(path)
        except LedgerError as error:
            return [f"{SERVER}: {error}"]
        return [f"{each}." for each in equivocations(server, {site.name: site.lines for site in self.sites})]

    def lines(self, event: str) -> list[tuple[Papers, Line]]:
        """Every site's lines of one event."""
        return [(site, line) for site in self.sites for line in site.of(event)]

    @cached_property
    def released_raw(self) -> list[str]:
        """Where raw data left."""
        return [at(site, line) for site, line in self.lines("release") if is_raw(line)]

    @cached_property
    def left_traces(self) -> list[str]:
        """What is still there of subjects who withdrew. The ledgers say who did; without the run's own record of what was
        deleted nobody can tell whether it is gone."""
        carried_out = read_withdrawals(self.run)
        recorded = {(each.site, each.pseudonym) for each in carried_out}
        lost = [
            f"what was deleted on the withdrawal of {at(site, line)} is recorded nowhere in the run"
            for site, line in self.lines("withdrawal")
            if (site.name, line.facts.get("subject")) not in recorded
        ]
        return [*lost, *(trace for each in carried_out for trace in traces(self.run, each))]

    @cached_property
    def destructions(self) -> Destructions:
        """What is told of destructions."""
        return Destructions(self)


def is_raw(line: Line) -> bool:
    """Whether a line tells of images or masks as they are."""
    kind = find_kind(line.facts.get("kind"))
    return kind is not None and kind.raw


def at(site: Papers, line: Line) -> str:
    """Where a line stands, as findings name it."""
    return f"{site.name}:{line.index}"
