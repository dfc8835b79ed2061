"""What one site of a finished run released: stored payloads, each held against the site's own ledger."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from fedprivseg.core.documents import content_of
from fedprivseg.core.errors import LedgerError
from fedprivseg.core.records import Payload, digest
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.line import Line


class Released:
    """The payloads of `site` that the server of the run in `run` stored. Every one is checked when it is read: LedgerError if
    the site's ledger does not verify, or does not show the payload as released."""

    def __init__(self, run: Path, site: str) -> None:
        self._ledger = RunFolder(run).site(site).ledger
        self._folder = RunFolder(run).server.codes / site
        self._site = site

    def rows(self, action: str, count: int | None = None) -> np.ndarray:
        """The first `count` codes (count, C, h, w) that `action` sent, in the order in which they came; None: all. Raises
        FolderError for a shard that is gone: fewer codes would be another attack."""
        parts: list[np.ndarray] = []
        numbers = {line.facts.get("number") for line in self._lines if line.facts.get("action") == action}
        for number in sorted(number for number in numbers if isinstance(number, int)):
            parts.append(self._checked(self._folder / action / f"{number:05d}.safetensors").arrays["codes"])
            if count is not None and sum(map(len, parts)) >= count:
                break
        return np.concatenate(parts)[:count]

    def first_update(self) -> Payload | None:
        """The weights, plain or masked, that the site sent in round 1; None if it sent none."""
        for path in sorted(self._folder.glob("*/00001.safetensors")):
            payload = self._checked(path)
            if payload.kind.lineage == "weights":
                return payload
        return None

    @cached_property
    def _lines(self) -> tuple[Line, ...]:
        """The releases in the site's ledger since the last withdrawal of consent, after which all was sent again."""
        ledger.verify(self._ledger)
        lines = ledger.read(self._ledger)
        begun = max((line.index for line in lines if line.event == "withdrawal"), default=0)
        return tuple(line for line in lines if line.event == "release" and line.index >= begun)

    @cached_property
    def _digests(self) -> frozenset[object]:
        return frozenset(line.facts.get("digest") for line in self._lines)

    def _checked(self, path: Path) -> Payload:
        body = content_of(path)
        if digest(body) not in self._digests:
            raise LedgerError(
                f"a stored payload of {self._site} ({path.parent.name} {path.stem}) is not in its ledger as released"
            )
        return Payload.decode(body)
