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
