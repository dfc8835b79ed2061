"""The order to destroy all that a site of a run holds of its subjects, and the means to carry it out (5.8-b to 5.8-d)."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import overwrite
from fedprivseg.core.method_card import MethodCard
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import digest
from fedprivseg.crypto.key_store import KeyFile
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.lifecycle import inventory
from fedprivseg.governance.lifecycle.destruction.custody import APPROVES, ORDERED, DestructionSession
from fedprivseg.governance.lifecycle.destruction.expiry import sensitivity
from fedprivseg.governance.lifecycle.destruction.order import Copy, Means, Method, Order
from fedprivseg.governance.sitefolder.history import DESTRUCTION
from fedprivseg.governance.sitefolder.vault import PASSPHRASE, SEALING_KEY, sealing_key

COPIES = ("archive", "backup")
"""Events of a ledger that tell of copies."""

_VAULT = "vault"


def draw_up(custody: DestructionSession, by: str, reason: str, media: str, with_models: bool) -> Order:
    """The order for everything that is there now, in the name of `by`; see `disposal.order`. Raises RequestError if it cannot
    be given so."""
    key = sealing_key(custody.home) if (custody.home / SEALING_KEY).exists() else None
    copies = [_copy(each, key) for each in inventory.everything(custody.home)]
    if key is None:  # a sealed site keeps no images between runs
        copies += [Copy(path=each, form="plain") for each in inventory.cached(custody.station, custody.scenario)]
    copies += [Copy(path=each, form="list") for each in inventory.lists(custody.home)]
    made = ModelStore(custody.run / "server").paths()
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


def _derived(custody: DestructionSession, made: Collection[Path]) -> list[str]:
    """What was made of the site's data and stays."""
    found = [f"{path.relative_to(custody.run)}, SHA-256 {digest(path.read_bytes())}" for path in made]
    others = sorted(each.name for each in custody.scenario.sites if each.name != custody.site)
    if not MethodCard.read(custody.run).coded:
        # A network that was averaged over sites carries every site's data to all of them.
        found += [f"what {name} learned from the average of the sites" for name in others]
    return found


def means(custody: DestructionSession, stated: Order) -> Means:
    """What the order is carried out with: the site's key file, the server's deletion, and a search for what is left."""
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
        for path in inventory.shards(run, site):  # all are asked for; what is left of one was overwritten before a kill
            path.unlink()
        return asked - {digest(path.read_bytes()) for path in reach()}

    def search(digests: Collection[str]) -> tuple[str, ...]:
        stay = {one for one in digests if any(one in line for line in stated.derived)}
        return tuple(inventory.holding(run, inventory.within_reach(run, site), set(digests) - stay))

    holder = KeyFile(custody.home / SEALING_KEY, _VAULT, os.environ.get(PASSPHRASE))
    approvers = frozenset(name for name, one in custody.staff.items() if one.title in APPROVES)
    files = (holder,) if stated.keys else ()
    return Means(site, custody.key, custody.home, approvers, files, delete, search)
