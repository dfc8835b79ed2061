"""Which of a scenario's faults have happened. A run that was killed by one goes on without suffering it again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import final

from fedprivseg.core.fault_config import FaultConfig
from fedprivseg.core.files import write_text
from fedprivseg.core.records import Order
from fedprivseg.core.runfolder import RunFolder


@final
class Occurrences:
    """The occurrences of `faults`, noted in `folder`: one small file a fault, which says how often it happened."""

    def __init__(self, folder: Path, faults: Sequence[FaultConfig]) -> None:
        self._folder, self._faults = folder, faults

    def next(self, party: str, order: Order, kinds: Collection[str], when: str = "") -> FaultConfig | None:
        """The fault of one of these kinds that happens to `party` now, in `order`; None if none does. It is noted as happened.

        Args:
            party: a site, or the server.
            order: that is carried out.
            kinds: of faults.
            when: before or after it was carried out; empty where that is no matter.
        """
        for place, fault in enumerate(self._faults):
            matches = (fault.party, fault.action) == (party, order.action) and fault.number in (None, order.number)
            if not matches or fault.kind not in kinds or when not in ("", fault.when):
                continue
            path = self._folder / str(place)
            if (count := _count(path)) < fault.times:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, str(count + 1))
                return fault
        return None


def fault_notes(run: RunFolder, faults: Sequence[FaultConfig]) -> tuple[str, ...]:
    """That faults were simulated, and which of them happened in the run, in sentences."""
    found = []
    for place, fault in enumerate(faults):
        times = _count(run.faults / str(place))
        happened = {0: "did not happen", 1: "once"}.get(times, f"{times} times")
        found.append(f"simulated fault: {fault.kind} of {fault.party} in {fault.action!r}, {happened}")
    return tuple(found)


def _count(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0
