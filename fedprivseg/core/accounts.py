"""What each site cost and how it fared: the server's ``accounts.json``, which outlives an interruption."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fedprivseg.core.documents import read_document, write_document

ACCOUNTS = "accounts.json"
"""In the server's folder."""

OK = "ok"
"""The status of a site that takes part; any other says why it left."""


class Receipts(Protocol):
    """What a server's ledger tells of what came and what it answered."""

    @property
    def orders(self) -> Collection[Any]:
        """The orders that sites answered."""

    def size(self, site: str) -> tuple[int, int]:
        """The bytes that came from the site, and those that went to it."""


@dataclass
class Account:
    """What one site cost and how it fared. Bytes are those of encoded payloads; seconds are the site's own clock.

    status: `OK`, or why the site left. failed: whether it left by an error of its own or by silence. Such a site is asked again
    when an unfinished run goes on; one that its policy blocked, or that was caught sending what it may not, is not. facts: the
    counts that it told of in the roll call.
    """

    status: str = OK
    failed: bool = False
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0
    peak_rss_mb: float = 0.0
    facts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Accounts:
    """The accounts of a run.

    Attributes:
        sites: by name.
        stages: seconds by stage.
        waited: those of them in which the server waited for sites.
        entries: what the method recorded, by its type and what it tells of.
    """

    sites: dict[str, Account]
    stages: dict[str, float] = field(default_factory=dict)
    waited: dict[str, float] = field(default_factory=dict)
    entries: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def kept(cls, folder: Path) -> Accounts:
        """Those in the server's `folder`. Raises FolderError if there are none, or they are damaged."""
        accounts = cls({})
        accounts._read(folder / ACCOUNTS)
        return accounts

    def save(self, folder: Path) -> None:
        """Write them into the server's `folder`, whole."""
        content = {
            "stages": self.stages,
            "waited": self.waited,
            "sites": {name: vars(account) for name, account in self.sites.items()},
            "entries": self.entries,
        }
        write_document(folder / ACCOUNTS, content)

    def recall(self, folder: Path, receipts: Receipts) -> None:
        """Go on with those of an interrupted attempt in `folder`, if there was one: what was sent then was sent, and a site
        that failed is asked again. They are saved after each order, so they may be missing in the midst of the first alone.
        Raises FolderError if they are gone or damaged."""
        path = folder / ACCOUNTS
        if path.exists() or len(receipts.orders) > 1:
            self._read(path)
        self.count(receipts)

    def count(self, receipts: Receipts, *sites: str) -> None:
        """Take the bytes of `sites` (none named: of all) from the receipts in the ledger, so that a kill loses none."""
        for name in sites or self.sites:
            self.sites[name].bytes_up, self.sites[name].bytes_down = receipts.size(name)

    def _read(self, path: Path) -> None:
        content = read_document(path)
        self.stages, self.entries = content["stages"], content["entries"]
        self.waited = content.get("waited", {})
        for name, values in content["sites"].items():
            self.sites[name] = _asked_again(Account(**values))


def begin_again(folder: Path) -> None:
    """Let every site take part again in a run whose models were deleted; what it cost stays counted. `folder`: the server's."""
    if not (folder / ACCOUNTS).exists():
        return
    accounts = Accounts.kept(folder)
    for account in accounts.sites.values():
        account.status, account.failed = OK, False
    accounts.save(folder)


def left(accounts: Mapping[str, Account]) -> str:
    """The sites that left and why, in words; empty if none did."""
    return "; ".join(
        f"site {name!r} {account.status}" for name, account in sorted(accounts.items()) if account.status != OK
    )


def _asked_again(account: Account) -> Account:
    if account.failed:
        account.status, account.failed = OK, False
    return account
