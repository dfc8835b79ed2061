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

from collections.abc import Collection

from pydantic import ValidationError

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_durably
from fedprivseg.governance.access.roles import Title
from fedprivseg.governance.ledger.format import SUBJECTS, Fact
from fedprivseg.governance.ledger.ledger import enrolled
from fedprivseg.governance.lifecycle import inventory
from fedprivseg.governance.lifecycle.destruction.certificates import Certificate
from fedprivseg.governance.lifecycle.destruction.custody import (
    APPROVED,
    APPROVES,
    DONE,
    ORDERED,
    ORDERS,
    DestructionSession,
)
from fedprivseg.governance.lifecycle.destruction.execute import destroy
from fedprivseg.governance.lifecycle.destruction.order import Order, refuse
from fedprivseg.governance.lifecycle.destruction.plan import draw_up, means
from fedprivseg.governance.sitefolder.history import disposed
from fedprivseg.governance.sitefolder.notifications import notify_server


def order(custody: DestructionSession, by: str, reason: str, *, media: str = "", with_models: bool = False) -> Order:
    """Order the destruction of what the site holds, in the name of the member of staff `by`, and write it down. An earlier
    order that was not begun counts no more. media: who destroys the medium, and when, for what was never sealed. with_models:
    whether the server's models go too. Raises RequestError if `by` may not, or the order breaks a rule."""
    _may(custody, by, ORDERS, "order a destruction")
    if disposed(custody.home):
        raise RequestError(
            f"the destruction of what {custody.site} holds was begun or is done; carry it out, or see what is left: "
            "fedprivseg destroy verify"
        )
    stated = draw_up(custody, by, reason, media, with_models)
    refuse(stated, means(custody, stated), custody.now.date(), approval=False)
    write_durably(custody.path(stated.id, "order"), [stated.model_dump_json(indent=1).encode()])
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


def approve(custody: DestructionSession, by: str) -> Order:
    """Approve the last order in the name of `by`, who is somebody else than who gave it. Raises RequestError if there is none,
    if it was changed since it was given, or if `by` may not."""
    stated = unapproved(pending(custody))
    _may(custody, by, APPROVES, "approve a destruction")
    if custody.said(APPROVED, id=stated.id):
        raise RequestError(f"{stated.id} is approved already; carry it out: fedprivseg destroy carry-out")
    approved = stated.approve(by, custody.now.date())
    refuse(approved, means(custody, approved), custody.now.date())
    write_durably(custody.path(stated.id, "order"), [approved.model_dump_json(indent=1).encode()])
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


def carry_out(custody: DestructionSession) -> Certificate:
    """Carry the last order out, if somebody else approved it, and write the certificate. After an interruption it goes on; when
    all is done it returns the certificate of that time. Raises RequestError if nothing was destroyed, DestructionError that
    says what is left."""
    stated = pending(custody)
    if not custody.said(APPROVED, id=stated.id, order=stated.digest):
        raise RequestError(
            f"{stated.id} is not approved: the site's ledger has no line that says so. Nothing was destroyed. "
            "Somebody else than who ordered it approves it: fedprivseg destroy approve"
        )
    if not disposed(custody.home):
        fresh = draw_up(custody, stated.requested_by, stated.reason, stated.media, False)
        same = (fresh.copies, fresh.keys, fresh.elsewhere) == (stated.copies, stated.keys, stated.elsewhere)
        if not same or not set(fresh.shards) <= set(stated.shards):
            raise RequestError(
                f"{custody.site} or the server holds other things than when {stated.id} was given. Nothing was destroyed. "
                "Order anew"
            )
    certificate = destroy(stated, means(custody, stated), custody.now)
    inventory.forget_notes(custody.run, custody.site)
    facts: dict[str, Fact] = {
        **certificate.facts,
        "id": stated.id,
        "what": DONE,
        SUBJECTS: enrolled(custody.lines),
    }
    if not custody.said(DONE, certificate=facts["certificate"]):
        custody.write(facts)
    notify_server(custody.run, custody.site, "destruction", {"certificate": facts["certificate"], "clause": "5.8-f"})
    return certificate


def pending(custody: DestructionSession) -> Order:
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


def _may(custody: DestructionSession, by: str, titles: Collection[Title], act: str) -> None:
    allowed = sorted(name for name, one in custody.staff.items() if one.title in titles)
    if by not in allowed:
        raise RequestError(f"{by!r} may not {act} at {custody.site}; who may: {', '.join(allowed) or 'nobody'}")
