"""Who takes part in a run, and why the others do not: the sites' accounts, and the quorum."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

from fedprivseg.core.accounts import OK, Account, Accounts, left
from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import QuorumError, SiteError
from fedprivseg.governance.ledger.receipts import Receipts
from fedprivseg.runtime.wire import printable

MOST_STATUS = 600
"""Characters of what an account says of why a site left."""


@final
class Participants:
    """The sites of a scenario, as an earlier attempt in `folder` left them.

    Args:
        scenario: names the sites.
        folder: the server's.
        receipts: what the server's ledger tells of what came and went.

    Raises:
        FolderError: the accounts are gone or damaged.
    """

    def __init__(self, scenario: Scenario, folder: Path, receipts: Receipts) -> None:
        self.book = Accounts({site.name: Account() for site in scenario.sites})
        self.book.recall(folder, receipts)
        self._folder = folder

    @property
    def accounts(self) -> Mapping[str, Account]:
        """What each site cost and how it fared."""
        return self.book.sites

    @property
    def away(self) -> tuple[str, ...]:
        """Sites that failed and may come back, sorted."""
        return tuple(sorted(name for name, account in self.accounts.items() if account.failed))

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites still taking part, sorted."""
        return tuple(sorted(name for name, account in self.accounts.items() if account.status == OK))

    def exclude(self, site: str, action: str, fault: Exception) -> None:
        """What `site` answered to `action` is not to be believed, and so is nothing else of it."""
        self.leave(site, f"refused at the intake in {action!r}: {fault}")

    def fail(self, site: str, why: str) -> None:
        """`site` died or is silent; it is asked again when an unfinished run goes on."""
        self.leave(site, why)
        self.accounts[site].failed = True

    def readmit(self, site: str) -> None:
        """Let `site`, which had failed, take part again."""
        self.note(site, f"was away, and took part again: {self.accounts[site].status}")
        self.accounts[site].status, self.accounts[site].failed = OK, False

    def leave(self, site: str, why: str) -> None:
        """Let `site` take no part any more. All that a site says of itself and that is shown passes here."""
        self.accounts[site].status = printable(why, MOST_STATUS)

    def note(self, site: str, text: str) -> None:
        """Keep a remark on `site` for the result and the report; the same remark twice is one."""
        if text not in self.accounts[site].notes:
            self.accounts[site].notes.append(text)
            self.save()

    def enough(self, quorum: int) -> None:
        """Raises QuorumError if fewer sites than the `quorum` remain, SiteError if every single one failed."""
        if len(self.sites) >= quorum:
            return
        self.save()
        why = left(self.accounts)
        if all(account.failed for account in self.accounts.values()):
            raise SiteError(f"every site failed: {why}")
        failed = any(account.failed for account in self.accounts.values())
        then = (
            "asks those again that failed, and nobody who was blocked or refused"
            if failed
            else "asks none of them again"
        )
        raise QuorumError(
            f"{len(self.sites)} of {len(self.accounts)} sites remain, the quorum is {quorum}: "
            f"{why.rstrip('.')}. The same command {then}; another --out begins with all"
        )

    def save(self) -> None:
        """Write the accounts."""
        self.book.save(self._folder)
