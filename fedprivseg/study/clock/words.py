"""What the virtual clock found, in sentences."""

from __future__ import annotations

from fedprivseg.core.simulated_time import SimulatedTime, SiteTime

_UNITS = (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0), ("second", 1.0))

_ACTS = (
    ("up_s", "sending"),
    ("down_s", "receiving"),
    ("compute_s", "computing"),
    ("away_s", "away"),
    ("crashed_s", "lost to crashes"),
)


def duration(seconds: float) -> str:
    """A length of time for people, in the largest unit of which there are two: ``9 days``, ``36 hours``, ``0.4 seconds``."""
    for name, length in _UNITS:
        if seconds >= 1.995 * length:
            return f"{seconds / length:.0f} {name}s"
    return f"{seconds:.1f} seconds"


def sentence(time: SimulatedTime) -> str:
    """How long the study takes."""
    return f"This study takes {duration(time.total_s)} between these hospitals."


def reasons(time: SimulatedTime) -> tuple[str, ...]:
    """Who is waited for and why, and who is late, in sentences."""
    if not time.sites:
        return ()
    name, slowest = max(time.sites.items(), key=lambda each: each[1].busy_s)
    spent = ", ".join(f"{duration(value)} {act}" for act, value in _acts(slowest))
    said = [f"The others wait most for {name}: {spent}."] if spent else []
    said += [
        f"{name} answers {site.late} order{'s' if site.late != 1 else ''} after the deadline of {duration(time.deadline_s)}; "
        "what is counted is a run in which it stayed."
        for name, site in time.sites.items()
        if site.late
    ]
    return tuple(said)


def _acts(site: SiteTime) -> list[tuple[str, float]]:
    """What a site's time went on, longest first; nothing that is less than a fiftieth of it."""
    found = [(act, getattr(site, field)) for field, act in _ACTS]
    return sorted(
        ((act, value) for act, value in found if value > site.busy_s / 50), key=lambda each: each[1], reverse=True
    )
