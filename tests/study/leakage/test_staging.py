"""Staged updates: plain ones are the site's own steps, those under a defence are what the run would let out of them."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import FakeSite, blocks

from fedprivseg.core.config import MethodConfig
from fedprivseg.methods import resolve
from fedprivseg.study.leakage.staging import Stage


@pytest.fixture
def stage(tmp_path):
    def of(**parameters):
        return Stage(
            resolve(MethodConfig(name="fedavg", parameters=parameters)), FakeSite("centre1", blocks(), tmp_path)
        )

    return of


def _slice(place):
    slices = blocks()
    return slices.images[place : place + 1], slices.masks[place : place + 1]


def _vector(update, net):
    return np.concatenate([update[name].ravel() for name, _ in net.named_parameters()])


def test_every_update_starts_from_the_same_weights(stage):
    own = stage()
    one, _, again = (own.update(_slice(place)) for place in (0, 1, 0))
    for name, value in one.items():
        np.testing.assert_array_equal(value, again[name])


def test_without_a_defence_nothing_is_defended(stage):
    assert stage().defended(_slice(0), [_slice(1)], 0) == {}


def test_a_sum_of_sites_is_the_mean_of_their_updates_and_a_masked_one_is_noise(stage):
    own = stage(summation="secure")
    found = own.defended(_slice(0), [_slice(1), _slice(2)], 0)
    assert set(found) == {"in the sum of 3 sites", "masked"}
    each = [own.update(_slice(place)) for place in range(3)]
    for name, value in found["in the sum of 3 sites"].items():
        # Fixed point keeps 2 ** -24 or better of each value.
        np.testing.assert_allclose(value, np.mean([one[name] for one in each], axis=0), atol=1e-6)
    plain, masked = (_vector(each, own.net) for each in (each[0], found["masked"]))
    assert np.isfinite(masked).all()
    assert abs(np.corrcoef(plain, masked)[0, 1]) < 0.01


def test_under_dp_the_noise_is_what_the_run_puts_on_it(stage):
    dp = {"epsilon": 8.0, "delta": 1e-2}
    own = stage(dp=dp, momentum=0.0, decay=0.0, rate=0.1, rounds=1, local_steps=1, batch=4)
    (update,) = own.defended(_slice(0), [], 0).values()
    noise = float(own.site.vault.load("privacy-noise")["noise"][0])
    # One step of rate 0.1 on a gradient of length at most 1, with noise of that deviation on each value.
    assert np.std(_vector(update, own.net)) == pytest.approx(0.1 * noise, rel=0.05)


@pytest.mark.parametrize("steps", [1, 3])
def test_statistics_alone_are_those_of_the_update(stage, steps):
    own, slices = stage(optimiser="adamw", rate=1e-3), blocks()
    pair, work = (slices.images[:4], slices.masks[:4]), own.work(2, steps)
    whole, alone = own.update(pair, work), own.statistics(pair, work)
    assert set(alone) == {name for name in whole if "running_" in name}
    for name, value in alone.items():
        np.testing.assert_array_equal(value, whole[name])
