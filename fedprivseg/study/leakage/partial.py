"""What one attack on one site found, and how it is kept, so that an interrupted session goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, Field, ValidationError

from fedprivseg.core.arrays import load_arrays, save_arrays
from fedprivseg.core.documents import damaged, read_document, write_document
from fedprivseg.core.leakage_record import AGAIN
from fedprivseg.core.leakage_result import InferenceResult, ReconstructionResult
from fedprivseg.core.model import Frozen


class PartialResult(Frozen):
    """What one attack on one site found.

    Attributes:
        left_out: why it, or some of it, could not be run.
        seconds: how long it took.
        shown: for the report, pictures of the reconstruction of something released that leaks most.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reconstructions: tuple[ReconstructionResult, ...] = ()
    inferences: tuple[InferenceResult, ...] = ()
    left_out: tuple[str, ...] = ()
    seconds: float = 0.0
    shown: Mapping[str, np.ndarray] = Field(default_factory=dict, exclude=True)

    @property
    def worst(self) -> float:
        """The greatest normalised leakage of what was released, whether or not it counts; minus infinity if nothing was
        reconstructed from it."""
        return max((one.leakage for one in self.reconstructions if not one.staged), default=-np.inf)


@dataclass(frozen=True)
class AttackTask:
    """An attack that is still to be carried out.

    Attributes:
        name: unlike that of every other task of the session.
        subject: what it reconstructs; the worst of each is shown.
        carry_out: the attack.
    """

    name: str
    subject: str
    carry_out: Callable[[], PartialResult]


def impossible(site: str, subject: str, *whys: str) -> list[AttackTask]:
    """The tasks of a session that cannot be run: only why."""
    return [AttackTask(f"{site}.{subject}", f"{site}.{subject}", lambda: PartialResult(left_out=whys))]


class Drafts:
    """Partial results, as files ``attacks.draft-<task>.*`` of the run's folder until all of them are there.

    Args:
        run: the run's folder.
        stamp: of what was attacked and how; a draft with another stamp counts as none.
        pictures: whether any may be written.
    """

    def __init__(self, run: Path, stamp: str, *, pictures: bool) -> None:
        self._run, self._stamp, self._pictures = run, stamp, pictures

    def result(self, task: AttackTask) -> PartialResult:
        """What `task` found: kept from before, or carried out now and kept."""
        path = self._run / f"attacks.draft-{task.name}.json"
        shown = path.with_suffix(".safetensors")
        if path.exists() and (content := read_document(path, AGAIN)).pop("stamp", None) == self._stamp:
            try:
                kept = PartialResult.model_validate(content)
            except ValidationError:
                raise damaged(path, "is no record of a finished attack", AGAIN) from None
            return kept.model_copy(update={"shown": load_arrays(shown, AGAIN) if shown.exists() else {}})
        start = time.perf_counter()
        found = task.carry_out()
        found = found.model_copy(update={"seconds": time.perf_counter() - start})
        shown.unlink(missing_ok=True)
        if self._pictures and found.shown:
            save_arrays(shown, found.shown)
        write_document(path, {**found.model_dump(mode="json"), "stamp": self._stamp})
        return found

    def forget(self) -> None:
        """Remove all drafts of the run: what they say stands elsewhere now."""
        for path in [*self._run.glob("attacks.draft-*"), *self._run.glob(".attacks.draft-*")]:
            path.unlink()
