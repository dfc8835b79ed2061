"""Payloads on the server's disk while somebody may look at them."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np

from fedprivseg.core.kinds import WEIGHTS
from fedprivseg.core.records import Payload, digest
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.runtime.server.spool import HELD, Spool
from fedprivseg.runtime.server.store import Arrival

TYPES = ("bool", "float16", "float32", "float64", "int32", "int64", "uint8")


def arrival(site: str, rows: int) -> Arrival:
    draws = numpy_generator(0, site)
    arrays = {name: (100 * draws.random((rows, 3))).astype(name) for name in TYPES}
    payload = Payload(WEIGHTS, site, "train", {**arrays, "none": np.zeros((0, 2)), "one": np.array(7.0)})
    body = payload.encode()
    return Arrival(Payload.decode(body), body, digest(body))


def files_of_this_process() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if os.path.isdir("/proc/self/fd") else 0


def test_what_is_read_is_what_came_and_belongs_to_the_reader(tmp_path):
    spool, came = Spool(tmp_path), [arrival(site, 40) for site in ("centre1", "a-longer-name")]
    kept = [spool.keep(each) for each in came]
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    for one, other in zip(came, kept, strict=True):
        assert other.encode() == one.body
        for name, array in one.payload.arrays.items():
            np.testing.assert_array_equal(other.arrays[name], array)
            assert other.arrays[name].dtype == array.dtype
        other.arrays["float32"][:] = 0
        np.testing.assert_array_equal(other.arrays["float32"], one.payload.arrays["float32"])


def test_small_payloads_stay_in_memory_and_need_no_file(tmp_path):
    before, small = files_of_this_process(), arrival("centre1", 2)
    assert len(small.body) <= HELD
    spool = Spool(tmp_path)
    assert spool.keep(small) is small.payload
    assert files_of_this_process() == before


def test_the_file_is_closed_with_the_last_payload(tmp_path):
    before = files_of_this_process()
    kept = Spool(tmp_path).keep(arrival("centre1", 40))
    gc.collect()
    assert kept.arrays["int64"].shape == (40, 3)
    del kept
    gc.collect()
    assert files_of_this_process() == before
