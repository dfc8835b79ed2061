"""Simulated time by hand: 12 Mbit/s without latency carry 1,448,000 bytes of payload a second."""

from __future__ import annotations

import pytest

from fedprivseg.core.site_profile import Availability, SiteProfile
from fedprivseg.study.clock.exchanges import Errand, Exchange
from fedprivseg.study.clock.timeline import RESTART_S, let_pass

A_SECOND = 1_448_000
NEAR = SiteProfile(uplink=12, downlink=12, latency=0)
DAY = 86_400.0


def exchange(number=1, server_s=0.0, stage="rounds", **errands):
    return Exchange(stage, "train", number, 0, errands, server_s)


def passed(exchanges, deadline_s=DAY, seed=0, **profiles):
    return let_pass(exchanges, profiles, seed, deadline_s)


def test_an_exchange_takes_as_long_as_its_slowest_site():
    """a: 1 s down, 4 s of computing at half the speed and half the share, 2 s up. b: 3 s of computing. The server: 5 s."""
    slow = NEAR.model_copy(update={"speed": 0.5, "share": 0.5})
    errands = {"a": Errand(A_SECOND, 2 * A_SECOND, 1.0), "b": Errand(0, 0, 3.0)}
    time = passed([exchange(server_s=5.0, **errands)], a=slow, b=NEAR)
    assert time.total_s == 12
    a, b = time.sites["a"], time.sites["b"]
    assert (a.down_s, a.compute_s, a.up_s, a.waiting_s) == (1, 4, 2, 5)
    assert (b.compute_s, b.waiting_s) == (3, 9)
    stage = time.stages["rounds"]
    assert (stage.start_s, stage.end_s, stage.server_s, stage.sites) == (0, 12, 5, {"a": 7, "b": 3})


def test_stages_follow_each_other():
    work = {"a": Errand(0, 0, 2.0)}
    steps = [exchange(1, **work), Exchange("alone", "", 0, 0, {}, 3.0), exchange(1, stage="measure", **work)]
    time = passed(steps, a=NEAR)
    assert [(name, each.start_s, each.end_s) for name, each in time.stages.items()] == [
        ("rounds", 0, 2),
        ("alone", 2, 5),
        ("measure", 5, 7),
    ]


def test_each_round_of_secure_aggregation_pays_the_latency_of_its_four_steps():
    """Of 1,000 ms there and back every small payload takes 2.5 s: two round trips until it may go, and half a one to arrive."""
    far = SiteProfile(uplink=1000, downlink=1000, latency=1000)
    steps = [
        exchange(n, stage=step, a=Errand(100, 100, 0.0))
        for n in (1, 2)
        for step in ("keys", "shares", "masked", "open")
    ]
    assert passed(steps, a=far).total_s == pytest.approx(2 * 4 * 2 * 2.5, rel=1e-4)


def test_the_server_goes_on_at_the_deadline_and_the_straggler_with_its_order():
    """b takes 10 s where the server waits 4: three exchanges end at 4, 8 and 12. b begins the second order at 10."""
    steps = [exchange(n, a=Errand(0, 0, 1.0), b=Errand(0, 0, 10.0)) for n in (1, 2, 3)]
    time = passed(steps, deadline_s=4.0, a=NEAR, b=NEAR)
    assert time.total_s == 12
    assert (time.sites["a"].late, time.sites["b"].late) == (0, 3)
    assert time.stages["rounds"].sites == {"a": 3, "b": (10 - 0) + (20 - 4) + (30 - 8)}


def test_work_stops_while_the_site_is_away():
    """There for an hour, away for two: of three hours of computing the last ends after the seventh hour."""
    turns = NEAR.model_copy(update={"availability": Availability(trace=(1, 2))})
    time = passed([exchange(a=Errand(0, 0, 3 * 3600.0))], a=turns)
    assert time.total_s == 7 * 3600
    assert (time.sites["a"].compute_s, time.sites["a"].away_s) == (3 * 3600, 4 * 3600)
    work = [(bar.start_s / 3600, bar.end_s / 3600) for bar in time.bars if bar.what == "work"]
    away = [(bar.start_s / 3600, bar.end_s / 3600) for bar in time.bars if bar.what == "away"]
    assert work == [(0, 1), (3, 4), (6, 7)]
    assert away == [(1, 3), (4, 6)]


def test_a_crash_costs_the_work_and_the_restart():
    """Each time it is begun an order crashes with a chance of a half: one crash an order on average, which loses half of it."""
    frail = NEAR.model_copy(update={"crash": 0.5})
    time = passed([exchange(n, a=Errand(0, 0, 100.0)) for n in range(2000)], a=frail)
    site = time.sites["a"]
    assert site.crashes == pytest.approx(2000, rel=0.1)
    assert site.crashed_s == pytest.approx(site.crashes * (50 + RESTART_S), rel=0.05)
    assert time.total_s == pytest.approx(site.compute_s + site.crashed_s)


def test_the_same_seed_gives_the_same_times_to_the_last_bit():
    profile = SiteProfile(
        uplink=3, latency=37, loss=0.003, crash=0.2, availability=Availability(markov={"there": 0.5, "away": 0.1})
    )
    steps = [exchange(n, a=Errand(10**6, 10**7, 31.7), b=Errand(10**5, 10**6, 3.3)) for n in range(20)]
    first, again, other = (passed(steps, seed=seed, a=profile, b=profile) for seed in (7, 7, 8))
    assert first.model_dump_json() == again.model_dump_json()
    assert first.total_s != other.total_s


def test_a_site_draws_for_itself_alone():
    """What one site is like changes nothing of what another one draws."""
    frail = NEAR.model_copy(update={"crash": 0.5})
    steps = [exchange(n, a=Errand(0, 0, 10.0), b=Errand(0, 0, 10.0)) for n in range(50)]
    assert passed(steps, a=frail, b=NEAR).sites["a"].crashes == passed(steps, a=frail, b=frail).sites["a"].crashes


def test_bars_are_no_finer_than_a_picture():
    steps = [exchange(n, 0.001, a=Errand(0, 0, 1.0), b=Errand(0, 0, 0.999)) for n in range(5000)]
    time = passed(steps, a=NEAR, b=NEAR)
    assert [bar.site for bar in time.bars] == ["server", "a", "b"]


def test_bars_are_of_the_slowest_sites():
    names = [f"s{n:03d}" for n in range(100)]
    steps = [exchange(**{name: Errand(0, 0, float(n)) for n, name in enumerate(names)})]
    time = passed(steps, **dict.fromkeys(names, NEAR))
    assert {bar.site for bar in time.bars} == set(names[60:])
    assert len(time.sites) == 100
