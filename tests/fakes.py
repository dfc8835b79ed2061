"""A federation without engines, gates or disks of images: sites of toy slices, and a server half that calls them."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from fedprivseg.core.expected import Array, Expected
from fedprivseg.core.kinds import METRIC, STATUS
from fedprivseg.core.measures import dice
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import MEASURES, Grid, Order, Payload, Slices, digest
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.core.task import Scope, default_task
from fedprivseg.crypto.identity import SiteKey, statement
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.policy.declaration import departure
from fedprivseg.governance.sitefolder.vault import Vault
from fedprivseg.runtime.server.intake import Intake
from fedprivseg.runtime.wire import Released, read_order, write_reply

SIDE = 32


def blocks(count: int = 12, side: int = SIDE, seed: int = 0) -> Slices:
    """Three bright blocks at places of their own, on noise; four slices a subject."""
    draws = numpy_generator(seed, "slices")
    masks = np.zeros((count, side, side), np.uint8)
    for mask in masks:
        row, column = draws.integers(2, 8, 2)
        mask[row : row + 18, column : column + 10] = 3
        mask[row : row + 14, column + 8 : column + 22] = 2
        mask[row + 3 : row + 11, column + 11 : column + 19] = 1
    images = np.array([0.1, 0.9, 0.3, 0.6], np.float32)[masks] + 0.02 * draws.standard_normal(masks.shape)
    subjects = (np.arange(count) // 4).astype(np.int32)
    return Slices(images.clip(0, 1).astype(np.float32), masks, subjects)


def as_it_is(payload: Payload) -> Expected:
    """A declaration of exactly `payload`, for tests of what else a gate asks."""
    forms = {name: Array(array.dtype.name, array.shape) for name, array in payload.arrays.items()}
    stream = payload.shards != payload.shard + 1
    return Expected(
        payload.kind, payload.purpose, forms, payload.history, views=int(stream), shards=payload.shards * stream
    )


def accepted(intake: Intake, site: str, order: Order, expected: Expected, release: Released) -> Payload:
    """The payload of a release as the server takes it: opened, then checked."""
    sent = digest(release.body)
    body = intake.opened(site, order, expected, release, sent)
    return intake.checked(site, order, expected, body, digest(body))


class FakeSite:
    """A `methods.method.Site` of toy slices."""

    def __init__(self, name: str, slices: Slices, folder: Path, seed: int = 0, side: int = SIDE) -> None:
        self.name, self.seed, self.device = name, seed, "cpu"
        self.grid = Grid(side, side, 2.0)
        self.task = default_task()
        self.vault = Vault(folder / name)
        self.progress = lambda *_: None
        self._slices = slices
        self.seen = []

    def guarded(self, kind, codes):
        return codes

    def opened(self, kind, codes):
        return codes

    def start(self):
        return self.vault.load("start")

    @property
    def labelled(self) -> bool:
        return bool(len(self._slices.images))

    def training(self) -> Slices:
        return self._slices

    def attributes(self) -> dict[str, np.ndarray]:
        return {"disease": self._slices.subjects.astype(np.int64) % 2}

    def testing(self) -> np.ndarray:
        return self._slices.images[:4]

    def validate(self, scores: np.ndarray) -> np.ndarray:
        return dice(np.moveaxis(scores.argmax(axis=1), 0, -1), np.moveaxis(self._slices.masks[:4], 0, -1), 3)

    def measure(self, scores, *, keep=True) -> Payload:
        self.seen.append(scores)
        cells = {name: np.zeros((1, 2, 3)) for name in MEASURES}
        cells["dice"] += self.validate(scores)
        known = {f"{name}_known": np.ones((1, 2, 3), np.uint8) for name in MEASURES}
        return Payload(METRIC, self.name, "measure", {**cells, **known}, level=2, history=("measure",))


class Rows:
    """`methods.method.Codes` in memory."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, indices: np.ndarray) -> np.ndarray:
        return self.values[indices]


def facts_of(site: FakeSite) -> dict[str, int]:
    """What a fake site says in the roll call; it measures one test subject."""
    slices = site.training()
    counts = {"slices_train": len(slices.images), "subjects_train": len(np.unique(slices.subjects))}
    return {**counts, "slices_test": len(site.testing()), "subjects_test": 1}


class FakeFederation:
    """A `methods.method.Federation` over fake sites. lost: (action, site) pairs at which a site drops out for good."""

    device = "cpu"

    def __init__(self, method, sites, folder: Path, seed: int = 0, lost=()) -> None:
        # Flower's messages ask who they are from; engines say so.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.method, self.seed = method, seed
        self.models = ModelStore(folder)
        self.save_model, self.load_model = self.models.save, self.models.load
        folder.mkdir(parents=True, exist_ok=True)
        self.grid, self.task = sites[0].grid, sites[0].task
        self.all = {site.name: site for site in sites}
        self.sites = tuple(sorted(self.all))
        self.lost = set(lost)
        self.entries, self.asked, self.got = [], [], []
        self.progress = lambda *_: None
        self.begins_with = {}

    def start(self):
        """The public start: `begins_with`, or one that is fitted to a few blocks."""
        if not self.begins_with:
            start = self.method.public_start(Scope(self.grid, self.task))
            self.begins_with = start.fit(blocks(12, seed=9), "cpu", lambda *_: None)
        return self.begins_with

    def ask(self, action, expected, *, number=0, answers=None, sites=None):
        replies = {}
        for name in self.sites:
            if sites is not None and name not in sites:
                continue
            if (action, name) in self.lost:
                self.sites = tuple(site for site in self.sites if site != name)
                continue
            order = Order(action, number, answers[name] if answers else None)
            self.asked.append((action, number, name))
            payload = Payload.decode(self.method.actions[action](self.method, self.all[name], order).encode())
            # What the site's gate would ask, of the same declaration, and what the server asks besides.
            for declared in (expected, self.method.expected(order, Scope(self.grid, self.task))):
                assert (refusal := departure(payload, declared, number)) is None, (action, refusal)
                assert declared.check(payload, self.facts(name)) is None, action
            self.got.append((action, name, payload))
            replies[name] = payload
        return replies

    def collect(self, action, expected):
        (array,) = expected.arrays
        parts, lacking, number = {site: [] for site in self.sites}, list(self.sites), 0
        while lacking:
            replies = self.ask(action, expected, number=number, sites=lacking)
            for site, payload in replies.items():
                parts[site].append(payload.arrays[array])
            number += 1
            lacking = [site for site, payload in replies.items() if payload.shards > number]
        return {site: Rows(np.concatenate(each)) for site, each in parts.items()}

    def answer(self, kind, site, arrays, shard):
        return Payload(kind, site, "answer", arrays, shard=shard, shards=shard + 1)

    def facts(self, site):
        return facts_of(self.all[site])

    def sent(self, site):
        return 0

    def record(self, entry):
        self.entries.append(entry)

    def returned(self):
        return ()

    def leave_out(self, site, why):
        self.sites = tuple(each for each in self.sites if each != site)

    def note(self, site, text):
        self.entries.append((site, text))

    @contextmanager
    def stage(self, name):
        yield


class FakeGrid:
    """A grid whose nodes are fake sites that know no gate: each carries out its order by the method's action and signs.

    tamper: ``(site, order, reply, sign) -> contents``, what goes out in the place of a right reply: a list of record
    dictionaries and Flower errors; ``sign(payload or bytes, **fields)`` makes a release with that signature and those fields.
    """

    def __init__(self, method, sites, folder: Path, run_id: str = "run", tamper=None) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.method, self.run_id, self.tamper = method, run_id, tamper
        self.nodes = dict(enumerate(sites, start=2))
        self.keys, self.ledgers, self.asked = {}, {}, []
        self.count, self.replies = itertools.count(), {}
        for site in sites:
            home = folder / site.name
            home.mkdir(parents=True, exist_ok=True)
            path = home / "key.pem"
            self.keys[site.name] = SiteKey.load(path) if path.exists() else SiteKey.create(path)
            self.ledgers[site.name] = Ledger(home / "ledger.jsonl", self.keys[site.name], site.name)

    def get_node_ids(self):
        return list(self.nodes)

    def push_messages(self, messages):
        pushed = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = name = f"order-{next(self.count)}"
            self.replies[name] = self._answers(message)
            pushed.append(name)
        return pushed

    def pull_messages(self, message_ids):
        return [reply for name in message_ids for reply in self.replies.pop(name, [])]

    def _answers(self, message):
        node = message.metadata.dst_node_id
        site, order = self.nodes[node], read_order(message.content).order
        self.asked.append((order.action, order.number, site.name))

        def sign(payload, **fields):
            return self._release(site.name, order, payload, **fields)

        reply = sign(self._carry_out(site, order))
        contents = [write_reply(reply)]
        if self.tamper is not None:
            contents = self.tamper(site.name, order, reply, sign)
        answers = []
        for content in contents:
            answer = Message(content, reply_to=message)
            answer.metadata.__dict__["_message_id"] = f"reply-{node}"
            answers.append(answer)
        return answers

    def _carry_out(self, site, order) -> Payload:
        if order.action == "describe":
            counts = {name: np.array([value]) for name, value in facts_of(site).items()}
            return Payload(STATUS, site.name, "describe", counts)
        return self.method.actions[order.action](self.method, site, order)

    def _release(self, name, order, payload, **fields) -> Released:
        body = payload if isinstance(payload, bytes) else payload.encode()
        key = self.keys[name]
        signature = key.sign(statement(self.run_id, name, order.action, order.number, digest(body)))
        right = {"head": self.ledgers[name].checkpoint(), "seconds": 0.5, "peak_rss_mb": 100.0, "site": name}
        return Released(body, signature, key.public_hex, **{**right, **fields})
