"""Four-eyes approval: one member of staff orders, another approves, and only then the order is executed (clause 5.8-b).

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
from fedprivseg.governance.lifecycle.destruction.certificate import Certificate
from fedprivseg.governance.lifecycle.destruction.destruction_session import (
    APPROVED,
    APPROVES,
    DONE,
    ORDERED,
    ORDERS,
    DestructionSession,
)
from fedprivseg.governance.lifecycle.destruction.execute import destroy
from fedprivseg.governance.lifecycle.destruction.order import Order, refuse
from fedprivseg.governance.sitefolder.history import disposed
from fedprivseg.governance.sitefolder.notifications import notify_server

_CLAUSE = "5.8-b"


def order(session: DestructionSession, by: str, reason: str, *, media: str = "", with_models: bool = False) -> Order:
    """Order the destruction of what a site holds, and write it down. An earlier order that was not begun counts no more.

    Args:
        session: the site.
        by: the member of staff in whose name.
        reason: in a sentence.
        media: who destroys the medium, and when, for what was never encrypted.
        with_models: whether the server's models go too.

    Raises:
        RequestError: `by` may not, or the order breaks a rule.
    """
    _require(session, by, ORDERS, "order a destruction")
    if disposed(session.folder.path):
        raise RequestError(
            f"the destruction of what {session.site} holds was begun or is done; execute it, or see what is left: "
            "fedprivseg destroy verify"
        )
    stated = session.draw_up(by, reason, media=media, with_models=with_models)
    refuse(stated, (), session.now.date(), approval=False)
    _put(session, stated)
    session.write(
        {
            "by": by,
            "clause": _CLAUSE,
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


def approve(session: DestructionSession, by: str) -> Order:
    """Approve the last order in the name of `by`, who is somebody else than who gave it. Raises RequestError if there is no
    order, it was changed since it was given, or `by` may not."""
    stated = pending(session).unapproved
    _require(session, by, APPROVES, "approve a destruction")
    if session.said(APPROVED, id=stated.id):
        raise RequestError(f"{stated.id} is approved already; execute it: fedprivseg destroy execute")
    approved = stated.approve(by, session.now.date())
    refuse(approved, session.holders(APPROVES), session.now.date())
    _put(session, approved)
    session.write(
        {
            "by": by,
            "clause": _CLAUSE,
            "id": stated.id,
            "order": approved.digest,
            "ordered": stated.digest,
            "what": APPROVED,
        }
    )
    return approved


def execute(session: DestructionSession) -> Certificate:
    """Execute the last order, if somebody else approved it. After an interruption it goes on; when all is done it returns the
    certificate of that time.

    Raises:
        RequestError: nothing was destroyed.
        DestructionError: it says what is left.
    """
    stated = pending(session)
    if not session.said(APPROVED, id=stated.id, order=stated.digest):
        raise RequestError(
            f"{stated.id} is not approved: the site's ledger has no line that says so. Nothing was destroyed. "
            "Somebody else than who ordered it approves it: fedprivseg destroy approve"
        )
    if not disposed(session.folder.path):
        now = session.draw_up(stated.requested_by, stated.reason, media=stated.media)
        same = (now.copies, now.keys, now.elsewhere) == (stated.copies, stated.keys, stated.elsewhere)
        if not same or not set(now.shards) <= set(stated.shards):
            raise RequestError(
                f"{session.site} or the server holds other things than when {stated.id} was given. Nothing was destroyed. "
                "Order it again"
            )
    certificate = destroy(stated, session.means(stated), session.now)
    inventory.forget_notes(session.run.server, session.site)
    facts: dict[str, Fact] = {
        **certificate.facts,
        "id": stated.id,
        "what": DONE,
        SUBJECTS: enrolled(session.lines),
    }
    if not session.said(DONE, certificate=facts["certificate"]):
        session.write(facts)
    told: dict[str, Fact] = {"certificate": facts["certificate"], "clause": facts["clause"]}
    notify_server(session.run.path, session.site, "destruction", told)
    return certificate


def pending(session: DestructionSession) -> Order:
    """The last order as it was written down. Raises RequestError if there is none, or it was changed."""
    ordered = session.said(ORDERED)
    if not ordered:
        raise RequestError(f"nothing was ordered at {session.site}; order it first: fedprivseg destroy order")
    facts = ordered[-1].facts
    try:
        stated = Order.model_validate_json(session.path(str(facts["id"]), "order").read_bytes())
    except (OSError, ValidationError) as fault:
        raise RequestError(f"the order {facts['id']} cannot be read ({type(fault).__name__}); order it again") from None
    if stated.unapproved.digest != facts["order"]:
        raise RequestError(
            f"the order {facts['id']} is not what the site's ledger says was ordered: it was changed. Order it again"
        )
    return stated


def _put(session: DestructionSession, stated: Order) -> None:
    write_durably(session.path(stated.id, "order"), [stated.model_dump_json(indent=1).encode()])


def _require(session: DestructionSession, by: str, titles: Collection[Title], act: str) -> None:
    allowed = sorted(session.holders(titles))
    if by not in allowed:
        raise RequestError(f"{by!r} may not {act} at {session.site}; who may: {', '.join(allowed) or 'nobody'}")
