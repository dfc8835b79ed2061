"""One site of a run in the hands of who destroys what it holds: its folder, key, staff, and a ledger that verifies (5.8-b)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import RequestError
from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.access.roles import Staff, Title
from fedprivseg.governance.access.staff import STAFF, read_staff
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.history import CARRIED_OUT

ORDERED, APPROVED, DONE = "ordered", "approved", CARRIED_OUT
"""What the lines of a destruction say, as their fact ``what``."""

ORDERS = (Title.DATA_MANAGER,)
APPROVES = (Title.DATA_MANAGER, Title.CHIEF)
"""In which role somebody orders, and in which roles somebody else approves (5.8-b)."""


@dataclass(frozen=True)
class DestructionSession:
    """One site of a run, as who destroys finds it. lines: of its ledger, which verifies."""

    run: Path
    site: str
    home: Path
    scenario: Scenario
    station: SiteConfiguration
    key: SiteKey
    staff: dict[str, Staff]
    lines: tuple[Line, ...]

    @property
    def now(self) -> datetime:
        """The time on the site's day: the simulated one, if there is one."""
        now = datetime.now(UTC)
        return now if self.station.today is None else datetime.combine(self.station.today, now.time(), UTC)

    def path(self, name: str, what: str) -> Path:
        """A record of the destruction `name`: its ``order``, ``begun`` or ``certificate``."""
        return self.home / f"{name}.{what}.json"

    def said(self, what: str, **facts: Fact) -> list[Line]:
        """The ledger's lines of a destruction that say `what`, with these facts."""
        wanted = {"what": what, **facts}.items()
        return [line for line in self.lines if line.event == "destruction" and wanted <= dict(line.facts).items()]

    def write(self, facts: dict[str, Fact]) -> Line:
        """Append a line to the site's ledger."""
        return Ledger(self.home / "ledger.jsonl", self.key, self.site).append("destruction", facts)


def open_session(run: Path, site: str) -> DestructionSession:
    """The site `site` of the run in the folder `run`. Raises FolderError if there is no run, RequestError if there is no such
    site or its staff cannot be read, LedgerError if its ledger does not hold."""
    home = RunFolder(run.resolve()).site_named(site).path
    scenario = read_scenario(run)
    if not (SiteFolder(home).key).exists():
        raise RequestError(f"{site} has not taken part in this run yet: it has no key, and holds nothing")
    key = SiteKey.load(SiteFolder(home).key)
    Ledger(home / "ledger.jsonl", key, site)  # takes up a ledger whose writer was killed, or begins it
    ledger.verify(home / "ledger.jsonl", public_hex=key.public_hex)
    station = SiteConfiguration.read(home / "station.json")
    staff = dict(read_staff(home / STAFF))
    lines = tuple(ledger.read(home / "ledger.jsonl"))
    return DestructionSession(run.resolve(), site, home, scenario, station, key, staff, lines)
