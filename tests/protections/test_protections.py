"""Protections: the contract of all of them, and what each claims."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fedprivseg.core.config import ProtectionConfig
from fedprivseg.core.errors import RequestError, ScenarioError
from fedprivseg.core.expected import Array, Expected
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.protections import PROTECTIONS, Shield, protected, resolve
from fedprivseg.protections.noise import gaussian_epsilon
from fedprivseg.protections.operation import SeedKey
from fedprivseg.testing import ProtectionContract

KEY = SeedKey(0, ("centre1", "test"))


def _of(*payload):
    return replace(KEY, payload=payload)


def _codes(count=5, channels=6, side=4, seed=0):
    return numpy_generator(seed, "codes").standard_normal((count, channels, side, side)).astype(np.float32)


def _protection(name, **parameters):
    return resolve(ProtectionConfig(name=name, parameters=parameters))


class TestContract(ProtectionContract):
    parts = PROTECTIONS


@given(bits=st.integers(1, 10), seed=st.integers(0, 50), least=st.floats(-5, 0), most=st.floats(0.5, 5))
@settings(max_examples=30, deadline=None)
def test_so_many_bits_and_half_a_step_off_at_most(bits, seed, least, most):
    codes = _codes(seed=seed)
    found = _protection("precision", bits=bits, least=least, most=most).apply(codes, KEY)
    assert len(np.unique(found)) <= 2**bits
    assert found.min() >= least - 1e-5
    assert found.max() <= most + 1e-5
    step = (most - least) / (2**bits - 1)
    assert np.abs(found - codes.clip(least, most)).max() <= step / 2 + 1e-5


def test_a_rounded_value_says_nothing_of_the_others():
    protection = _protection("precision", bits=2, least=0, most=1)
    alone = np.array([0.1, 0.4, 0.6, 1.0], np.float32).reshape(4, 1, 1, 1)
    beside = np.concatenate([alone, np.full((1, 1, 1, 1), 0.9, np.float32)])
    np.testing.assert_allclose(protection.apply(alone, KEY).ravel(), [0, 1 / 3, 2 / 3, 1], atol=1e-6)
    np.testing.assert_array_equal(protection.apply(beside, KEY)[:4], protection.apply(alone, KEY))
    assert protection.history() == "2 bits a value, from 0 to 1"


def test_a_subset_is_the_same_in_every_slice_and_dropout_is_not():
    codes = _codes(count=40) + 10
    subset = _protection("channels", keep=0.5, choice="subset").apply(codes, _of("a", 0))
    dropout = _protection("channels", keep=0.5, choice="dropout").apply(codes, _of("a", 0))
    for found in (subset, dropout):
        assert ((found != 0).all(axis=(2, 3)).sum(axis=1) == 3).all()
    assert len(np.unique((subset != 0).all(axis=(2, 3)), axis=0)) == 1
    assert len(np.unique((dropout != 0).all(axis=(2, 3)), axis=0)) > 5


def test_noise_is_clipped_first_and_has_the_stated_deviation():
    codes = 100 * _codes(count=200, channels=8, side=8)
    found = _protection("noise", clip=1.0, multiplier=0.5).apply(codes, _of("a", 0))
    # Each code has root mean square 1 after clipping, so what is added has variance 0.25 on top of 1.
    assert np.sqrt(np.square(found).mean()) == pytest.approx(np.sqrt(1.25), rel=0.01)
    other = _protection("noise").apply(codes, _of("a", 1))
    assert (found != other).mean() > 0.99


@pytest.mark.parametrize("ratio", [0.3, 1.0, 10.0])
def test_epsilon_is_where_the_analytic_mechanism_meets_delta(ratio):
    delta = 1e-5
    epsilon = gaussian_epsilon(ratio, delta)
    # Balle and Wang 2018, equation 6, for sensitivity 1 and deviation `ratio`.
    left = norm.cdf(1 / (2 * ratio) - epsilon * ratio) - np.exp(epsilon) * norm.cdf(-1 / (2 * ratio) - epsilon * ratio)
    assert left == pytest.approx(delta, rel=1e-3)
    classical = np.sqrt(2 * np.log(1.25 / delta)) / ratio
    assert epsilon < classical or classical > 1  # looser, where it holds: epsilon up to 1


def test_more_noise_is_less_epsilon():
    assert gaussian_epsilon(2.0, 1e-5) < gaussian_epsilon(1.0, 1e-5) < gaussian_epsilon(0.02, 1e-5)


@pytest.mark.parametrize("cells", [False, True])
@pytest.mark.parametrize("mix", [False, True])
def test_keys_turn_back_and_keep_distances(mix, cells):
    codes, protection = _codes(), _protection("keyed", mix=mix, cells=cells)
    found = protection.apply(codes, _of("a", 0))
    np.testing.assert_allclose(protection.undo(found, KEY), codes, atol=1e-5)
    flat, kept = codes.reshape(len(codes), -1), found.reshape(len(codes), -1)
    np.testing.assert_allclose(kept @ kept.T, flat @ flat.T, rtol=1e-4, atol=1e-3)
    other = protection.undo(found, SeedKey(1, ("centre1", "test")))
    assert not (mix or cells) or np.abs(other - codes).max() > 0.5


def test_layers_are_applied_in_order_and_undone_backwards():
    configs = tuple(
        ProtectionConfig(name="keyed", of=("image-code", "mask-code"), parameters={"cells": place})
        for place in (False, True)
    )
    shield = Shield(configs, 0, "centre1")
    codes = _codes().astype(np.float16)
    found, history = shield.apply(MASK_CODE, codes, ("a", 0))
    assert found.dtype == np.float16
    assert history == ("keyed channels", "keyed channels and cells")
    np.testing.assert_allclose(shield.undo(MASK_CODE, found), codes, atol=2e-2)
    assert (Shield(configs, 0, "centre2").apply(MASK_CODE, codes, ("a", 0))[0] != found).any()


def test_what_does_not_fit_the_declared_codes_is_refused_before_any_is_seen():
    config = ProtectionConfig(name="occlusion", parameters={"rows": (0, 9), "columns": (0, 1)})
    expected = Expected(IMAGE_CODE, "train", {"codes": Array("float16", (None, 6, 4, 4))}, views=1)
    with pytest.raises(RequestError, match="4 rows and 4 columns; the box must lie within them"):
        protected((config,), expected)


def test_other_kinds_pass_untouched():
    shield = Shield((ProtectionConfig(name="noise"),), 0, "centre1")
    codes = _codes().astype(np.float16)
    found, history = shield.apply(MASK_CODE, codes, ("a", 0))
    assert found is codes
    assert history == ()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"name": "nois"}, ["unknown protection 'nois'", "did you mean 'noise'", "keyed"]),
        ({"name": "precision", "parameters": {"bits": 0, "least": 0, "most": 1}}, ["bits", "0"]),
        ({"name": "precision", "parameters": {"bits": 2}}, ["least", "most"]),
        ({"name": "precision", "parameters": {"least": 1, "most": 1}}, ["least is 1 and most is 1"]),
        ({"name": "noise", "parameters": {"sigma": 1}}, ["sigma", "multiplier"]),
    ],
)
def test_wrong_ones_name_the_fault(config, words):
    with pytest.raises(ScenarioError) as caught:
        resolve(ProtectionConfig(**config))
    for word in words:
        assert word in str(caught.value)
