"""The admission table of a run: the worst that attacks reached of each indicator, against the thresholds of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fedprivseg.core.config import AdmissionConfig
from fedprivseg.core.leakage_result import INDICATORS, Leakage
from fedprivseg.core.model import Frozen


class Indicator(Frozen):
    """One line of the admission table.

    Attributes:
        name: the indicator in words.
        measured: the worst; None where nothing could be measured.
        threshold: the greatest value that passes.
        by: which attack reached it, and where.
        whose: who set the threshold.
    """

    name: str
    measured: float | None
    threshold: float
    by: str
    whose: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether it is admitted; None where nothing was measured, which is no admission."""
        return None if self.measured is None else self.measured <= self.threshold


def admission(
    found: Leakage, policy: AdmissionConfig, whose: Mapping[str, str] = MappingProxyType({})
) -> tuple[Indicator, ...]:
    """The admission table of a run: the worst that any attack that counts reached of each indicator, against its threshold.

    Args:
        found: what attacks on the run found.
        policy: the thresholds.
        whose: who set each threshold, by its name there.
    """
    lines = []
    for key, name in INDICATORS.items():
        threshold = getattr(policy, key)
        measured, by = _measured(found, key, threshold)
        line = Indicator(name=name, measured=measured, threshold=threshold, by=by, whose=whose.get(key, ""))
        lines.append(line)
    return tuple(lines)


def _measured(found: Leakage, key: str, threshold: float) -> tuple[float | None, str]:
    """The worst of an indicator and who reached it; None where nothing is known. Of a headline that is not known, what is known
    may be too much already."""
    if key == "headline":
        if (top := found.headline) is not None:
            return top.value, top.by
        least = found.at_least
        return (None, "") if least is None or least.value <= threshold else (least.value, f"at least; {least.by}")
    own = [one for one in found.counted if key in one.indicators]
    worst = max(own, key=lambda one: one.indicators[key], default=None)
    if worst is None:
        return None, ""
    value = worst.indicators[key]
    return (max(value, 0.0) if key in ("image_leakage", "mask_leakage") else value), worst.by
