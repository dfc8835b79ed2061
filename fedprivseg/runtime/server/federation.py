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
from functools import partial

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from fedprivseg.core.accounts import Account
from fedprivseg.core.arrays import load_arrays
from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import PayloadError
from fedprivseg.core.expected import DESCRIBE, DESCRIPTION, Expected
from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.models import ModelStore
from fedprivseg.core.progress import ProgressFile
from fedprivseg.core.records import Budget, CrossSite, CurvePoint, Entry, Order, Payload, digest
from fedprivseg.core.runfolder import ServerFolder
from fedprivseg.core.stage_config import Terms
from fedprivseg.crypto.hpke import EncryptionKey, KeyCertificate
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.checkpoints import SERVER
from fedprivseg.governance.ledger.identities import read_identities, write_identities
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.ledger.receipts import Receipts
from fedprivseg.methods import resolve
from fedprivseg.methods.method import Codes
from fedprivseg.protections import protected
from fedprivseg.runtime.announcement import announce
from fedprivseg.runtime.server.exchange import Exchange, Heard, Silence
from fedprivseg.runtime.server.intake import Intake
from fedprivseg.runtime.server.participants import Participants
from fedprivseg.runtime.server.reception import Reception
from fedprivseg.runtime.server.roll_call import RollCall, nodes_of
from fedprivseg.runtime.server.spool import Spool
from fedprivseg.runtime.server.store import Arrival, Store
from fedprivseg.runtime.wire import (
    Envelope,
    Failed,
    Refused,
    Released,
    Reply,
    write_order,
)

RETURN_S = 10.0
"""How long a site that had failed has to say that it is there again, in seconds."""

_NAMES: dict[type[Entry], tuple[str, ...]] = {
    CurvePoint: ("round", "site"),
    CrossSite: ("trained_at", "measured_at"),
    Budget: ("site", "mechanism"),
}
"""The fields that say what an entry tells of."""


class GridFederation:
    """A `Federation` over any Flower `Grid`. It owns the server's folder: store, accounts, stage times.

    Args:
        grid: reaches the sites' nodes.
        scenario: of the run.
        folder: the server's.
        run_id: of the run.
        device: torch device.
        at_once: most sites that have an order at a time; None: all.
    """

    def __init__(
        self,
        grid: Grid,
        scenario: Scenario,
        folder: ServerFolder,
        run_id: str,
        device: str,
        at_once: int | None = None,
    ) -> None:
        self.seed, self.grid, self.device = scenario.seed, scenario.grid.grid(), device
        self.task = scenario.task
        self.folder = folder.path
        self.folder.mkdir(parents=True, exist_ok=True)
        self.progress = ProgressFile(folder.progress)
        self._start = folder.start
        self._models = ModelStore(self.folder)
        self._method = resolve(scenario.method)
        self._identity = identity = SiteKey.at(folder.key)
        self._ledger = Ledger(folder.ledger, identity, SERVER)
        ledger.verify(folder.ledger, public_hex=identity.public_hex)
        self._receipts = Receipts(ledger.read(folder.ledger))
        self._participants = Participants(scenario, self.folder, self._receipts)
        self.store = Store(folder.codes, self._receipts.digests)
        opener = folder.encryption_key
        self._key = EncryptionKey.load(opener) if opener.exists() else EncryptionKey.create(opener)
        self._card = KeyCertificate.issue(identity, self._key).text()
        self._grid, self._scenario, self._run_id = grid, scenario, run_id
        self._scenario_text = scenario.model_dump_json()
        self._scenario_sha256 = digest(self._scenario_text.encode())
        self._exchange = Exchange(grid, at_once)
        self._nodes = self._meet()

    @property
    def accounts(self) -> Mapping[str, Account]:
        """What each site cost and how it fared."""
        return self._participants.accounts

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites still taking part, sorted."""
        return self._participants.sites

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
        asked = self.sites if sites is None else tuple(sorted({*self.sites} & {*sites}))
        spool = Spool(self.folder)
        arrivals = self._arrivals(Order(action, number), expected, asked, answers)
        accepted = {site: spool.keep(arrival) for site, arrival in arrivals}
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
            for site, arrival in self._arrivals(Order(action, number), expected, lacking):
                shards = arrival.payload.shards
                if announced[site] not in (0, shards):
                    changed = PayloadError(f"{shards} shards were announced, after {announced[site]}")
                    self._participants.exclude(site, action, changed)
                announced[site] = shards
            self._participants.enough(self._scenario.terms(action).quorum)
            number += 1
            self.progress(f"receiving {expected.kind}s", number, max(announced.values(), default=0))
        return {site: self.store.table(site, action, array) for site in self.sites}

    def answer(self, kind: KindSpec, site: str, arrays: Mapping[str, np.ndarray], shard: int) -> Payload:
        """A payload of the server's for `site`."""
        return Payload(kind=kind, site=site, purpose="answer", arrays=arrays, shard=shard, shards=shard + 1)

    def note(self, site: str, text: str) -> None:
        """Keep a remark on `site` for the result and the report; the same remark twice is one."""
        self._participants.note(site, text)

    def leave_out(self, site: str, why: str) -> None:
        """See `methods.method.Federation`."""
        self._participants.leave(site, f"left out: {why}")
        self._participants.save()
        self._participants.enough(self._scenario.quorum)

    def facts(self, site: str) -> Mapping[str, int]:
        """What `site` said in the roll call."""
        return self.accounts[site].facts

    def sent(self, site: str) -> int:
        """Bytes of payloads to and from `site` so far."""
        return self.accounts[site].bytes_up + self.accounts[site].bytes_down

    def save_model(self, name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str] | None = None) -> None:
        """See `Federation`. What was recorded until then is saved first: what the model says is done is not done again."""
        self._participants.save()
        self._models.save(name, arrays, facts)

    def load_model(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        """See `Federation`."""
        return self._models.load(name)

    def start(self) -> dict[str, np.ndarray]:
        """See `methods.method.Place`: as it was prepared before the run."""
        return load_arrays(self._start, "Run the scenario again: it is made before the first order")

    def record(self, entry: Entry) -> None:
        """Keep an entry for the result, from the next time on that a model is saved or a stage ends. A round that is done again
        after an interruption replaces its own entry."""
        fields = vars(entry)
        name = "/".join(str(fields[key]) for key in _NAMES[type(entry)])
        self._participants.book.entries.setdefault(type(entry).__name__, {})[name] = fields

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage of the run; a resumed run adds to the time of the attempt before."""
        start, waited, self._reception.stage = time.perf_counter(), self._exchange.waited_s, name
        self.progress(name, 0, 0)
        try:
            yield
        finally:
            self._reception.stage, book = "", self._participants.book
            for times, seconds in (
                (book.stages, time.perf_counter() - start),
                (book.waited, self._exchange.waited_s - waited),
            ):
                times[name] = times.get(name, 0.0) + seconds
            self._participants.save()

    def returned(self) -> tuple[str, ...]:
        """See `methods.method.Federation`. They are known by the key with which they spoke before, if they did."""
        away = self._participants.away if self._scenario.rejoin == "next-round" else ()
        if not away:
            return ()
        others = {node for site, node in self._nodes.items() if site not in away}
        nodes = [node for node in sorted(self._grid.get_node_ids()) if node not in others]
        terms = Terms(min(RETURN_S, self._scenario.terms(DESCRIBE).deadline_s), 1, attempts=1)
        call, back = self._roll_call(nodes, terms), []
        for site in away:
            claims = call.genuine(site, self._reception.intake)
            if len(claims) != 1:
                continue
            ((self._nodes[site], reply),) = claims
            if isinstance(reply, Released):
                self._reception.intake.identities.update(self._identities({site: reply.public_key}))
            self._participants.readmit(site)
            self._describe(site, reply)
            back.append(site)
        self._participants.save()
        return tuple(site for site in back if site in self.sites)

    def _roll_call(self, nodes: Sequence[int], terms: Terms) -> RollCall:
        envelope = self._envelope(Order(DESCRIBE), self._ledger.checkpoint())
        content = partial(write_order, replace(envelope, scenario_text=self._scenario_text))
        heard: list[tuple[int, Heard]] = []
        for each in self._exchange.replies(dict.fromkeys(nodes, content), terms, lambda: len(heard)):
            heard.append(each)
        return RollCall(self._scenario, heard)

    def _describe(self, site: str, reply: Reply) -> None:
        """Take what `site` says of itself in a roll call."""
        if (arrival := self._reception.take(site, Order(DESCRIBE), DESCRIPTION, reply)) is not None:
            self._take_counts(site, {key: int(value[0]) for key, value in arrival.payload.arrays.items()})

    def _meet(self) -> dict[str, int]:
        """Wait for the nodes, ask each who it is, and fix each site's public key for the rest of the run."""
        terms = self._scenario.terms(DESCRIBE)
        call = self._roll_call(nodes_of(self._grid, len(self._scenario.sites), terms), terms)
        found = call.found(self._participants, Intake(self._run_id, self._identities({})))
        keys = {site: reply.public_key for site, (_, reply) in found.items() if isinstance(reply, Released)}
        intake = Intake(self._run_id, self._identities(keys), self._key)
        self._reception = Reception(self._ledger, self._receipts, self._participants, intake, self._forget)
        for site, (_, reply) in sorted(found.items()):
            self._describe(site, reply)
        self._participants.save()
        self._participants.enough(terms.quorum)
        return {site: node for site, (node, _) in found.items()}

    def _take_counts(self, site: str, facts: dict[str, int]) -> None:
        """Note what `site` brings. What the server keeps of it was checked by the counts of an earlier attempt, which have to
        be the same still."""
        before = self.accounts[site].facts
        if before not in ({}, facts) and self.store.holds(site):
            changed = PayloadError(f"its counts are {facts}; they were {before} when the run began")
            self._participants.exclude(site, DESCRIBE, changed)
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

    def _arrivals(
        self, order: Order, expected: Expected, sites: Sequence[str], answers: Mapping[str, Payload] | None = None
    ) -> Iterator[tuple[str, Arrival]]:
        """What `sites` answer to `order`, site by site as it comes: received, checked and stored. A site of which nothing comes
        here has left the run. Raises QuorumError at the end if too few are left."""
        terms, expected = self._scenario.terms(order.action), protected(self._scenario.protections, expected)
        stored = expected.kind.stored == "always" or (expected.kind.stored == "first" and order.number == 1)
        asked, good = {self._nodes[site]: site for site in sites}, list[str]()
        contents = {node: partial(self._content, order, site, answers) for node, site in asked.items()}

        def signed(node: int, reply: Reply | PayloadError) -> bool:
            return self._reception.signed(asked[node], order, reply)

        for node, heard in self._exchange.replies(contents, terms, lambda: len(good), signed):
            site = asked[node]
            if (reply := self._reply_of(site, order, heard, terms)) is None:
                continue
            if isinstance(reply, Released):
                account = self.accounts[site]
                account.seconds += reply.seconds
                account.peak_rss_mb = max(account.peak_rss_mb, reply.peak_rss_mb)
            if (arrival := self._reception.take(site, order, expected, reply)) is None:
                continue
            if stored:
                self.store.put(order.action, arrival)
            good.append(site)
            yield site, arrival
        self._participants.save()
        self._participants.enough(terms.quorum)

    def _content(self, order: Order, site: str, answers: Mapping[str, Payload] | None) -> RecordDict:
        """The order for one site, with what it gets; made when it is sent."""
        own = replace(order, answer=answers[site]) if answers else order
        content = write_order(self._envelope(own, self._ledger.checkpoint()))
        answer = content.config_records.get("answer")
        self._reception.went(site, 0 if answer is None else len(answer["body"]))  # type: ignore[arg-type]
        return content

    def _reply_of(self, site: str, order: Order, heard: Heard, terms: Terms) -> Reply | None:
        """The reply in what was heard of the node of `site`; None if there is none, and then it has left the run."""
        if isinstance(heard, Released | Refused | Failed) and heard.site == site:
            return heard
        self._reception.missing(site, order)
        if isinstance(heard, Silence):
            self._participants.fail(site, heard.value.format(action=order.action, terms=terms))
        elif isinstance(heard, int):
            self._participants.fail(site, f"died in {order.action!r} (Flower error code {heard})")
        else:
            foreign = PayloadError("its reply names another site")
            self._participants.exclude(site, order.action, heard if isinstance(heard, PayloadError) else foreign)
        return None

    def _forget(self, site: str) -> None:
        """Delete what `site` sent, since consent to it was revoked or has expired, and mark what has been made of it."""
        gone = len(self.store.forget(site))
        made = [path.name for path in self._models.paths()]
        marked = (
            f"; made with it: {', '.join(made)}, to be trained again" if made else "; nothing had been trained on it"
        )
        self.note(site, f"consent revoked or expired: {gone} of its shards deleted at the server{marked}")
