"""The federation as a method's server half sees it: orders go out, checked payloads come back, keyed by site.

No reply ends a run that still has its quorum. A site whose reply is none, or not what was asked for, is excluded by name; so is
one that fails or is silent, which is asked again when an unfinished run goes on. The others go on. Secure summation is the
exception (`methods.masking`): its masks hide who sent what.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedprivseg.core.accounts import OK, Account, Accounts, left
from fedprivseg.core.arrays import load_arrays
from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import LedgerError, PayloadError, QuorumError, SiteError
from fedprivseg.core.expected import DESCRIBE, DESCRIPTION, Expected
from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.models import ModelStore
from fedprivseg.core.progress import ProgressFile
from fedprivseg.core.records import Budget, CrossSite, CurvePoint, Entry, Order, Payload, digest
from fedprivseg.core.runfolder import ServerFolder
from fedprivseg.crypto.hpke import EncryptionKey, KeyCertificate
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.checkpoints import SERVER, Checkpoint
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.ledger.identities import read_identities, write_identities
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.ledger.receipts import CENTISECONDS, SENT, STAGE, Receipts
from fedprivseg.governance.policy.policy_context import CONSENT_ENDED
from fedprivseg.methods import resolve
from fedprivseg.methods.method import Codes
from fedprivseg.protections import protected
from fedprivseg.runtime.announcement import announce
from fedprivseg.runtime.server.intake import Intake
from fedprivseg.runtime.server.store import Arrival, Store
from fedprivseg.runtime.wire import (
    MESSAGE_TYPE,
    UNKNOWN,
    Envelope,
    Failed,
    Refused,
    Released,
    Reply,
    printable,
    read_reply,
    write_order,
)

MOST_STATUS = 600
"""Characters of what an account says of why a site left."""

_NODES_DEADLINE_S = 120.0

_NAMES: dict[type[Entry], tuple[str, ...]] = {
    CurvePoint: ("round", "site"),
    CrossSite: ("trained_at", "measured_at"),
    Budget: ("site", "mechanism"),
}
"""The fields that say what an entry tells of."""


class GridFederation:
    """A `Federation` over any Flower `Grid`. It owns the server's folder: store, accounts, stage times."""

    def __init__(self, grid: Grid, scenario: Scenario, folder: ServerFolder, run_id: str, device: str) -> None:
        self.seed, self.grid, self.device = scenario.seed, scenario.grid.grid(), device
        self.task = scenario.task
        self.folder = folder.path
        self.folder.mkdir(parents=True, exist_ok=True)
        self.progress = ProgressFile(folder.progress)
        self._start = folder.start
        self._models = ModelStore(self.folder)
        self._accounts = Accounts({site.name: Account() for site in scenario.sites})
        self._method = resolve(scenario.method)
        self._identity = identity = SiteKey.at(folder.key)
        self._ledger = Ledger(folder.ledger, identity, SERVER)
        ledger.verify(folder.ledger, public_hex=identity.public_hex)
        self._receipts = Receipts(ledger.read(folder.ledger))
        self._accounts.recall(self.folder, self._receipts)
        self.store = Store(folder.codes, self._receipts.digests)
        opener = folder.encryption_key
        self._key = EncryptionKey.load(opener) if opener.exists() else EncryptionKey.create(opener)
        self._card = KeyCertificate.issue(identity, self._key).text()
        self._sent: dict[str, int] = {}
        self._lines: dict[str, int] = {}
        self._stage, self._waited = "", 0.0
        self._grid, self._scenario, self._run_id = grid, scenario, run_id
        self._scenario_text = scenario.model_dump_json()
        self._scenario_sha256 = digest(self._scenario_text.encode())
        self._nodes = self._meet()

    @property
    def accounts(self) -> Mapping[str, Account]:
        """What each site cost and how it fared."""
        return self._accounts.sites

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites still taking part, sorted."""
        return tuple(sorted(name for name, account in self.accounts.items() if account.status == OK))

    def ask(
        self,
        action: str,
        expected: Expected,
        *,
        number: int = 0,
        answers: Mapping[str, Payload] | None = None,
        sites: Sequence[str] | None = None,
    ) -> dict[str, Payload]:
        """Order `action` of every site (or `sites`), wait, check. See `methods.method.Federation`."""
        expected = protected(self._scenario.protections, expected)
        orders = {
            site: Order(action, number, answers[site] if answers else None)
            for site in self.sites
            if sites is None or site in sites
        }
        accepted: dict[str, Payload] = {}
        for site, reply in self._exchange(orders).items():
            if isinstance(reply, Released):
                account = self.accounts[site]
                account.seconds += reply.seconds
                account.peak_rss_mb = max(account.peak_rss_mb, reply.peak_rss_mb)
            if (arrival := self._receive(site, orders[site], expected, reply)) is None:
                continue
            if expected.kind.stored == "always" or (expected.kind.stored == "first" and number == 1):
                self.store.put(action, arrival)
            accepted[site] = arrival.payload
        self._save()
        self._enough()
        return {site: accepted[site] for site in sorted(accepted)}

    def collect(self, action: str, expected: Expected) -> dict[str, Codes]:
        """Fetch every shard of `action` that is not stored yet. See `methods.method.Federation`."""
        (array,) = expected.arrays
        stored = {site: self.store.shards(site, action) for site in self.sites}
        announced = {site: shards for site, (shards, _) in stored.items()}
        number = 0
        while number < max((announced[site] or 1 for site in self.sites), default=0):
            lacking = [
                site
                for site in self.sites
                if number not in stored[site][1] and (number < announced[site] or not announced[site])
            ]
            for site, payload in self.ask(action, expected, number=number, sites=lacking).items():
                if announced[site] not in (0, payload.shards):
                    changed = PayloadError(f"{payload.shards} shards were announced, after {announced[site]}")
                    self._exclude(site, action, changed)
                announced[site] = payload.shards
            self._enough()
            number += 1
            self.progress(f"receiving {expected.kind}s", number, max(announced.values(), default=0))
        return {site: self.store.table(site, action, array) for site in self.sites}

    def answer(self, kind: KindSpec, site: str, arrays: Mapping[str, np.ndarray], shard: int) -> Payload:
        """A payload of the server's for `site`."""
        return Payload(kind=kind, site=site, purpose="answer", arrays=arrays, shard=shard, shards=shard + 1)

    def note(self, site: str, text: str) -> None:
        """Keep a remark on `site` for the result and the report; the same remark twice is one."""
        if text not in self.accounts[site].notes:
            self.accounts[site].notes.append(text)
            self._save()

    def facts(self, site: str) -> Mapping[str, int]:
        """What `site` said in the roll call."""
        return self.accounts[site].facts

    def sent(self, site: str) -> int:
        """Bytes of payloads to and from `site` so far."""
        return self.accounts[site].bytes_up + self.accounts[site].bytes_down

    def save_model(self, name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str] | None = None) -> None:
        """See `Federation`."""
        self._models.save(name, arrays, facts)

    def load_model(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        """See `Federation`."""
        return self._models.load(name)

    def start(self) -> dict[str, np.ndarray]:
        """See `methods.method.Place`: as it was prepared before the run."""
        return load_arrays(self._start, "Run the scenario again: it is made before the first order")

    def record(self, entry: Entry) -> None:
        """Keep an entry for the result. A round that is done again after an interruption replaces its own entry."""
        fields = vars(entry)
        name = "/".join(str(fields[key]) for key in _NAMES[type(entry)])
        self._accounts.entries.setdefault(type(entry).__name__, {})[name] = fields
        self._save()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage of the run; a resumed run adds to the time of the attempt before."""
        start, self._stage, self._waited = time.perf_counter(), name, 0.0
        self.progress(name, 0, 0)
        try:
            yield
        finally:
            self._stage = ""
            for times, seconds in (
                (self._accounts.stages, time.perf_counter() - start),
                (self._accounts.waited, self._waited),
            ):
                times[name] = times.get(name, 0.0) + seconds
            self._save()

    def _meet(self) -> dict[str, int]:
        """Wait for the nodes, ask each who it is, and fix each site's public key for the rest of the run."""
        wanted = len(self._scenario.sites)
        end = time.monotonic() + _NODES_DEADLINE_S
        while len(nodes := sorted(self._grid.get_node_ids())) < wanted:
            if time.monotonic() > end:
                raise QuorumError(
                    f"{len(nodes)} of {wanted} sites connected within {_NODES_DEADLINE_S:.0f} s; start the others"
                )
            time.sleep(0.05)
        order = Order(DESCRIBE)
        claims, unnamed = self._roll_call(nodes, order)
        known = Intake(self._run_id, self._identities({}))
        found: dict[str, tuple[int, Reply]] = {}
        for site in self.sites:
            heard = claims.pop(site, [])
            genuine = heard if len(heard) < 2 else [each for each in heard if _speaks_for(site, each[1], known)]
            if len(genuine) == 1:
                (found[site],) = genuine
            elif heard:
                why = PayloadError(f"{len(heard)} nodes present themselves as this site, and one can be it")
                self._exclude(site, DESCRIBE, why)
            else:
                within = f"within {self._scenario.deadline_s:.0f} s"
                self._fail(site, "; ".join([f"did not present itself in {DESCRIBE!r} {within}", *unnamed]))
        keys = {site: reply.public_key for site, (_, reply) in found.items() if isinstance(reply, Released)}
        self._intake = Intake(self._run_id, self._identities(keys), self._key)
        for site, (_, reply) in sorted(found.items()):
            if (arrival := self._receive(site, order, DESCRIPTION, reply)) is not None:
                self._take_counts(site, {key: int(value[0]) for key, value in arrival.payload.arrays.items()})
        self._save()
        self._enough()
        return {site: node for site, (node, _) in found.items()}

    def _roll_call(self, nodes: Sequence[int], order: Order) -> tuple[dict[str, list[tuple[int, Reply]]], list[str]]:
        """What came of every node, by the site that it says it is; and in words what came of those that are none."""
        envelope = replace(self._envelope(order, self._ledger.checkpoint()), scenario_text=self._scenario_text)
        claims: dict[str, list[tuple[int, Reply]]] = {}
        unnamed, strangers = [], []
        names = {site.name for site in self._scenario.sites}
        for node, reply in self._send({node: write_order(envelope) for node in nodes}).items():
            if isinstance(reply, int):
                unnamed.append(f"a node could not start (Flower error code {reply}); its own log says why")
            elif isinstance(reply, PayloadError):
                unnamed.append(f"of a node: {reply}")
            elif isinstance(reply, Failed) and reply.site == UNKNOWN:
                unnamed.append(f"a node failed before it knew which site it is: {reply.error}, log id {reply.log_id}")
            elif reply.site not in names:
                strangers.append(reply.site)
            else:
                claims.setdefault(reply.site, []).append((node, reply))
        unnamed += [
            f"a node presents itself as {printable(name, 48)!r}, which is no site of this run"
            for name in sorted(set(strangers))
        ]
        return claims, unnamed

    def _take_counts(self, site: str, facts: dict[str, int]) -> None:
        """Note what `site` brings. What the server keeps of it was checked by the counts of an earlier attempt, which have to
        be the same still."""
        before = self.accounts[site].facts
        if before not in ({}, facts) and self.store.holds(site):
            changed = PayloadError(f"its counts are {facts}; they were {before} when the run began")
            self._exclude(site, DESCRIBE, changed)
        else:
            self.accounts[site].facts = facts

    def _identities(self, presented: dict[str, str]) -> dict[str, str]:
        """The keys first presented in this run; a site that later presents another is caught by its signatures."""
        spoken = self._receipts.orders or ServerFolder(self.folder).identities.exists()
        merged = {**presented, **(read_identities(self.folder) if spoken else {})}
        write_identities(self.folder, merged)
        return merged

    def _envelope(self, order: Order, head: str) -> Envelope:
        model = self._method.announced(order)
        announced = "" if model is None else announce(self._identity, self._run_id, order, model)
        return Envelope(order, self._run_id, self._scenario_sha256, head, self._card, announced=announced)

    def _send(self, contents: Mapping[int, RecordDict]) -> dict[int, Reply | PayloadError | int]:
        """What came of each node that was asked: its reply, why that is none, or Flower's error code; nothing if it is silent.
        Whoever was not asked, or has answered already, is not heard."""
        messages = [Message(content, node, MESSAGE_TYPE) for node, content in contents.items()]
        heard: dict[int, Reply | PayloadError | int] = {}
        start = time.perf_counter()
        for message in self._grid.send_and_receive(messages, timeout=self._scenario.deadline_s):
            node = message.metadata.src_node_id
            if node not in contents or node in heard:
                continue
            try:
                heard[node] = message.error.code if message.has_error() else read_reply(message.content)
            except PayloadError as fault:
                heard[node] = fault
        self._waited += time.perf_counter() - start
        return heard

    def _exchange(self, orders: Mapping[str, Order]) -> dict[str, Reply]:
        """The replies to `orders`, by site. A site without one has left the run."""
        head, contents = self._ledger.checkpoint(), {}
        for site, order in orders.items():
            content = contents[self._nodes[site]] = write_order(self._envelope(order, head))
            answer = content.config_records.get("answer")
            self._sent[site] = 0 if answer is None else len(answer["body"])  # type: ignore[arg-type]
        heard = self._send(contents)
        replies: dict[str, Reply] = {}
        for site, order in sorted(orders.items()):
            reply = heard.get(self._nodes[site])
            if isinstance(reply, Released | Refused | Failed) and reply.site == site:
                replies[site] = reply
                continue
            self._note({"action": order.action, "number": order.number, "site": site})  # what it was sent was sent
            if reply is None:
                within = f"within {self._scenario.deadline_s:.0f} s"
                self._fail(site, f"gave no answer to {order.action!r} {within}")
            elif isinstance(reply, int):
                self._fail(site, f"died in {order.action!r} (Flower error code {reply})")
            else:
                foreign = PayloadError("its reply names another site")
                self._exclude(site, order.action, reply if isinstance(reply, PayloadError) else foreign)
        return replies

    def _receive(self, site: str, order: Order, expected: Expected, reply: Reply) -> Arrival | None:
        """The checked payload of `reply`, or None, and then `site` has left the run and its account says why. What came is
        written into the server's ledger, with the checkpoint of the site's own, before it is used."""
        facts: dict[str, Fact] = {"action": order.action, "number": order.number, "site": site}
        if isinstance(reply, Failed):
            self._note({**facts, "error": reply.error, "log": reply.log_id})
            self._fail(
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
            self._exclude(site, order.action, fault)
            return None
        if isinstance(reply, Refused):
            self._note({**facts, "rule": reply.rule})
            if (
                reply.rule == CONSENT_ENDED and "checkpoint" in facts
            ):  # without a signed checkpoint anybody may have said so
                self._forget(site)
            self._leave(site, f"blocked by site policy in {order.action!r} ({reply.rule}): {reply.reason}")
            return None
        sent = digest(reply.body)
        facts |= {CENTISECONDS: round(100 * reply.seconds)}
        facts |= {"bytes": len(reply.body)} | ({"encrypted_digest": sent} if reply.encrypted_to else {})
        try:
            body = self._intake.opened(site, order, expected, reply, sent)
        except PayloadError as fault:
            self._note({**facts, "digest": sent})
            self._exclude(site, order.action, fault)
            return None
        name = digest(body) if reply.encrypted_to else sent
        self._note({**facts, "digest": name})
        try:
            payload = self._intake.checked(site, order, expected, body, name, self.accounts[site].facts)
        except PayloadError as fault:
            self._exclude(site, order.action, fault)
            return None
        return Arrival(payload, body, name)

    def _note(self, facts: Mapping[str, Fact]) -> None:
        """Write the receipt into the server's ledger, and count it."""
        site = str(facts["site"])
        sent = {SENT: self._sent[site]} if self._sent.get(site) else {}
        stage = {STAGE: self._stage} if self._stage else {}
        self._receipts.note(self._ledger.append("receipt", {**facts, **sent, **stage}))
        self._accounts.count(self._receipts)

    def _exclude(self, site: str, action: str, fault: Exception) -> None:
        self._leave(site, f"refused at the intake in {action!r}: {fault}")

    def _fail(self, site: str, why: str) -> None:
        self._leave(site, why)
        self.accounts[site].failed = True

    def _checkpoint(self, site: str, text: str) -> list[str | int]:
        """The checkpoint of the ledger of `site` that came, to be noted. Raises LedgerError if it is not its own, or tells of
        fewer lines than before."""
        head = Checkpoint.read(text, self._intake.identities.get(site))
        before = self._lines.get(site, 0)
        if head.site != site or head.lines < before:
            raise LedgerError(
                f"the head of its ledger is that of {head.site[:60]!r} with {head.lines} lines, after {before}"
            )
        self._lines[site] = head.lines
        return head.as_fact()

    def _forget(self, site: str) -> None:
        """Delete what `site` sent, since consent to it was revoked or has expired, and mark what has been made of it."""
        gone = len(self.store.forget(site))
        made = [path.name for path in self._models.paths()]
        marked = (
            f"; made with it: {', '.join(made)}, to be trained again" if made else "; nothing had been trained on it"
        )
        self.note(site, f"consent revoked or expired: {gone} of its shards deleted at the server{marked}")

    def _leave(self, site: str, why: str) -> None:
        """Let `site` take no part any more. All that a site says of itself and that is shown passes here."""
        self.accounts[site].status = printable(why, MOST_STATUS)

    def _enough(self) -> None:
        """Raises QuorumError if too few sites remain, SiteError if every single one failed."""
        if len(self.sites) >= self._scenario.quorum:
            return
        self._save()
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
            f"{len(self.sites)} of {len(self.accounts)} sites remain, the quorum is {self._scenario.quorum}: "
            f"{why.rstrip('.')}. The same command {then}; another --out begins with all"
        )

    def _save(self) -> None:
        self._accounts.save(self.folder)


def _speaks_for(site: str, reply: Reply, known: Intake) -> bool:
    """Whether what came in the roll call is signed with the key by which `site` is known."""
    return isinstance(reply, Released) and known.signed(site, Order(DESCRIBE), reply, digest(reply.body))
