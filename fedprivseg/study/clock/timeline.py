"""Simulated time: each exchange begins when the one before it ended, and ends with the slowest site or at the deadline.

A site works on one order at a time: it receives it, computes, and sends what comes of it, while it is there. A site that misses
the deadline goes on with its order, and takes the next one when it has done; what it sends then comes too late.

The same exchanges, profiles and seed give the same times to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, final

from fedprivseg.core.seeds import numpy_generator
from fedprivseg.core.simulated_time import Bar, SimulatedTime, SiteTime, StageTime
from fedprivseg.core.site_profile import SiteProfile
from fedprivseg.study.clock.exchanges import Errand, Exchange
from fedprivseg.study.clock.presence import Presence, Span
from fedprivseg.study.clock.transfer import Line

RESTART_S = 60.0
"""What a crash costs beside the work that is lost: until the site's program runs again and has asked for the order."""

SERVER = "server"
"""Whose bars those of no site are."""

FINENESS = 400
"""A picture shows nothing shorter than this part of the study."""

MOST_DRAWN = 40
"""Of so many sites bars are kept: of the slowest."""

_What = Literal["down", "compute", "up", "crashed"]


def let_pass(
    exchanges: Iterable[Exchange], profiles: Mapping[str, SiteProfile], seed: int, deadline_s: float
) -> SimulatedTime:
    """The simulated time of a run.

    Args:
        exchanges: what was recorded of it.
        profiles: site -> its profile; every site of the exchanges has one.
        seed: of the draws.
        deadline_s: longest wait for one answer.
    """
    sites = {name: _SiteClock(name, profile, seed) for name, profile in sorted(profiles.items())}
    stages: dict[str, list[float]] = {}
    taken: dict[str, dict[str, float]] = {}
    server: list[tuple[str, Span]] = []
    now = 0.0
    for exchange in exchanges:
        begin, stage = now, exchange.stage
        own = taken.setdefault(stage, {})
        ends = []
        for name, errand in sorted(exchange.errands.items()):
            ready = sites[name].carry_out(exchange, errand, begin)
            sites[name].late += ready - begin > deadline_s
            ends.append(min(ready, begin + deadline_s))
            own[name] = own.get(name, 0.0) + ready - begin
        answered = max(ends, default=begin)
        now = answered + exchange.server_s
        server.append((stage, (answered, now)))
        times = stages.setdefault(stage, [begin, now, 0.0])
        times[1], times[2] = now, times[2] + exchange.server_s
    return SimulatedTime(
        total_s=now,
        deadline_s=deadline_s,
        sites={name: clock.times(now) for name, clock in sites.items()},
        stages={
            stage: StageTime(start_s=start, end_s=end, server_s=own, sites=taken[stage])
            for stage, (start, end, own) in stages.items()
        },
        bars=_drawn(sites, server, now),
    )


@final
class _SiteClock:
    """One site in simulated time."""

    def __init__(self, name: str, profile: SiteProfile, seed: int) -> None:
        self.name, self.late, self.crashes = name, 0, 0
        self.spent: dict[_What, float] = {"down": 0.0, "compute": 0.0, "up": 0.0, "crashed": 0.0}
        self.away_s = 0.0
        self.work: list[tuple[str, Span]] = []
        self.away: list[tuple[str, Span]] = []
        self._profile, self._seed = profile, seed
        self._presence = Presence(profile.availability, numpy_generator(seed, "clock", name, "presence"))
        round_trip = profile.latency / 1000
        self._down = Line(mbit=profile.downlink, round_trip_s=round_trip, loss=profile.loss)
        self._up = Line(mbit=profile.uplink, round_trip_s=round_trip, loss=profile.loss)
        self._now = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds in which it had something to do."""
        return sum(self.spent.values()) + self.away_s

    def carry_out(self, exchange: Exchange, errand: Errand, ordered: float) -> float:
        """The moment at which the server has the site's answer to an order of the moment `ordered`."""
        self._now = max(self._now, ordered)
        down = self._down.seconds(errand.down)
        compute = errand.seconds / (self._profile.speed * self._profile.share)
        for lost in self._crashes(exchange):
            self.crashes += 1
            self._spend("crashed", exchange.stage, down + lost * compute + RESTART_S)
        self._spend("down", exchange.stage, down)
        self._spend("compute", exchange.stage, compute)
        self._spend("up", exchange.stage, self._up.seconds(errand.up))
        return self._now

    def times(self, total: float) -> SiteTime:
        """What its time went on in a study of `total` seconds."""
        return SiteTime(
            **{f"{what}_s": seconds for what, seconds in self.spent.items()},
            away_s=self.away_s,
            waiting_s=max(0.0, total - self.busy_s),
            crashes=self.crashes,
            late=self.late,
        )

    def _crashes(self, exchange: Exchange) -> Iterable[float]:
        """How much of the computing is lost in each crash on this order, as a share of it."""
        if not self._profile.crash:
            return
        place = exchange.action, exchange.number, exchange.attempt
        draws = numpy_generator(self._seed, "clock", self.name, "crash", *place)
        while draws.random() < self._profile.crash:
            yield float(draws.random())

    def _spend(self, what: _What, stage: str, seconds: float) -> None:
        if not seconds:
            return
        for start, end in self._presence.spans(self._now, seconds):
            self.away_s += start - self._now
            self.away.append((stage, (self._now, start)))
            self.work.append((stage, (start, end)))
            self._now = end
        self.spent[what] += seconds


def _drawn(sites: Mapping[str, _SiteClock], server: list[tuple[str, Span]], total: float) -> tuple[Bar, ...]:
    """The bars of the server and of the slowest sites."""
    slowest = sorted(sites, key=lambda name: (-sites[name].busy_s, name))[:MOST_DRAWN]
    bars = _merged(SERVER, "work", server, total)
    for name in sorted(slowest):
        bars += _merged(name, "work", sites[name].work, total) + _merged(name, "away", sites[name].away, total)
    return tuple(bars)


def _merged(site: str, what: Literal["work", "away"], spans: Iterable[tuple[str, Span]], total: float) -> list[Bar]:
    """`spans` of one row, those of one stage that nobody could tell apart as one."""
    found: list[tuple[str, Span]] = []
    for stage, (start, end) in spans:
        if end <= start:
            continue
        if found and found[-1][0] == stage and start - found[-1][1][1] < total / FINENESS:
            found[-1] = stage, (found[-1][1][0], end)
        else:
            found.append((stage, (start, end)))
    return [Bar(site=site, stage=stage, what=what, start_s=start, end_s=end) for stage, (start, end) in found]
