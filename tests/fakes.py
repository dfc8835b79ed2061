"""A federation without engines, gates or disks of images: sites of toy slices, and a server half that calls them."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
from flwr.supercore.task_identity import TaskIdentity

from fedprivseg.measures import dice
from fedprivseg.records import MEASURES, Grid, Kind, Order, Payload, Slices
from fedprivseg.seeds import numpy_generator
from fedprivseg.site.vault import Vault

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


class FakeSite:
    """A `methods.method.Site` of toy slices."""

    def __init__(self, name: str, slices: Slices, folder: Path, seed: int = 0, side: int = SIDE) -> None:
        self.name, self.seed, self.device = name, seed, "cpu"
        self.grid = Grid(side, side, 2.0)
        self.vault = Vault(folder / name)
        self.progress = lambda *_: None
        self._slices = slices
        self.seen = []

    def guarded(self, kind, codes):
        return codes

    def opened(self, kind, codes):
        return codes

    def training(self) -> Slices:
        return self._slices

    def attributes(self) -> dict[str, np.ndarray]:
        return {"disease": self._slices.subjects.astype(np.int64) % 2}

    def testing(self) -> np.ndarray:
        return self._slices.images[:4]

    def glance(self, scores: np.ndarray) -> np.ndarray:
        return dice(np.moveaxis(scores.argmax(axis=1), 0, -1), np.moveaxis(self._slices.masks[:4], 0, -1))

    def measure(self, scores, example=None, *, keep=True) -> Payload:
        self.seen.append(scores)
        cells = {name: np.zeros((1, 2, 3)) for name in MEASURES}
        cells["dice"] += self.glance(scores)
        known = {f"{name}_known": np.ones((1, 2, 3), np.uint8) for name in MEASURES}
        return Payload(Kind.METRIC, self.name, "measure", {**cells, **known}, level=2)


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
        self.method, self.seed, self.folder = method, seed, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.grid = sites[0].grid
        self.all = {site.name: site for site in sites}
        self.sites = tuple(sorted(self.all))
        self.lost = set(lost)
        self.entries, self.asked, self.got = [], [], []
        self.progress = lambda *_: None

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
            assert payload.kind == expected.kind
            assert payload.purpose == expected.purpose
            assert set(payload.arrays) == set(expected.arrays), action
            for key, form in expected.arrays.items():
                assert payload.arrays[key].dtype.name == form.dtype, (action, key)
                shape = payload.arrays[key].shape
                assert all(want in (None, have) for want, have in zip(form.shape, shape, strict=True)), (action, key)
                assert form.low is None or (payload.arrays[key] >= form.low).all(), (action, key)
                assert form.high is None or (payload.arrays[key] <= form.high).all(), (action, key)
            assert expected.check(payload, self.facts(name)) is None, action
            self.got.append((action, name, payload))
            replies[name] = payload
        return replies

    def answer(self, kind, site, arrays, shard):
        return Payload(kind, site, "answer", arrays, shard=shard, shards=shard + 1)

    def facts(self, site):
        return facts_of(self.all[site])

    def sent(self, site):
        return 0

    def record(self, entry):
        self.entries.append(entry)

    def note(self, site, text):
        self.entries.append((site, text))

    @contextmanager
    def stage(self, name):
        yield
