"""Progress as a small file that whoever started the run may read: it works the same in one process and under Ray."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from fedprivseg.core.files import write_text

INTERVAL_S = 0.3
"""Shortest time between two writes of the same stage, in seconds."""


class ProgressFile:
    """A `Progress` that keeps the newest ``(stage, done, total)`` in a file, at most every `INTERVAL_S` seconds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stage = ""
        self._next = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note that `stage` has done `done` of `total` steps."""
        now = time.monotonic()
        if stage == self._stage and now < self._next and done < total:
            return
        self._stage, self._next = stage, now + INTERVAL_S
        write_text(self.path, json.dumps([stage, done, total]))


@dataclass(frozen=True)
class Step:
    """The newest progress of one party."""

    stage: str
    done: int
    total: int


def read_progress(path: Path) -> Step | None:
    """What the file says, or None if nothing was written yet, or nothing that can be shown: the next step writes it again."""
    try:
        stage, done, total = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return Step(stage, done, total)
