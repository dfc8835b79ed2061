"""A run as it is at this moment, from the files that its parties keep: what a page shows, and what is counted for machines.

Only what the server may know is told, and how far the sites are where their folders lie beside it: no path, no subject, no
payload.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Literal, final

from fedprivseg.core.accounts import OK
from fedprivseg.core.documents import read_document
from fedprivseg.core.errors import FedprivsegError, FolderError
from fedprivseg.core.lock import worker
from fedprivseg.core.model import Frozen
from fedprivseg.core.progress import Step, read_progress
from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.study.watch.tally import Tally

OFTEN_S = 1.0
"""The files are read at most so often, in seconds, however many watch."""

State = Literal["not begun", "running", "stopped", "finished"]


class Doing(Frozen):
    """How far a party is. total: 0 where nobody knows."""

    stage: str
    done: int
    total: int


class StageNow(Frozen):
    """A stage that has ended, and how long it took."""

    name: str
    seconds: float


class SiteNow(Frozen):
    """One site.

    Attributes:
        name, title: what it is called.
        status: ``ok``, or why it left the run.
        doing: None where its folder is elsewhere, or it has not begun.
        sent, received: bytes of payloads.
        seconds: by its own clock.
        orders, errors: that it answered, and with which it answered.
        blocked: rule -> payloads that its gate kept.
        ledger_lines, ledger_head: of its own ledger, by the last checkpoint that it showed.
        heard: UTC, ISO 8601, of its last answer; empty before the first.
    """

    name: str
    title: str
    status: str
    doing: Doing | None
    sent: int
    received: int
    seconds: float
    orders: int
    errors: int
    blocked: dict[str, int]
    ledger_lines: int
    ledger_head: str
    heard: str


class BlockedNow(Frozen):
    """A payload that a site's gate kept; see `tally.Blocked`."""

    time: str
    site: str
    action: str
    rule: str


class RunNow(Frozen):
    """A run.

    Attributes:
        state: of the run.
        name, question, method, variant, engine: of its scenario.
        begun, last: UTC, ISO 8601, of the first and the last line of the server's ledger; empty before.
        doing: how far the server is.
        stages: that have ended, in order.
        sites: in the scenario's order.
        blocked: the latest payloads that were blocked, newest first.
        ledger_lines, ledger_head: of the server's ledger.
        fault: what could not be read, empty for nothing.
    """

    state: State
    name: str = ""
    question: str = ""
    method: str = ""
    variant: str = ""
    engine: str = ""
    begun: str = ""
    last: str = ""
    doing: Doing | None = None
    stages: tuple[StageNow, ...] = ()
    sites: tuple[SiteNow, ...] = ()
    blocked: tuple[BlockedNow, ...] = ()
    ledger_lines: int = 0
    ledger_head: str = ""
    fault: str = ""


def run_folder(folder: Path) -> Path:
    """The folder of the run in `folder`: of a run, or of a deployment's operator, where a run may not have begun yet. Raises
    FolderError if it is neither."""
    for place in (folder, folder / "run", folder / "server" / "run"):
        if RunFolder(place).scenario.exists():
            return place
    for kit in (folder, folder / "server"):
        if (kit / "deployment.json").exists():
            return kit / "run"
    raise FolderError(
        f"{folder} holds neither a run (no scenario.json) nor a deployment (no deployment.json); give the folder of one"
    )


@final
class Watcher:
    """Looks at the run in the folder `run`, from any number of threads."""

    def __init__(self, run: Path) -> None:
        self._run = RunFolder(run)
        self._tally = Tally(self._run.server.ledger)
        self._lock = threading.Lock()
        self._seen: RunNow | None = None
        self._next = 0.0

    def now(self) -> RunNow:
        """The run as it is, or was less than `OFTEN_S` ago."""
        with self._lock:
            if self._seen is None or time.monotonic() >= self._next:
                self._seen = self._look()
                self._next = time.monotonic() + OFTEN_S
            return self._seen

    def _look(self) -> RunNow:
        if not self._run.scenario.exists():
            return RunNow(state="not begun")
        state: State = "finished" if self._run.result.exists() else "running" if worker(self._run.path) else "stopped"
        try:
            self._tally.update()
            return self._content(state)
        except (FedprivsegError, OSError) as fault:
            return RunNow(state=state, fault=str(fault) if isinstance(fault, FedprivsegError) else type(fault).__name__)

    def _content(self, state: State) -> RunNow:
        scenario, tally = read_scenario(self._run.path), self._tally
        accounts = self._accounts()
        return RunNow(
            state=state,
            name=scenario.name,
            question=scenario.question,
            method=scenario.method.name,
            variant=scenario.method.variant,
            engine=scenario.engine,
            begun=tally.first,
            last=tally.last,
            doing=_doing(self._run.server.progress),
            stages=tuple(StageNow(name=name, seconds=seconds) for name, seconds in accounts["stages"].items()),
            sites=tuple(self._site(site.name, site.title, accounts["sites"]) for site in scenario.sites),
            blocked=tuple(BlockedNow(**vars(each)) for each in reversed(tally.blocked)),
            ledger_lines=tally.lines,
            ledger_head=tally.head,
            fault=tally.fault,
        )

    def _accounts(self) -> dict[str, Any]:
        path = self._run.server.accounts
        return read_document(path) if path.exists() else {"stages": {}, "sites": {}}

    def _site(self, name: str, title: str, accounts: dict[str, Any]) -> SiteNow:
        told = self._tally.sites.get(name)
        sent, received = self._tally.receipts.size(name)
        return SiteNow(
            name=name,
            title=title,
            status=str(accounts.get(name, {}).get("status", OK)),
            doing=_doing(self._run.site(name).progress),
            sent=sent,
            received=received,
            seconds=told.seconds if told else 0.0,
            orders=told.orders if told else 0,
            errors=told.errors if told else 0,
            blocked=dict(told.blocked) if told else {},
            ledger_lines=told.ledger_lines if told else 0,
            ledger_head=told.ledger_head if told else "",
            heard=told.heard if told else "",
        )


def _doing(path: Path) -> Doing | None:
    step: Step | None = read_progress(path)
    return None if step is None else Doing(stage=str(step.stage), done=int(step.done), total=int(step.total))
