"""The code store: verified shards on the server's disk, read row by row.

Rows are read with `os.pread`, not mapped: mapped pages count as the process's memory, and the server's memory must not grow
with the number of sites or slices.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from fedprivseg.core.documents import content_of, damaged, read_json
from fedprivseg.core.files import whole, write_text
from fedprivseg.core.records import Payload, digest

_AGAIN = "Delete it and run the same command again: it is asked for again"
"""What helps against a damaged shard, or a damaged note of one."""


@dataclass(frozen=True)
class Arrival:
    """A payload that was checked, the bytes as which it came, and their SHA-256."""

    payload: Payload
    body: bytes
    sha256: str


class CodeTable:
    """The rows of one array over a sequence of shard files, in shard order."""

    _DTYPES: ClassVar[dict[str, str]] = {"F16": "<f2", "F32": "<f4", "U8": "|u1"}

    def __init__(self, files: list[Path], array: str) -> None:
        self._files = files
        starts, counts = [], []
        for path in files:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                entry = json.loads(file.read(size))[array]
            self.dtype = np.dtype(self._DTYPES[entry["dtype"]])
            self.shape = tuple(entry["shape"][1:])
            counts.append(entry["shape"][0])
            starts.append(8 + size + entry["data_offsets"][0])
        self._starts = np.array(starts, dtype=np.int64)
        self._ends = np.cumsum(counts)
        self._row_bytes = int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """The rows at `indices` (n,) as one array (n, *shape) of the stored dtype."""
        result = np.empty((len(indices), *self.shape), self.dtype)
        views = result.reshape(len(indices), int(np.prod(self.shape))).view(np.uint8)
        shards = np.searchsorted(self._ends, indices, side="right")
        for shard in np.unique(shards):
            first = self._ends[shard - 1] if shard else 0
            descriptor = os.open(self._files[shard], os.O_RDONLY)
            try:
                for place in np.flatnonzero(shards == shard):
                    offset = self._starts[shard] + (indices[place] - first) * self._row_bytes
                    views[place] = np.frombuffer(os.pread(descriptor, self._row_bytes, int(offset)), np.uint8)
            finally:
                os.close(descriptor)
        return result


class Store:
    """Shards under ``<folder>/<site>/<action>/<number>.safetensors``, each with its SHA-256 beside it.

    receipts: SHA-256 of what came, by site, action and number, from a ledger that verifies; a shard of which it tells nothing,
    or something else, is not used. None: what stands beside a shard is believed.
    """

    def __init__(self, folder: Path, receipts: Mapping[tuple[str, str, int], str] | None = None) -> None:
        self.folder = folder
        self._receipts = None if receipts is None else dict(receipts)

    def put(self, action: str, arrival: Arrival) -> None:
        """Keep the bytes of a verified shard. Writing the same shard twice changes nothing."""
        payload = arrival.payload
        path = self.folder / payload.site / action / f"{payload.shard:05d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as draft:
            draft.write_bytes(arrival.body)
        write_text(path.with_suffix(".json"), json.dumps({"sha256": arrival.sha256, "shards": payload.shards}))
        if self._receipts is not None:
            self._receipts[payload.site, action, payload.shard] = arrival.sha256

    def shards(self, site: str, action: str) -> tuple[int, set[int]]:
        """How many shards the site announced (0 if none has come), and the numbers that are here and intact. Raises FolderError
        for one that is not what came."""
        announced, here = 0, set()
        for note in sorted((self.folder / site / action).glob("[!.]*.json")):
            path, entry = note.with_suffix(".safetensors"), read_json(note, _AGAIN)
            if not isinstance(entry, dict) or type(entry.get("shards")) is not int or entry["shards"] < 1:
                raise damaged(note, "was changed: it is no note of a shard", _AGAIN)
            announced = entry["shards"]
            if not path.exists():
                continue  # it is asked for again
            number = int(note.stem)
            came = entry.get("sha256") if self._receipts is None else self._receipts.get((site, action, number))
            body = content_of(path, _AGAIN)
            if digest(body) != came:
                raise damaged(path, f"was changed: it is not what {site} sent", _AGAIN)
            if Payload.decode(body).shards != announced:
                raise damaged(note, "was changed: it says another number of shards than the shard", _AGAIN)
            here.add(number)
        return announced, here

    def holds(self, site: str) -> bool:
        """Whether any shard of `site` is here."""
        return next((self.folder / site).rglob("*.json"), None) is not None

    def table(self, site: str, action: str, array: str) -> CodeTable:
        """The rows of `array` over all shards of one site's action."""
        files = sorted((self.folder / site / action).glob("*.safetensors"))
        return CodeTable(files, array)

    def forget(self, site: str) -> tuple[str, ...]:
        """Delete every shard of `site`; the SHA-256 of each, as its site's ledger names it."""
        found = []
        for path in sorted((self.folder / site).rglob("*.safetensors")):
            with path.open("rb") as file:
                found.append(hashlib.file_digest(file, "sha256").hexdigest())
            path.unlink()
        for note in (self.folder / site).rglob("*.json"):
            note.unlink()
        return tuple(found)
