"""The destruction of what one site of a run holds of its subjects: ordered, approved by somebody else, carried out, proved.

T/SCGS 313008-2024 clauses 5.8-a to 5.8-f. What goes: the site's vault, by the destruction of its key or, if never sealed,
by overwriting; predictions; images kept on the network grid; lists of who took part; at the server the site's shards and
measures; pictures that the study shows. Models that were trained on the shards stay and are named, or go too. The site's key,
ledger, papers and register of consent stay, for they are the proof, and so do the study's numbers. The patients' images stay
in the hospital's own archive.

Every step is a line of the site's ledger, and counts only if it is: an order that was approved in an editor is refused. The
site's folder then holds ``destruction-<n>.order.json``, ``.begun.json`` and ``.certificate.json``.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from fedprivseg import inventory
from fedprivseg.config import Scenario
from fedprivseg.errors import RequestError
from fedprivseg.expiry import sensitivity
from fedprivseg.hospitals import KEY, home_of
from fedprivseg.offices import STAFF
from fedprivseg.policy import ledger
from fedprivseg.policy.destruction import destroy
from fedprivseg.policy.destruction_order import Copy, Means, Method, Order, refuse
from fedprivseg.policy.destruction_records import Certificate
from fedprivseg.policy.disk import overwrite, write_whole
from fedprivseg.policy.key_file import KeyFile
from fedprivseg.policy.keys import SiteKey
from fedprivseg.policy.ledger import Fact, Ledger, Line
from fedprivseg.policy.roles import Staff, Title
from fedprivseg.policy.sealing import SealingKey
from fedprivseg.policy.staff import read_staff
from fedprivseg.records import digest
from fedprivseg.site.rules import DESTRUCTION, disposed
from fedprivseg.site.station import Station
from fedprivseg.site.vault import PASSPHRASE, SEALING_KEY, sealing_key

ORDERED, APPROVED, DONE = "ordered", "approved", "carried out"
"""What the lines of a destruction say, as their fact ``what``."""

ORDERS = (Title.DATA_MANAGER,)
APPROVES = (Title.DATA_MANAGER, Title.CHIEF)
"""In which role somebody orders, and in which roles somebody else approves (5.8-b)."""

COPIES = ("archive", "backup")
"""Events of a ledger that tell of copies."""

_VAULT = "vault"


@dataclass(frozen=True)
class Custody:
    """One site of a run, as who destroys finds it. lines: of its ledger, which verifies."""

    run: Path
    site: str
    home: Path
    scenario: Scenario
    station: Station
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


def take_custody(run: Path, site: str) -> Custody:
    """The site `site` of the run in the folder `run`. Raises FolderError if there is no run, RequestError if there is no such
    site or its staff cannot be read, LedgerError if its ledger does not hold."""
    home = home_of(run.resolve(), site)
    scenario = Scenario.model_validate_json((run / "scenario.json").read_text(encoding="utf-8"))
    if not (home / "vault" / KEY).exists():
        raise RequestError(f"{site} has not taken part in this run yet: it has no key, and holds nothing")
    key = SiteKey.load(home / "vault" / KEY)
    Ledger(home / "ledger.jsonl", key, site)  # takes up a ledger whose writer was killed, or begins it
    ledger.verify(home / "ledger.jsonl", public_hex=key.public_hex)
    station = Station.read(home / "station.json")
    staff = dict(read_staff(home / STAFF))
    lines = tuple(ledger.read(home / "ledger.jsonl"))
    return Custody(run.resolve(), site, home, scenario, station, key, staff, lines)


def order(custody: Custody, by: str, reason: str, *, media: str = "", with_models: bool = False) -> Order:
    """Order the destruction of what the site holds, in the name of the member of staff `by`, and write it down. An earlier
    order that was not begun counts no more. media: who destroys the medium, and when, for what was never sealed. with_models:
    whether the server's models go too. Raises RequestError if `by` may not, or the order breaks a rule."""
    _may(custody, by, ORDERS, "order a destruction")
    if disposed(custody.home):
        raise RequestError(
            f"the destruction of what {custody.site} holds was begun or is done; carry it out, or see what is left: "
            "fedprivseg destroy verify"
        )
    stated = _drawn_up(custody, by, reason, media, with_models)
    refuse(stated, _means(custody, stated), custody.now.date(), approval=False)
    write_whole(custody.path(stated.id, "order"), [stated.model_dump_json(indent=1).encode()])
    custody.write(
        {
            "by": by,
            "clause": "5.8-b",
            "class": stated.data_class.value,
            "id": stated.id,
            "level": stated.level,
            "method": stated.method.value,
            "order": stated.digest,
            "reason": reason,
            "what": ORDERED,
        }
    )
    return stated


def approve(custody: Custody, by: str) -> Order:
    """Approve the last order in the name of `by`, who is somebody else than who gave it. Raises RequestError if there is none,
    if it was changed since it was given, or if `by` may not."""
    stated = unapproved(pending(custody))
    _may(custody, by, APPROVES, "approve a destruction")
    if custody.said(APPROVED, id=stated.id):
        raise RequestError(f"{stated.id} is approved already; carry it out: fedprivseg destroy carry-out")
    approved = stated.approve(by, custody.now.date())
    refuse(approved, _means(custody, approved), custody.now.date())
    write_whole(custody.path(stated.id, "order"), [approved.model_dump_json(indent=1).encode()])
    custody.write(
        {
            "by": by,
            "clause": "5.8-b",
            "id": stated.id,
            "order": approved.digest,
            "ordered": stated.digest,
            "what": APPROVED,
        }
    )
    return approved


def carry_out(custody: Custody) -> Certificate:
    """Carry the last order out, if somebody else approved it, and write the certificate. After an interruption it goes on; when
    all is done it returns the certificate of that time. Raises RequestError if nothing was destroyed, DestructionError that
    says what is left."""
    stated = pending(custody)
    if not custody.said(APPROVED, id=stated.id, order=stated.digest):
        raise RequestError(
            f"{stated.id} is not approved: the site's ledger has no line that says so. Nothing was destroyed. "
            "Somebody else than who ordered it approves it: fedprivseg destroy approve"
        )
    certificate = destroy(stated, _means(custody, stated), custody.now)
    inventory.forget_notes(custody.run, custody.site)
    facts: dict[str, Fact] = {**certificate.facts, "id": stated.id, "what": DONE}
    if not custody.said(DONE, certificate=facts["certificate"]):
        custody.write(facts)
    return certificate


def pending(custody: Custody) -> Order:
    """The last order as it was written down. Raises RequestError if there is none, or it was changed."""
    ordered = custody.said(ORDERED)
    if not ordered:
        raise RequestError(f"nothing was ordered at {custody.site}; order it first: fedprivseg destroy order")
    facts = ordered[-1].facts
    try:
        stated = Order.model_validate_json(custody.path(str(facts["id"]), "order").read_bytes())
    except (OSError, ValidationError) as fault:
        raise RequestError(f"the order {facts['id']} cannot be read ({type(fault).__name__}); order anew") from None
    if unapproved(stated).digest != facts["order"]:
        raise RequestError(
            f"the order {facts['id']} is not what the site's ledger says was ordered: it was changed. Order anew"
        )
    return stated


def unapproved(stated: Order) -> Order:
    """The same order as it was before anybody approved it."""
    return stated.model_copy(update={"approved_by": "", "approved_on": None})


def _may(custody: Custody, by: str, titles: Collection[Title], act: str) -> None:
    allowed = sorted(name for name, one in custody.staff.items() if one.title in titles)
    if by not in allowed:
        raise RequestError(f"{by!r} may not {act} at {custody.site}; who may: {', '.join(allowed) or 'nobody'}")


def _drawn_up(custody: Custody, by: str, reason: str, media: str, with_models: bool) -> Order:
    """The order for everything that is there now."""
    key = sealing_key(custody.home) if (custody.home / SEALING_KEY).exists() else None
    copies = [_copy(each, key) for each in inventory.everything(custody.home)]
    if key is None:  # a sealed site keeps no images between runs
        copies += [Copy(path=each, form="plain") for each in inventory.cached(custody.station, custody.scenario)]
    copies += [Copy(path=each, form="list") for each in inventory.lists(custody.home)]
    made = inventory.models(custody.run)
    served = [
        *inventory.shards(custody.run, custody.site),
        *inventory.metrics(custody.run, custody.site),
        *inventory.shown(custody.run),
        *(made if with_models else []),
    ]
    data_class, level = sensitivity(custody.lines)
    number = 1 + len(custody.said(ORDERED))
    try:
        return Order(
            id=f"{DESTRUCTION}-{number}",
            object=f"what {custody.site} holds of its subjects for the study {custody.scenario.name}",
            data_class=data_class,
            level=level,
            method=Method.OVERWRITING if key is None else Method.ERASE,
            copies=tuple(copies),
            keys=() if key is None else (_VAULT,),
            shards=tuple(sorted({digest(each.read_bytes()) for each in served})),
            derived=() if with_models else tuple(_derived(custody, made)),
            elsewhere=tuple(
                f"a copy that line {line.index} of the site's ledger names ({line.event})"
                for line in custody.lines
                if line.event in COPIES
            ),
            media=media,
            reason=reason,
            requested_by=by,
        )
    except ValidationError as fault:
        said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in fault.errors())
        raise RequestError(f"the order cannot be given: {said}") from None


def _copy(path: Path, key: SealingKey | None) -> Copy:
    """A file that holds images or what was made of them: sealed under the site's key, or plain."""
    name = path.name
    if name.startswith(".") and name.endswith(".draft"):
        name = name[1:].rsplit(".", 2)[0]  # what a killed writer left: a draft of the file of that name
    with path.open("rb") as file:
        start = file.read(1 << 10)
    if key is not None and key.opens(name, start):
        return Copy(path=path, name=name)
    return Copy(path=path, form="plain")


def _derived(custody: Custody, made: Collection[Path]) -> list[str]:
    """What was made of the site's data and stays."""
    from fedprivseg.methods import resolve  # here, for no other act of a destruction needs networks
    from fedprivseg.methods.method import CodedMethod

    found = [f"{path.relative_to(custody.run)}, SHA-256 {digest(path.read_bytes())}" for path in made]
    others = sorted(each.name for each in custody.scenario.sites if each.name != custody.site)
    if not isinstance(resolve(custody.scenario.method), CodedMethod):
        # A network that was averaged over sites carries every site's data to all of them.
        found += [f"what {name} learned from the average of the sites" for name in others]
    return found


def _means(custody: Custody, stated: Order) -> Means:
    run, site = custody.run, custody.site

    def reach() -> list[Path]:
        served = [path for path in sorted((run / "server").rglob("*")) if path.is_file()]
        return [*served, *inventory.shown(run)]

    def delete(ids: tuple[str, ...]) -> Collection[str]:
        """What a server does that is asked to: it looks for the bytes, not for names."""
        inventory.forget_notes(run, site)
        asked = set(ids)
        for path in reach():
            if digest(path.read_bytes()) in asked:
                with path.open("r+b") as file:
                    overwrite(file.fileno())
                path.unlink()
        return asked - {digest(path.read_bytes()) for path in reach()}

    def search(digests: Collection[str]) -> tuple[str, ...]:
        stay = {one for one in digests if any(one in line for line in stated.derived)}
        return tuple(inventory.holding(run, inventory.within_reach(run, site), set(digests) - stay))

    holder = KeyFile(custody.home / SEALING_KEY, _VAULT, os.environ.get(PASSPHRASE))
    approvers = frozenset(name for name, one in custody.staff.items() if one.title in APPROVES)
    rings = (holder,) if stated.keys else ()
    return Means(site, custody.key, custody.home, approvers, rings, delete, search)
