"""The code store: rows come back as they went, memory does not grow, a changed shard is noticed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fedprivseg.core.errors import FolderError
from fedprivseg.core.kinds import IMAGE_CODE
from fedprivseg.core.records import Payload, digest
from fedprivseg.runtime.server.store import Arrival, Store


def _fill(folder, counts, width=5):
    store, rows = Store(folder), []
    for number, count in enumerate(counts):
        codes = (np.arange(count * width).reshape(count, width) % 1000 + 1000 * (number % 60)).astype(np.float16)
        payload = Payload(IMAGE_CODE, "a", "train", {"codes": codes}, shard=number, shards=len(counts))
        body = payload.encode()
        store.put("send", Arrival(payload, body, digest(body)))
        rows.append(codes)
    return store, np.concatenate(rows)


@pytest.mark.parametrize("counts", [[4], [4, 4, 1], [3, 0, 2], [1] * 12])
def test_rows_are_those_of_the_joined_shards(tmp_path, counts):
    store, joined = _fill(tmp_path, counts)
    table = store.table("a", "send", "codes")
    assert len(table) == len(joined)
    order = np.random.default_rng(0).permutation(len(joined))
    np.testing.assert_array_equal(table.rows(order), joined[order])
    np.testing.assert_array_equal(table.rows(np.array([0, 0, len(joined) - 1])), joined[[0, 0, -1]])
    assert table.rows(np.array([], dtype=int)).shape == (0, 5)


def test_the_store_knows_what_is_missing(tmp_path):
    store, _ = _fill(tmp_path, [2, 2, 2])
    assert store.shards("a", "send") == (3, {0, 1, 2})
    (tmp_path / "a" / "send" / "00001.json").unlink()  # as if the run was killed between the two writes
    assert store.shards("a", "send") == (3, {0, 2})
    assert store.shards("b", "send") == (0, set())


def test_a_shard_that_changed_on_disk_is_noticed(tmp_path):
    store, _ = _fill(tmp_path, [2])
    path = tmp_path / "a" / "send" / "00000.safetensors"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(bytes(body))
    with pytest.raises(FolderError, match="was changed: it is not what a sent. Delete it and run"):
        store.shards("a", "send")


def test_memory_does_not_grow_with_the_number_of_slices(tmp_path):
    peaks = []
    for shards in (2, 40):  # 256 KiB a shard
        store, _ = _fill(tmp_path / str(shards), [128] * shards, width=1024)
        table = store.table("a", "send", "codes")
        tracemalloc.start()
        for start in range(0, len(table), 16):
            table.rows(np.arange(start, start + 16))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 38 more shards hold 9.5 MiB; what each costs in memory is its path and its offsets.
    assert peaks[1] - peaks[0] < 64 * 1024
