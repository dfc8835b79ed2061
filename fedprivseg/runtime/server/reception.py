"""What becomes of one reply: it is written into the server's ledger, and checked, before anything is made of it.

A reply that is no payload, or none that was asked for, ends the part of its own site in the run, and of no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

from fedprivseg.core.errors import LedgerError, PayloadError
from fedprivseg.core.expected import Expected
from fedprivseg.core.records import Order, digest
from fedprivseg.governance.ledger.checkpoints import Checkpoint
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.ledger.receipts import CENTISECONDS, SENT, STAGE, Receipts
from fedprivseg.governance.policy.policy_context import CONSENT_ENDED
from fedprivseg.runtime.server.intake import Intake
from fedprivseg.runtime.server.participants import Participants
from fedprivseg.runtime.server.store import Arrival
from fedprivseg.runtime.wire import Failed, Released, Reply


@final
class Reception:
    """Takes the replies of one run.

    Args:
        ledger: the server's.
        receipts: those that stand in it.
        participants: who takes part.
        forget: called with a site to whose data consent has ended.

    Attributes:
        intake: checks payloads; it knows the sites' keys from the roll call on.
        stage: in which stage of the run orders are given; empty between stages.
    """

    def __init__(
        self,
        ledger: Ledger,
        receipts: Receipts,
        participants: Participants,
        intake: Intake,
        forget: Callable[[str], None],
    ) -> None:
        self.intake, self.stage = intake, ""
        self._ledger, self._receipts, self._participants, self._forget = ledger, receipts, participants, forget
        self._sent: dict[str, int] = {}
        self._lines: dict[str, int] = {}

    def went(self, site: str, size: int) -> None:
        """So many bytes of an answer went to `site` with the order that it is to answer next."""
        self._sent[site] = size

    def missing(self, site: str, order: Order) -> None:
        """Nothing came of `order` that is a reply of `site`; what it was sent was sent."""
        self._note({"action": order.action, "number": order.number, "site": site})

    def signed(self, site: str, order: Order, reply: Reply | PayloadError) -> bool:
        """Whether `reply` to `order` is from `site`, by its signature; what a site says without one has to name the site."""
        if isinstance(reply, PayloadError) or reply.site != site:
            return False
        return not isinstance(reply, Released) or self.intake.signed(site, order, reply, digest(reply.body))

    def take(self, site: str, order: Order, expected: Expected, reply: Reply) -> Arrival | None:
        """The checked payload of `reply`, or None, and then `site` has left the run and its account says why. What came is
        written into the server's ledger, with the checkpoint of the site's own, before it is used."""
        facts: dict[str, Fact] = {"action": order.action, "number": order.number, "site": site}
        if isinstance(reply, Failed):
            self._note({**facts, "error": reply.error, "log": reply.log_id})
            self._participants.fail(
                site,
                f"failed in {order.action!r}: {reply.error}. "
                f"The details stay at the site, in its errors.log under id {reply.log_id}.",
            )
            return None
        try:
            # A site that cannot open its ledger has no checkpoint to show; it sends no payload either.
            if reply.head or isinstance(reply, Released):
                facts["checkpoint"] = self._checkpoint(site, reply.head)
        except LedgerError as fault:
            self._participants.exclude(site, order.action, fault)
            return None
        if not isinstance(reply, Released):
            self._note({**facts, "rule": reply.rule})
            # Without a signed checkpoint anybody may have said so.
            if reply.rule == CONSENT_ENDED and "checkpoint" in facts:
                self._forget(site)
            why = f"blocked by site policy in {order.action!r} ({reply.rule}): {reply.reason}"
            self._participants.leave(site, why)
            return None
        return self._payload(site, order, expected, reply, facts)

    def _payload(
        self, site: str, order: Order, expected: Expected, reply: Released, facts: dict[str, Fact]
    ) -> Arrival | None:
        sent = digest(reply.body)
        facts |= {CENTISECONDS: round(100 * reply.seconds)}
        facts |= {"bytes": len(reply.body)} | ({"encrypted_digest": sent} if reply.encrypted_to else {})
        try:
            body = self.intake.opened(site, order, expected, reply, sent)
        except PayloadError as fault:
            self._note({**facts, "digest": sent})
            self._participants.exclude(site, order.action, fault)
            return None
        name = digest(body) if reply.encrypted_to else sent
        self._note({**facts, "digest": name})
        account = self._participants.accounts[site]
        try:
            payload = self.intake.checked(site, order, expected, body, name, account.facts)
        except PayloadError as fault:
            self._participants.exclude(site, order.action, fault)
            return None
        return Arrival(payload, body, name)

    def _note(self, facts: Mapping[str, Fact]) -> None:
        """Write the receipt into the server's ledger, and count it."""
        site = str(facts["site"])
        sent = {SENT: self._sent[site]} if self._sent.get(site) else {}
        stage = {STAGE: self.stage} if self.stage else {}
        self._receipts.note(self._ledger.append("receipt", {**facts, **sent, **stage}))
        self._participants.book.count(self._receipts, site)

    def _checkpoint(self, site: str, text: str) -> list[str | int]:
        """The checkpoint of the ledger of `site` that came, to be noted. Raises LedgerError if it is not its own, or tells of
        fewer lines than before."""
        head = Checkpoint.read(text, self.intake.identities.get(site))
        before = self._lines.get(site, 0)
        if head.site != site or head.lines < before:
            raise LedgerError(
                f"the head of its ledger is that of {head.site[:60]!r} with {head.lines} lines, after {before}"
            )
        self._lines[site] = head.lines
        return head.as_fact()
