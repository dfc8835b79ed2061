"""What one attack on one site came to, and how it is kept, so that a battery that was interrupted goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from fedprivseg.core.arrays import load_arrays, save_arrays
from fedprivseg.core.documents import damaged, read_document, write_document
from fedprivseg.core.leakage_result import AGAIN, InferenceSummary, ReconstructionResult
from fedprivseg.core.model import Frozen


@dataclass(frozen=True)
class Part:
    """One attack's results. left_out: why it, or some of it, could not be run. shown: pictures, for the report, of the drawing
    of something released that leaks most. seconds: how long it took."""

    redrawn: tuple[ReconstructionResult, ...] = ()
    inferred: tuple[InferenceSummary, ...] = ()
    left_out: tuple[str, ...] = ()
    shown: Mapping[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def worst(self) -> float:
        """The greatest normalised leakage of what was released; minus infinity if nothing was drawn of it."""
        return max((one.leakage for one in self.redrawn if not one.staged), default=-np.inf)


@dataclass(frozen=True)
class Piece:
    """An attack that is still to be carried out. name: unlike that of every other piece of the battery. subject: what it draws
    pictures of; the worst of each is shown."""

    name: str
    subject: str
    carry_out: Callable[[], Part]


def without(site: str, subject: str, *whys: str) -> list[Piece]:
    """The pieces of a battery that cannot be run: only why."""
    return [Piece(f"{site}.{subject}", f"{site}.{subject}", lambda: Part(left_out=whys))]


class _Record(Frozen):
    stamp: str
    redrawn: tuple[ReconstructionResult, ...]
    inferred: tuple[InferenceSummary, ...]
    left_out: tuple[str, ...]
    seconds: float


def _recorded(path: Path) -> _Record:
    try:
        return _Record.model_validate(read_document(path, AGAIN))
    except ValidationError:
        raise damaged(path, "is no record of a finished attack", AGAIN) from None


class Drafts:
    """Parts that are finished, as files ``attacks.draft-<piece>.*`` of the run in `run` until all of them are. stamp: of what
    was attacked and how; a draft with another stamp counts as none. pictures: whether any may be written."""

    def __init__(self, run: Path, stamp: str, *, pictures: bool) -> None:
        self._run, self._stamp, self._pictures = run, stamp, pictures

    def part(self, piece: Piece) -> Part:
        """What `piece` came to: kept from before, or carried out now and kept."""
        path = self._run / f"attacks.draft-{piece.name}.json"
        shown = path.with_suffix(".safetensors")
        if path.exists():
            record = _recorded(path)
            if record.stamp == self._stamp:
                pictures = load_arrays(shown, AGAIN) if shown.exists() else {}
                return Part(record.redrawn, record.inferred, record.left_out, pictures, record.seconds)
        start = time.perf_counter()
        part = piece.carry_out()
        part = replace(part, seconds=time.perf_counter() - start)
        shown.unlink(missing_ok=True)
        if self._pictures and part.shown:
            save_arrays(shown, part.shown)
        record = _Record(
            stamp=self._stamp,
            redrawn=part.redrawn,
            inferred=part.inferred,
            left_out=part.left_out,
            seconds=part.seconds,
        )
        write_document(path, record.model_dump(mode="json"))
        return part

    def forget(self) -> None:
        """Remove all drafts of the run: what they say stands elsewhere now."""
        for path in [*self._run.glob("attacks.draft-*"), *self._run.glob(".attacks.draft-*")]:
            path.unlink()
