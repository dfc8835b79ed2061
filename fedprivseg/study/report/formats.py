"""How the report writes numbers, and the words of a run's programs, for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

_BLOCKED = re.compile(r"(?:withheld by its gate|blocked by site policy) in '[^']*' \([^)]*\): (.*)", re.DOTALL)


def why_it_left(status: str) -> str:
    """The status of a site that left, without names of orders and rules: the ledger has those."""
    found = _BLOCKED.fullmatch(status)
    return f"blocked by site policy: {found[1]}" if found else status


def score(value: float | None) -> str:
    """A share or a Dice, three digits."""
    return "–" if value is None or value != value else f"{value:.3f}"


def _mm(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _count(value: int) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _size(value: int) -> str:
    """Bytes in decimal units."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= factor:
            return f"{value / factor:.1f}\N{NO-BREAK SPACE}{unit}"
    return f"{value}\N{NO-BREAK SPACE}B"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def joined(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``, or ``nothing``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "nothing"


FILTERS: Mapping[str, Callable[..., str]] = {"score": score, "mm": _mm, "size": _size, "time": _time, "count": _count}
