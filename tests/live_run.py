"""A run's folder as it is while the run goes on, written by hand: the scenario, the server's ledger, accounts and progress."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import ROOT, tiny_settings

from fedprivseg.core.accounts import Account, Accounts
from fedprivseg.core.lock import LOCK
from fedprivseg.core.progress import ProgressFile
from fedprivseg.core.results import write_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.study.run import load_scenario
from fedprivseg.study.watch.serve import Watch, watch

HEAD = "a" * 64
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"


class LiveRun:
    """A run of three sites in `folder`, whose process is this one."""

    def __init__(self, folder: Path, titles: dict[str, str] | None = None) -> None:
        scenario = load_scenario(ROOT / "simulations" / "quickstart.toml", tiny_settings(Path("nowhere")))
        sites = tuple(
            site.model_copy(update={"title": (titles or {}).get(site.name, site.title)}) for site in scenario.sites
        )
        self.run, self.scenario = RunFolder(folder), scenario.model_copy(update={"sites": sites})
        self.accounts = Accounts({site.name: Account() for site in sites})
        self.run.server.path.mkdir(parents=True)
        write_scenario(folder, self.scenario)
        (folder / LOCK).write_text(str(os.getpid()))
        self.ledger = Ledger(self.run.server.ledger, SiteKey.create(self.run.server.key), "server")
        self.accounts.save(self.run.server.path)

    def receipt(self, site: str, action: str = "fit_encoders", number: int = 0, **facts) -> None:
        """A site answered an order."""
        self.ledger.append(
            "receipt", {"site": site, "action": action, "number": number, "checkpoint": [7, HEAD], **facts}
        )

    def blocked(self, site: str, rule: str, why: str) -> None:
        """A site's gate kept its answer, and the site left."""
        self.receipt(site, "send_image_codes", rule=rule)
        self.accounts.sites[site].status = why
        self.accounts.save(self.run.server.path)

    def ended(self, stage: str, seconds: float) -> None:
        """A stage of the server's ended."""
        self.accounts.stages[stage] = seconds
        self.accounts.save(self.run.server.path)

    def doing(self, stage: str, done: int, total: int, site: str = "") -> None:
        """How far the server is, or a site."""
        path = self.run.site(site).progress if site else self.run.server.progress
        path.parent.mkdir(parents=True, exist_ok=True)
        ProgressFile(path)(stage, done, total)

    def finish(self) -> None:
        """The run ended well."""
        self.run.result.write_text("{}")
        (self.run.path / LOCK).unlink()


@contextmanager
def serving(folder: Path) -> Iterator[Watch]:
    """The page of a run, served in a thread until the end of the block."""
    with watch(folder) as served:
        thread = threading.Thread(target=served.run)
        thread.start()
        try:
            while not served.server.started:
                time.sleep(0.01)
            yield served
        finally:
            served.server.should_exit = True
            thread.join(timeout=20)
        assert not thread.is_alive()
