"""What a site's program keeps between two orders: what it has read, for as long as the files say the same, and its open ledger.

A memory lies in Flower's state of the site's own node and nowhere else: a worker of Ray, which carries out orders of many
hospitals, holds one for each node. It does not travel. Where Flower copies or stores a node's state an empty memory arrives,
and the site reads its files again, as it did for the first order.

Nothing is believed because of its age or its name: every file is read for every order, and what was made of it is used again
only if each of its bytes is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, final

from flwr.app import ConfigRecord, Context

from fedprivseg.core.files import read_small
from fedprivseg.governance.ledger.ledger import Ledger

T = TypeVar("T")

_NAME = "fedprivseg-memory"


@final
class Memory(ConfigRecord):
    """What one site's program remembers, empty at first and wherever it was copied to. For Flower it is an empty record.

    Attributes:
        ledger: the site's ledger, if it is open and told of no destruction; who uses it asks first whether it `is_current`.
        stage: the action of its last line.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger: Ledger | None = None
        self.stage = ""
        self._kept: dict[object, tuple[object, Any]] = {}

    @classmethod
    def of(cls, context: Context) -> Memory:
        """The memory of the node that `context` is of."""
        found = context.state.get(_NAME)
        if type(found) is not Memory:
            found = cls()
            found.put(context)
        return found

    def put(self, context: Context) -> None:
        """Be the memory of the node that `context` is of."""
        context.state[_NAME] = self

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        """Keys and names of patients stay in the process that read them: a copy is empty."""
        return Memory, ()

    def recall(self, read: Callable[[], T], *paths: Path) -> T:
        """What `read` makes of the files at `paths`: asked again only if one of them changed, or is not there to be read.

        read: always the same for the same files, and dependent on nothing else. Raises what it raises.
        """
        state = tuple(digest_of(path) for path in paths)
        if None in state:
            self._kept.pop(paths, None)
            return read()
        return self.keep(paths, state, read)

    def keep(self, name: object, state: object, make: Callable[[], T]) -> T:
        """What `make` made under `name` the last time, if it was in the same `state`; else what it makes now."""
        known = self._kept.get(name)
        if known is None or known[0] != state:
            known = self._kept[name] = state, make()
        found: T = known[1]
        return found


def digest_of(path: Path) -> str | None:
    """SHA-256 of the file at `path`; None if it cannot be read."""
    content = read_small(path)
    return None if content is None else hashlib.sha256(content).hexdigest()
