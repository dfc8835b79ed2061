"""Payloads of one exchange, on the server's disk while somebody may look at them: memory holds the array that is looked at.

The file has no name. It is gone with the last payload that lies in it, or with the process, however that ends: nothing of it
has to be found again, deleted or destroyed.
"""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from fedprivseg.core.records import Payload
from fedprivseg.runtime.server.store import Arrival

HELD = 4096
"""Payloads of so many bytes or fewer stay in memory."""


class _Place(NamedTuple):
    """Where an array lies, from the start of the arrays' bytes on."""

    start: int
    dtype: np.dtype
    shape: tuple[int, ...]


_Layout = Mapping[str, _Place]


@final
class Spool:
    """An unnamed file in `folder`. Raises OSError where it cannot be made or written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor, self._end = -1, 0
        self._layouts: dict[str, _Layout] = {}

    def keep(self, arrival: Arrival) -> Payload:
        """The payload that came, its arrays read anew whenever they are looked at."""
        body, payload = arrival.body, arrival.payload
        if len(body) <= HELD:
            return payload
        if self._descriptor < 0:
            file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - closed with the last payload
            self._descriptor = file.fileno()
            weakref.finalize(self, file.close)
        place, self._end = self._end, self._end + len(body)
        view = memoryview(body)
        while view:
            view = view[os.pwrite(self._descriptor, view, self._end - len(view)) :]
        size = int.from_bytes(body[:8], "little")
        return replace(payload, arrays=_OnDisk(self, place + 8 + size, self._layout(body[8 : 8 + size], payload)))

    def read(self, start: int, place: _Place) -> np.ndarray:
        """One array, writable, as it came."""
        array = np.empty(place.shape, place.dtype)
        view, done = array.reshape(-1).view(np.uint8).data, 0
        while done < array.nbytes:
            done += os.preadv(self._descriptor, [view[done:]], start + place.start + done)
        return array

    def _layout(self, header: bytes, payload: Payload) -> _Layout:
        """Where the arrays of a payload lie; one for all payloads of the same form."""
        entries = json.loads(header)
        starts = {name: entries[name]["data_offsets"][0] for name in payload.arrays}
        form = {name: _Place(starts[name], each.dtype, each.shape) for name, each in payload.arrays.items()}
        return self._layouts.setdefault(repr(form), form)


@final
class _OnDisk(Mapping[str, np.ndarray]):
    """The arrays of one payload in a spool."""

    __slots__ = ("_layout", "_spool", "_start")

    def __init__(self, spool: Spool, start: int, layout: _Layout) -> None:
        self._spool, self._start, self._layout = spool, start, layout

    def __getitem__(self, name: str) -> np.ndarray:
        return self._spool.read(self._start, self._layout[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout)

    def __len__(self) -> int:
        return len(self._layout)
