"""Codes leave in an order of the site's own: the server cannot tell it, the site puts everything back, the ledger names the
right patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import BRIEF, tiny_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprivseg.core.method_card import Sent
from fedprivseg.core.results import read_result
from fedprivseg.methods import coded_site
from fedprivseg.methods.release_order import kept_order, order_name, release_order
from fedprivseg.study.run import load_scenario, simulate

SENT = Sent("send_image_codes", "images", "train", shuffled=True)


class _Vault(dict):
    has = dict.__contains__
    save = dict.__setitem__
    load = dict.__getitem__


class _Site:
    """The part of a site that an order is drawn from."""

    def __init__(self, seed: int = 0) -> None:
        self.name, self.seed, self.vault = "a", seed, _Vault()


@given(count=st.integers(0, 40), views=st.integers(1, 5))
@settings(max_examples=30)
def test_every_view_has_an_order_of_all_slices_and_keeps_it(count, views):
    site = _Site()
    order = release_order(site, "train", views, count)
    assert order.shape == (views, count)
    assert (np.sort(order, axis=1) == np.arange(count)).all()
    assert (release_order(site, "train", views, count) == order).all()
    assert (kept_order(site.vault, SENT, views - 1, count) == order[-1]).all()


def test_orders_of_views_sides_and_seeds_differ():
    orders = [*release_order(_Site(), "train", 2, 50), *release_order(_Site(), "test", 2, 50)]
    orders += [*release_order(_Site(1), "train", 1, 50), np.arange(50)]
    for place, one in enumerate(orders):
        assert all((one != other).any() for other in orders[:place])


def test_what_is_not_shuffled_leaves_as_it_lies_and_a_lost_order_is_an_error():
    assert kept_order(_Vault(), replace(SENT, shuffled=False), 0, 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(LookupError):
        kept_order(_Vault(), SENT, 0, 4)


@pytest.fixture(scope="module")
def scenario(phantom, quickstart):
    return load_scenario(quickstart, [*tiny_settings(phantom), *BRIEF, "method.parameters.test_views=3"])


@pytest.fixture(scope="module")
def run(tmp_path_factory, scenario):
    folder = tmp_path_factory.mktemp("ordered") / "run"
    simulate(scenario, folder)
    return folder


def test_what_is_measured_does_not_depend_on_the_order_of_test_codes(run, scenario, tmp_path, monkeypatch):
    def as_they_lie(site, side, views, count):
        if side == "test":
            site.vault.save(order_name(side), {"order": np.tile(np.arange(count), (views, 1))})
        return release_order(site, side, views, count)

    monkeypatch.setattr(coded_site, "release_order", as_they_lie)
    plain = simulate(scenario, tmp_path / "plain")
    ordered = read_result(run)
    assert len(ordered.metrics) == len(plain.metrics) > 0
    for one, other in zip(ordered.metrics, plain.metrics, strict=True):
        assert one.dice == pytest.approx(other.dice, abs=1e-3)
