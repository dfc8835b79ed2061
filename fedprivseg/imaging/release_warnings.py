"""What looks wrong in a release and may be right: it is told by name, and nobody is left out for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

WARNINGS: Mapping[str, str] = MappingProxyType(
    {
        "companion-files": "files that macOS wrote beside others (._*) are ignored",
        "table-encoding": "nothing tells the table's encoding; it was read as cp1252",
        "label-order": "by the anatomy, the mask's labels stand for other structures than LV, MYO and RV",
        "open-myocardium": "the myocardium does not enclose the LV",
        "missing-structure": "a labelled frame lacks LV, MYO or RV",
        "phase-order": "the LV is not larger at ED than at ES",
        "same-frame": "ED and ES are the same image",
    }
)
"""Every code that a `ReleaseWarning` may carry, and its meaning."""


@dataclass(frozen=True)
class ReleaseWarning:
    """Something to look at. For the site's own eyes: it names codes.

    Attributes:
        code: A key of `WARNINGS`.
        file: The file's name relative to the release.
        what: The particulars.
    """

    code: str
    file: str
    what: str
