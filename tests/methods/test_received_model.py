"""What a site trains on: honest rounds pass, crafted weights do not, and the reason tells nothing of its patients."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import FakeSite, blocks

from fedprivseg.attacks.control_nets import PLAIN, control_net
from fedprivseg.attacks.crafted_weights import imprinted, silenced
from fedprivseg.core.config import MethodConfig
from fedprivseg.core.errors import ModelRefused
from fedprivseg.core.kinds import WEIGHTS
from fedprivseg.core.records import Order, Payload
from fedprivseg.methods import resolve
from fedprivseg.methods.client_update import run_round
from fedprivseg.methods.received_model import dead_share, repeated_share
from fedprivseg.methods.training import NET, build, prefixed
from fedprivseg.nets.baseline import build_net, load_weights, weights_of


@pytest.fixture
def site(tmp_path):
    return FakeSite("centre1", blocks(), tmp_path)


METHOD = resolve(MethodConfig(name="fedavg", parameters={"local_steps": 1, "batch": 4}))


def _order(weights, number=1):
    return Order("train", number, Payload(WEIGHTS, "centre1", "answer", prefixed(NET, weights)))


def _refusal(site, weights, number=1):
    with pytest.raises(ModelRefused) as refused:
        run_round(METHOD, site, _order(weights, number))
    assert "centre1" not in refused.value.reason
    return refused.value.rule


@pytest.fixture
def initial(site):
    return weights_of(build(METHOD.parameters, site))


def test_rounds_follow_each_other_and_may_be_repeated(site, initial):
    first = run_round(METHOD, site, _order(initial))
    second = run_round(METHOD, site, _order(first.arrays, 2))
    again = run_round(METHOD, site, _order(first.arrays, 2))
    for name, value in second.arrays.items():
        np.testing.assert_array_equal(value, again.arrays[name])


def test_unrelated_weights_of_the_same_size_are_refused(site, initial):
    # At a right angle to those before, and as long: sqrt(2) = 1.41 lengths away, above the bound of 1.2.
    drawn = {name: np.random.default_rng(0).permuted(value) for name, value in initial.items()}
    assert _refusal(site, drawn) == "model.jump"
    near = {name: value + 0.7 * (drawn[name] - value) for name, value in initial.items()}
    run_round(METHOD, site, _order(near))  # 0.99 lengths away


def test_who_was_not_asked_for_some_rounds_allows_as_many_changes(site, initial):
    later = {name: 4 * value if value.ndim > 1 else value for name, value in initial.items()}
    assert _refusal(site, later) == "model.jump"
    run_round(METHOD, site, _order(later, 3))  # three lengths in three rounds, of at most 3.6


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("model.not-finite", lambda value: np.full_like(value, np.nan)),
        ("model.out-of-range", lambda value: value * 1e5),
        ("model.repeated-filters", lambda value: np.repeat(value[:1], len(value), axis=0)),
        ("model.dead-units", np.zeros_like),
    ],
)
def test_degenerate_weights_are_refused(site, initial, rule, change):
    crafted = {name: change(value) if value.ndim > 1 and len(value) > 3 else value for name, value in initial.items()}
    assert _refusal(site, crafted) == rule


def test_units_that_a_threshold_closes_are_dead(site, initial):
    closed = {name: value - 50 if name.endswith("stem.4.bias") else value for name, value in initial.items()}
    assert _refusal(site, closed) == "model.dead-units"


def test_an_imprint_repeats_its_rows_and_a_silenced_net_is_dead():
    images = blocks(8).images
    crafted = weights_of(imprinted(32, 32, 3, images))
    assert repeated_share(crafted["7.weight"]) > 0.9
    honest = weights_of(control_net(PLAIN, 32, 32, 3, 0))
    assert max(repeated_share(value) for value in honest.values() if value.ndim > 1) == 0
    net = build_net("unet", "batch", 32, 3, 0, "x")
    assert dead_share(net, images, "cpu") < 0.5
    before = weights_of(net)
    dead_share(net, images, "cpu")
    assert all((value == before[name]).all() for name, value in weights_of(net).items()), "it only looks"
    assert dead_share(silenced(net), images, "cpu") == 1
    load_weights(net, before)
