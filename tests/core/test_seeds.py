"""Randomness: independent by name, the same everywhere, and the world's state untouched."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedprivseg.core.seeds import building, derive, numpy_generator, torch_generator

names = st.lists(st.one_of(st.text(max_size=6), st.integers(0, 9)), max_size=4)


def test_the_seed_of_a_name_is_documented():
    """derive = the first 8 bytes of SHA-256 over root and typed names, joined by the unit separator, without the sign bit."""
    by_hand = int.from_bytes(hashlib.sha256(b"0\x1fstr:centre1\x1fint:3").digest()[:8], "big") >> 1
    assert derive(0, "centre1", 3) == by_hand


@given(names, names)
def test_different_names_give_different_seeds(one, other):
    assert (derive(0, *one) == derive(0, *other)) == ([(type(n), n) for n in one] == [(type(n), n) for n in other])


def test_generators_repeat_and_differ():
    assert numpy_generator(1, "a").random() == numpy_generator(1, "a").random()
    assert numpy_generator(1, "a").random() != numpy_generator(2, "a").random()
    assert torch.rand(1, generator=torch_generator(1, "a")) == torch.rand(1, generator=torch_generator(1, "a"))


def test_building_networks_leaves_the_world_alone():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state()
    with building(0, "net"):
        one = torch.nn.Linear(3, 3)
    with building(0, "net"):
        other = torch.nn.Linear(3, 3)
    assert torch.equal(one.weight, other.weight)
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.random.get_rng_state(), before[2])
