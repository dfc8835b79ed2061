"""A round under secure aggregation, step by step: the same mean, dropouts, and what the server gets to see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import FakeFederation, FakeSite, blocks

from fedprivseg.core.config import MethodConfig
from fedprivseg.core.errors import QuorumError, ScenarioError, ServerError
from fedprivseg.core.kinds import KINDS, MASK_SHARE, MASKED_WEIGHTS, WEIGHTS
from fedprivseg.core.records import Order
from fedprivseg.methods import METHODS, masking, resolve
from fedprivseg.methods.masking import threshold_of
from fedprivseg.methods.training import MODEL, NET, SummableParameters, under

BRIEF = {"rounds": 2, "local_steps": 1, "curve_points": 0, "test_views": 1}


def run(folder, name="fedavg", lost=(), count=3, **parameters):
    """Conduct `name` over `count` sites; returns the federation and the final arrays."""
    method = resolve(MethodConfig(name=name, parameters={**BRIEF, **parameters}))
    sites = [FakeSite(f"centre{i}", blocks(8 + 4 * i, seed=i), folder / "sites") for i in range(count)]
    federation = FakeFederation(method, sites, folder / "server", lost=lost)
    method.conduct(federation)
    return federation, under(federation.load_model(MODEL)[0], NET)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("name", ["fedavg", "fedbn", "fedprox", "fedadam"])
def test_masks_change_nothing(tmp_path, name):
    plain = run(tmp_path / "plain", name, summation="fixed-point")[1]
    masked = run(tmp_path / "masked", name, summation="secure")[1]
    assert_equal(plain, masked)


def test_fixed_point_is_the_float_mean_to_its_precision(tmp_path):
    exact = run(tmp_path / "exact", summation="fixed-point", rounds=1)[1]
    floating = run(tmp_path / "float", rounds=1)[1]
    for name in exact:
        np.testing.assert_allclose(exact[name], floating[name], rtol=1e-6, atol=2.0**-24)


def test_weights_travel_masked_only(tmp_path):
    federation, _ = run(tmp_path, summation="secure")
    sent = {kind: [p for _, _, p in federation.got if p.kind == kind] for kind in KINDS}
    assert not sent[WEIGHTS]
    assert len(sent[MASKED_WEIGHTS]) == 2 * 3
    assert {p.arrays["masked"].dtype.name for p in sent[MASKED_WEIGHTS]} == {"int64"}
    # Two sites' masked vectors of one round have nothing in common: their bits differ in half of the places.
    one, other = (p.arrays["masked"].view(np.uint8) for p in sent[MASKED_WEIGHTS][:2])
    assert abs(np.unpackbits(one ^ other).mean() - 0.5) < 0.001


@pytest.mark.parametrize("step", ["masked_shares", "masked_update"])
def test_a_site_that_drops_out_is_left_out_of_the_mean(tmp_path, step):
    # Four sites, threshold ceil(8 / 3) = 3: one may drop out at any step. The mean is that of the other three.
    lost = [(step, "centre3")]
    masked = run(tmp_path / "masked", lost=lost, count=4, summation="secure", rounds=1)[1]
    plain = run(tmp_path / "plain", lost=[("train", "centre3")], count=4, summation="fixed-point", rounds=1)[1]
    assert_equal(plain, masked)


def test_the_most_dropouts_that_are_tolerated(tmp_path):
    # Threshold 2 of 4: two may drop out, one before it sent its update and one after.
    lost = [("masked_update", "centre2"), ("masked_open", "centre3")]
    masked = run(tmp_path / "masked", lost=lost, count=4, summation="secure", threshold=2, rounds=1)[1]
    plain = run(tmp_path / "plain", lost=[("train", "centre2")], count=4, summation="fixed-point", rounds=1)[1]
    assert_equal(plain, masked)


@pytest.mark.parametrize("step", ["masked_keys", "masked_shares", "masked_update", "masked_open"])
def test_one_dropout_more_ends_the_round_and_opens_nothing(tmp_path, step):
    lost = [(step, "centre1"), (step, "centre2")]  # threshold 2 of 3
    with pytest.raises(QuorumError, match="Nothing was opened"):
        run(tmp_path, lost=lost, summation="secure")


def _stayed(*sites: int) -> dict[str, np.ndarray]:
    """What a server says of who stayed."""
    return {f"stayed/centre{place}": np.array([stays], np.uint8) for place, stays in enumerate(sites)}


def test_no_site_hands_out_both_halves(tmp_path):
    federation, _ = run(tmp_path, summation="secure", rounds=1)
    method, site = federation.method, federation.all["centre0"]
    stayed = federation.answer(MASK_SHARE, "centre0", _stayed(1, 0, 1), 1)
    assert site.vault.load("masks") == {}, "a site forgets a round's secrets when it has answered"
    with pytest.raises(ValueError, match="too few sites"):
        method.actions["masked_open"](method, site, Order("masked_open", 1, stayed))


def test_a_site_opens_nothing_for_too_few_survivors(tmp_path):
    method = resolve(MethodConfig(name="fedavg", parameters={**BRIEF, "summation": "secure"}))
    sites = [FakeSite(f"centre{i}", blocks(8), tmp_path / "sites") for i in range(3)]
    federation = FakeFederation(method, sites, tmp_path / "server", lost=[("masked_open", "centre2")])
    # The server claims that only one site stayed: its own mask would be opened, and its update with it.
    opened = federation.ask

    def lying(action, expected, *, number=0, answers=None, sites=None):
        if action == "masked_open":
            answers = {name: federation.answer(MASK_SHARE, name, _stayed(1, 0, 0), number) for name in answers}
        return opened(action, expected, number=number, answers=answers, sites=sites)

    federation.ask = lying
    with pytest.raises(ValueError, match="too few sites stayed"):
        method.conduct(federation)


def _told(federation, action, change):
    """`federation`, whose server brings ``change(site, arrays)`` in the place of an order's arrays."""
    asked = federation.ask

    def lying(step, expected, *, number=0, answers=None, sites=None):
        if step == action:
            answers = {
                name: federation.answer(sent.kind, name, change(name, dict(sent.arrays)), number)
                for name, sent in answers.items()
            }
        return asked(step, expected, number=number, answers=answers, sites=sites)

    federation.ask = lying
    return federation


def _secure(folder, count=3, lost=(), **parameters):
    method = resolve(MethodConfig(name="fedavg", parameters={**BRIEF, "summation": "secure", **parameters}))
    sites = [FakeSite(f"centre{i}", blocks(8 + 4 * i, seed=i), folder / "sites") for i in range(count)]
    return FakeFederation(method, sites, folder / "server", lost=lost)


def _without(*prefixes):
    """Arrays but for those whose names begin so."""
    return lambda site, arrays: {name: value for name, value in arrays.items() if not name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without("from/"), "0 sites shared secrets, 2 are needed"),
        (_without("from/centre1", "from/centre2"), "1 sites shared secrets, 2 are needed"),
        (_without("from/centre0"), "2 sites shared secrets, 2 are needed, all of them known and this one there"),
        (lambda site, arrays: {**arrays, "from/nobody": arrays["from/centre1"]}, "all of them known"),
    ],
    ids=["nobody", "itself alone", "all but itself", "a stranger"],
)
def test_a_site_masks_only_against_enough_sites_that_it_knows(tmp_path, change, says):
    """The first site that is asked sends nothing, trained or not."""
    federation = _told(_secure(tmp_path), "masked_update", change)
    with pytest.raises(ValueError, match=says):
        federation.method.conduct(federation)
    assert not [payload for _, _, payload in federation.got if payload.kind == MASKED_WEIGHTS]
    assert not federation.all["centre0"].vault.has("rule"), "it looked before it trained"


@pytest.mark.parametrize("change", [_without("keys/centre0"), _without("keys/centre1", "keys/centre2")])
def test_a_site_shares_its_secrets_only_among_enough_sites(tmp_path, change):
    federation = _told(_secure(tmp_path), "masked_shares", change)
    with pytest.raises(ValueError, match="sites published keys"):
        federation.method.conduct(federation)


def test_a_site_whose_key_was_exchanged_shares_nothing(tmp_path):
    def exchanged(site, arrays):
        return {**arrays, f"keys/{site}": arrays["keys/centre1" if site == "centre0" else "keys/centre0"]}

    federation = _told(_secure(tmp_path), "masked_shares", exchanged)
    with pytest.raises(ValueError, match="this site's own must be there"):
        federation.method.conduct(federation)


class Killed(Exception):
    """The server's process ends."""


def _killed_after(federation, action, number):
    """`federation`, whose server is gone when the sites have answered `action` of round `number`."""
    asked = federation.ask

    def ask(step, expected, *, number=0, answers=None, sites=None, at=number):
        replies = asked(step, expected, number=number, answers=answers, sites=sites)
        if (step, number) == (action, at):
            raise Killed
        return replies

    federation.ask = ask
    return federation


@pytest.mark.parametrize("step", ["masked_shares", "masked_update", "masked_open"])
def test_a_server_that_is_killed_in_a_round_goes_on_with_the_same_numbers(tmp_path, step):
    """Fresh masks over the same sites: also where the round had been opened, the sum that is opened again is the same one."""
    whole = run(tmp_path / "whole", summation="secure")[1]
    killed = _killed_after(_secure(tmp_path / "killed"), step, 2)
    with pytest.raises(Killed):
        killed.method.conduct(killed)
    again = _secure(tmp_path / "killed")
    again.method.conduct(again)
    assert {number for action, number, _ in again.asked if action == "masked_update"} == {2}
    assert_equal(whole, under(again.load_model(MODEL)[0], NET))


def test_a_round_is_opened_over_no_other_sites(tmp_path):
    """Four sites, threshold 3. Round 2 is opened over all, the server is killed, and centre3 is gone when it is done again: the
    difference of the two sums would be centre3's update."""
    killed = _killed_after(_secure(tmp_path, count=4), "masked_open", 2)
    with pytest.raises(Killed):
        killed.method.conduct(killed)
    again = _secure(tmp_path, count=4, lost=[("masked_update", "centre3")])
    others = "centre0, centre1, centre2"
    with pytest.raises(
        ValueError, match=f"round 2 was opened over {others}, centre3; over {others} too, one site's update"
    ):
        again.method.conduct(again)
    assert not [payload for action, _, payload in again.got if action == "masked_open"]


def test_a_round_that_was_masked_and_not_opened_may_lose_a_site(tmp_path):
    """Nothing was opened before the server was killed, so nothing can be compared."""
    killed = _killed_after(_secure(tmp_path / "killed", count=4, rounds=1), "masked_update", 1)
    with pytest.raises(Killed):
        killed.method.conduct(killed)
    again = _secure(tmp_path / "killed", count=4, lost=[("masked_update", "centre3")], rounds=1)
    again.method.conduct(again)
    plain = run(tmp_path / "plain", lost=[("train", "centre3")], count=4, summation="fixed-point", rounds=1)[1]
    assert_equal(plain, under(again.load_model(MODEL)[0], NET))


def test_the_result_says_what_colluders_learn(tmp_path):
    federation, _ = run(tmp_path, summation="secure", rounds=1)
    notes = [entry for entry in federation.entries if isinstance(entry, tuple)]
    assert [site for site, _ in notes] == ["centre0", "centre1", "centre2"]
    assert "opens a sum of 2 or more of 3 sites; 1 of them, together with the server" in notes[0][1]


@pytest.mark.parametrize(
    ("sites", "parameters", "says"),
    [
        (257, {"summation": "secure"}, "257 sites take part in a round, and a sum in fixed point holds 256"),
        (300, {"summation": "fixed-point"}, "300 sites take part in a round, and a sum in fixed point holds 256"),
        (
            3,
            {"summation": "secure", "threshold": 4},
            "3 sites take part.*4 are needed.*lower method.parameters.threshold",
        ),
        (1, {"summation": "secure"}, "1 sites take part.*it takes two sites at least"),
        (5, {"summation": "secure", "fraction": 0.2}, "1 sites take part"),
    ],
)
def test_sums_that_cannot_be_are_refused_beforehand(sites, parameters, says):
    with pytest.raises(ScenarioError, match=says):
        resolve(MethodConfig(name="fedavg", parameters=parameters)).check_sites(sites)


def test_sums_that_can_be_are_not():
    resolve(MethodConfig(name="fedavg", parameters={"summation": "secure"})).check_sites(256)
    resolve(MethodConfig(name="fedavg", parameters={"summation": "fixed-point", "fraction": 0.5})).check_sites(512)
    resolve(MethodConfig(name="fedavg")).check_sites(1000)


def test_thresholds():
    # Two thirds, rounded up, and never fewer than two: with one, a single site's update could be opened.
    p = SummableParameters()
    assert [threshold_of(p, sites) for sites in (2, 3, 4, 5, 6, 10)] == [2, 2, 3, 4, 4, 7]
    assert threshold_of(SummableParameters(threshold=5), 6) == 5


@pytest.mark.parametrize("name", ["scaffold", "fednova", "fedmedian", "krum", "ditto"])
def test_methods_that_need_each_update_have_no_secure_sum(name):
    assert name in {method.name for method in METHODS}
    with pytest.raises(ScenarioError, match="unknown key 'summation'"):
        resolve(MethodConfig(name=name, parameters={"summation": "secure"}))


def test_no_sum_is_opened_of_sites_that_were_sent_different_weights(tmp_path, monkeypatch):
    packed = masking.packed

    def inconsistent(federation, arrays, extra, number):
        sent = packed(federation, arrays, extra, number)
        name = sorted(under(sent["centre1"].arrays, NET))[0]
        changed = {**sent["centre1"].arrays, NET + name: sent["centre1"].arrays[NET + name] * np.float32(1.0001)}
        return {**sent, "centre1": replace(sent["centre1"], arrays=changed)}

    monkeypatch.setattr(masking, "packed", inconsistent)
    with pytest.raises(ServerError, match="is no mean of weights"):
        run(tmp_path, summation="secure")
