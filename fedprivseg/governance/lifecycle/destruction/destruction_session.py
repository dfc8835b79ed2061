"""One site of a run as whoever destroys finds it: its folder, key, staff, a ledger that verifies, and all that is to go."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import final

from pydantic import ValidationError

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import overwrite
from fedprivseg.core.method_card import MethodCard
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import digest
from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.crypto.key_store import KeyFile
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.access.roles import Title
from fedprivseg.governance.access.staff import read_staff
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle import inventory
from fedprivseg.governance.lifecycle.destruction.execute import Means
from fedprivseg.governance.lifecycle.destruction.order import Copy, Method, Order
from fedprivseg.governance.lifecycle.expiry import sensitivity
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.history import CARRIED_OUT, DESTRUCTION
from fedprivseg.governance.sitefolder.vault import PASSPHRASE, sealing_key

ORDERED, APPROVED, DONE = "ordered", "approved", CARRIED_OUT
"""What the lines of a destruction say, as their fact ``what``."""

ORDERS = (Title.DATA_MANAGER,)
APPROVES = (Title.DATA_MANAGER, Title.CHIEF)
"""In which role somebody orders, and in which roles somebody else approves (5.8-b)."""

_VAULT = "vault"
"""The name of the vault's key in an order."""


@final
@dataclass(frozen=True)
class DestructionSession:
    """One site of a run, as whoever destroys finds it.

    Attributes:
        titles: of its staff, by id.
        lines: of its ledger, which verifies.
    """

    run: RunFolder
    folder: SiteFolder
    scenario: Scenario
    configuration: SiteConfiguration
    key: SiteKey
    titles: dict[str, Title]
    lines: tuple[Line, ...]

    @property
    def site(self) -> str:
        """The site's name."""
        return self.folder.name

    @property
    def now(self) -> datetime:
        """The time on the site's day: the simulated one, if there is one."""
        now, day = datetime.now(UTC), self.configuration.today
        return now if day is None else datetime.combine(day, now.time(), UTC)

    def path(self, name: str, what: str) -> Path:
        """A record of the destruction `name`: its ``order``, ``begun`` or ``certificate``."""
        return self.folder.path / f"{name}.{what}.json"

    def holders(self, titles: Collection[Title]) -> frozenset[str]:
        """The members of staff with one of these titles."""
        return frozenset(name for name, title in self.titles.items() if title in titles)

    def said(self, what: str, **facts: Fact) -> list[Line]:
        """The ledger's lines of a destruction that say `what`, with these facts."""
        wanted = {"what": what, **facts}.items()
        return [line for line in self.lines if line.event == DESTRUCTION and wanted <= dict(line.facts).items()]

    def write(self, facts: dict[str, Fact]) -> Line:
        """Append a line to the site's ledger."""
        return Ledger(self.folder.ledger, self.key, self.site).append(DESTRUCTION, facts)

    def draw_up(self, by: str, reason: str, *, media: str = "", with_models: bool = False) -> Order:
        """The order for everything that is there now; see `approval.order`. Raises RequestError if it cannot be given so."""
        key, server = self._sealing_key, self.run.server
        copies = [_copy(each, key) for each in inventory.everything(self.folder)]
        if key is None:  # a site that encrypts keeps no images between runs
            cached = inventory.cached(self.configuration, self.scenario)
            copies += [Copy(path=each, form="plain") for each in cached]
        copies += [Copy(path=each, form="list") for each in inventory.lists(self.folder)]
        models = ModelStore(server.path).paths()
        served = [
            *server.shards(self.site),
            *inventory.metrics(server, self.site),
            *inventory.shown(self.run),
            *(models if with_models else ()),
        ]
        data_class, level = sensitivity(self.lines)
        try:
            return Order(
                id=f"{DESTRUCTION}-{1 + len(self.said(ORDERED))}",
                object=f"what {self.site} holds of its subjects for the study {self.scenario.name}",
                data_class=data_class,
                level=level,
                method=Method.OVERWRITING if key is None else Method.ERASE,
                copies=tuple(copies),
                keys=() if key is None else (_VAULT,),
                shards=tuple(sorted({digest(each.read_bytes()) for each in served})),
                derived=() if with_models else tuple(self._derived(models)),
                elsewhere=tuple(
                    f"a copy that line {line.index} of the site's ledger names ({line.event})"
                    for line in self.lines
                    if line.event in ("archive", "backup")
                ),
                media=media,
                reason=reason,
                requested_by=by,
            )
        except ValidationError as fault:
            said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in fault.errors())
            raise RequestError(f"the order cannot be given: {said}") from None

    def means(self, stated: Order) -> Means:
        """What an order is executed with: the site's key file, the server's deletion, and a search for what is left."""

        def search(digests: Collection[str]) -> Sequence[str]:
            stay = {one for one in digests if any(one in line for line in stated.derived)}
            return list(inventory.holding(self.run, inventory.within_reach(self.run, self.site), set(digests) - stay))

        return Means(
            site=self.site,
            key=self.key,
            records=self.folder.path,
            approvers=self.holders(APPROVES),
            key_file=KeyFile(self.folder.sealing_key, _VAULT, os.environ.get(PASSPHRASE)) if stated.keys else None,
            delete_shards=self._delete_at_server,
            search=search,
        )

    @cached_property
    def _sealing_key(self) -> SealingKey | None:
        return sealing_key(self.folder.path) if self.folder.sealing_key.exists() else None

    def _derived(self, models: Sequence[Path]) -> list[str]:
        """The derived artefacts of the site's data that stay."""
        found = [f"{path.relative_to(self.run.path)}, SHA-256 {digest(path.read_bytes())}" for path in models]
        if not MethodCard.read(self.run.path).coded:
            # A network that was averaged over sites carries every site's data to all of them.
            others = sorted(each.name for each in self.scenario.sites if each.name != self.site)
            found += [f"what {name} learned from the average of the sites" for name in others]
        return found

    def _delete_at_server(self, digests: tuple[str, ...]) -> Collection[str]:
        """What a server does that is asked to delete: it looks for the bytes, not for names. What it no longer has."""
        server, asked = self.run.server, set(digests)
        inventory.forget_notes(server, self.site)
        for path in self._at_server():
            if digest(path.read_bytes()) in asked:
                with path.open("r+b") as file:
                    overwrite(file.fileno())
                path.unlink()
        for path in server.shards(self.site):  # all are asked for; what is left of one was overwritten before a kill
            path.unlink()
        return asked - {digest(path.read_bytes()) for path in self._at_server()}

    def _at_server(self) -> list[Path]:
        served = [path for path in sorted(self.run.server.path.rglob("*")) if path.is_file()]
        return [*served, *inventory.shown(self.run)]


def open_session(run: Path, site: str) -> DestructionSession:
    """The site `site` of the run in the folder `run`. Raises FolderError if there is no run, RequestError if there is no such
    site or its staff cannot be read, LedgerError if its ledger does not verify."""
    root = RunFolder(run.resolve())
    folder = root.site_named(site)
    if not folder.key.exists():
        raise RequestError(f"{site} has not taken part in this run yet: it has no key, and holds nothing")
    key = SiteKey.load(folder.key)
    Ledger(folder.ledger, key, site)  # resumes a ledger whose writer was killed, or begins it
    ledger.verify(folder.ledger, public_hex=key.public_hex)
    return DestructionSession(
        run=root,
        folder=folder,
        scenario=read_scenario(run),
        configuration=SiteConfiguration.read(folder.configuration),
        key=key,
        titles={name: one.title for name, one in read_staff(folder.staff).items()},
        lines=tuple(ledger.read(folder.ledger)),
    )


def _copy(path: Path, key: SealingKey | None) -> Copy:
    """A file that holds images or derived artefacts: encrypted under the site's key, or in plaintext."""
    name = path.name
    if name.startswith(".") and name.endswith(".draft"):
        name = name[1:].rsplit(".", 2)[0]  # what a killed writer left: a draft of the file of that name
    with path.open("rb") as file:
        start = file.read(1 << 10)
    if key is not None and key.opens(name, start):
        return Copy(path=path, name=name)
    return Copy(path=path, form="plain")
