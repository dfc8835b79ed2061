"""A run's folder as clauses are judged on it: what each site has on file, and what its ledger says if it verifies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fedprivseg.core.errors import FedprivsegError, LedgerError, RequestError
from fedprivseg.core.kinds import find_kind
from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.checkpoints import SERVER, equivocations
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle.destruction.proof import Proof, prove
from fedprivseg.governance.lifecycle.expiry import review
from fedprivseg.governance.lifecycle.withdrawal import read_withdrawals, traces
from fedprivseg.governance.policy.agreement import Agreement, read_agreement
from fedprivseg.governance.policy.profile import SitePolicy, read_policy
from fedprivseg.governance.sitefolder.audit import known_keys


@dataclass(frozen=True)
class SiteEvidence:
    """What one site of a run has on file.

    Attributes:
        policy: None if there is none that can be read; so is the agreement.
        lines: of its ledger; none if it does not verify.
        fault: why its ledger does not verify, empty if it does.
    """

    folder: SiteFolder
    policy: SitePolicy | None = None
    agreement: Agreement | None = None
    lines: tuple[Line, ...] = ()
    fault: str = ""

    @property
    def name(self) -> str:
        """The site's name."""
        return self.folder.name

    def of(self, event: str) -> list[Line]:
        """The lines of one event."""
        return [line for line in self.lines if line.event == event]

    def last(self, event: str, what: str) -> Line | None:
        """The last line of `event` whose fact ``what`` is this."""
        return next((line for line in reversed(self.of(event)) if line.facts.get("what") == what), None)

    def at(self, line: Line) -> str:
        """Where a line of the site's ledger stands, as findings name it."""
        return f"{self.name}:{line.index}"


class Evidence:
    """A run's folder, read once for all clauses. Sites are sorted by name. It decrypts no array of any site."""

    def __init__(self, run: Path) -> None:
        self.run = RunFolder(run)
        self._keys: Mapping[str, str] = {}
        self._unknown = ""
        names = sorted(site.name for site in read_scenario(run).sites)
        try:
            self._keys = known_keys(run)
        except LedgerError as fault:
            self._unknown = str(fault)
        self.sites = [self._site(self.run.site(name)) for name in names]

    def _site(self, folder: SiteFolder) -> SiteEvidence:
        policy, agreement, fault = None, None, ""
        lines: tuple[Line, ...] = ()
        try:
            policy = read_policy(folder.policy)
        except RequestError:
            policy = None  # clauses that ask for one are broken, and say so
        try:
            agreement = read_agreement(folder.agreement)
        except RequestError:
            agreement = None
        try:
            ledger.verify(folder.ledger, public_hex=self._keys.get(folder.name))
            lines = tuple(ledger.read(folder.ledger))
        except (LedgerError, OSError) as error:
            fault = str(error)
        return SiteEvidence(folder, policy, agreement, lines, fault)

    @cached_property
    def ledger_faults(self) -> list[str]:
        """Why the ledgers prove nothing: which does not verify, or is not what the other side was shown of it."""
        if faults := [f"{site.name}: {site.fault}" for site in self.sites if site.fault]:
            return faults
        if self._unknown:
            return [f"{self._unknown}."]
        path, server = self.run.server.ledger, []
        try:
            if path.exists():
                ledger.verify(path, public_hex=self._keys.get(SERVER))
                server = ledger.read(path)
        except LedgerError as error:
            return [f"{SERVER}: {error}"]
        return [f"{each}." for each in equivocations(server, {site.name: site.lines for site in self.sites})]

    def lines(self, event: str) -> list[tuple[SiteEvidence, Line]]:
        """Every site's lines of one event."""
        return [(site, line) for site in self.sites for line in site.of(event)]

    def where(self, event: str) -> list[str]:
        """Where these lines stand."""
        return [site.at(line) for site, line in self.lines(event)]

    @property
    def without_policy(self) -> list[str]:
        """The sites that have no policy that can be read."""
        return [site.name for site in self.sites if site.policy is None]

    @property
    def policies(self) -> list[str]:
        """The files of policies that can be read."""
        return [self.relative(site.folder.policy) for site in self.sites if site.policy is not None]

    def relative(self, path: Path) -> str:
        """A path in the run's folder, as findings name it."""
        return path.relative_to(self.run.path).as_posix()

    @cached_property
    def left_traces(self) -> list[str]:
        """What is still there of subjects who withdrew. The ledgers say who did; without the run's own record of what was
        deleted nobody can tell whether it is gone."""
        done = read_withdrawals(self.run.path)
        recorded = {(each.site, each.pseudonym) for each in done}
        lost = [
            f"what was deleted on the withdrawal of {site.at(line)} is recorded nowhere in the run"
            for site, line in self.lines("withdrawal")
            if (site.name, line.facts.get("subject")) not in recorded
        ]
        return [*lost, *(trace for each in done for trace in traces(self.run.path, each))]

    @cached_property
    def destructions(self) -> list[tuple[SiteEvidence, Proof]]:
        """Every destruction that was begun or done. A site whose ledger does not verify proves nothing."""
        return [
            (site, proof)
            for site in self.sites
            if site.lines
            for proof in prove(self.run.path, site.name, str(site.lines[0].facts["public_key"]), site.lines)
        ]

    @cached_property
    def overdue(self) -> list[str]:
        """What sites keep beyond its term, in sentences."""
        return list(self._overdue())

    def _overdue(self) -> Iterator[str]:
        for site in self.sites:
            if site.policy is None or not site.lines:
                continue
            try:
                found = review(self.run.path, site.name, site.lines)
            except (FedprivsegError, OSError):
                yield f"{site.name} cannot tell what it holds"
                continue
            yield from (f"{site.name}: {duty.name} was due on {duty.day}" for duty in found.due)


def is_raw(line: Line) -> bool:
    """Whether a line is about images or masks as they are."""
    kind = find_kind(line.facts.get("kind"))
    return kind is not None and kind.raw


def level_of(line: Line) -> int:
    """The level that a line states; 0 if it states none."""
    return int(str(line.facts.get("level", 0)))
