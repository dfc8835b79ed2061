"""Secure aggregation: exact sums, dropouts, and a masked update that looks like noise."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from fedprivseg.core.errors import PayloadError
from fedprivseg.methods.secure_aggregation import (
    FRACTION,
    LARGEST,
    MOST_SITES,
    Keys,
    agree,
    combine,
    from_fixed,
    mask,
    public_of,
    seal,
    share,
    stream,
    to_fixed,
    unmask,
    unseal,
)

secrets_of_32 = st.binary(min_size=32, max_size=32)


@given(secrets_of_32, st.integers(1, 6), st.data())
@settings(max_examples=30, deadline=None)
def test_any_threshold_of_shares_gives_the_secret(secret, holders, data):
    threshold = data.draw(st.integers(1, holders))
    shares = dict(enumerate(share(secret, holders, threshold), start=1))
    for chosen in combinations(shares, threshold):
        assert combine({place: shares[place] for place in chosen}) == secret


def test_fewer_shares_than_the_threshold_give_noise():
    # An element of a 521-bit field fits 256 bits with probability 2**-265.
    shares = dict(enumerate(share(bytes(32), 5, 3), start=1))
    with pytest.raises(PayloadError, match="too few"):
        combine({1: shares[1], 4: shares[4]})


def test_a_share_alone_says_nothing_about_the_secret():
    # With threshold 2 the share of holder 1 is secret + coefficient: over fresh coefficients its bits are fair coins.
    low = np.frombuffer(b"".join(share(bytes(32), 2, 2)[0][-8:] for _ in range(400)), np.uint8)
    ones = np.unpackbits(low).mean()
    assert abs(ones - 0.5) < 0.02  # 25,600 coins: standard deviation 0.0031


@pytest.mark.parametrize("threshold", [0, 4])
def test_an_impossible_threshold_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        share(bytes(32), 3, threshold)


def test_both_sides_of_a_pair_agree_and_a_third_does_not():
    one, other, third = Keys.fresh(), Keys.fresh(), Keys.fresh()
    mine = agree(one.masking, other.public()[1], b"round 1")
    assert mine == agree(other.masking, one.public()[1], b"round 1")
    assert mine != agree(one.masking, other.public()[1], b"round 2")
    assert mine != agree(third.masking, other.public()[1], b"round 1")
    assert public_of(one.masking) == one.public()[1]


def test_a_sealed_share_opens_only_whole_and_in_its_context():
    sealed = seal(bytes(32), b"share", b"from a to b")
    assert unseal(bytes(32), sealed, b"from a to b") == b"share"
    for place in range(len(sealed)):
        broken = bytearray(sealed)
        broken[place] ^= 1
        with pytest.raises(PayloadError):
            unseal(bytes(32), bytes(broken), b"from a to b")
    with pytest.raises(PayloadError):
        unseal(bytes(32), sealed, b"from a to c")


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.integers(1, 5000))
@settings(max_examples=50, deadline=None)
def test_fixed_point_is_off_by_half_a_unit_at_most(values, weight):
    found = from_fixed(to_fixed(np.array(values), weight)) / weight
    np.testing.assert_allclose(found, values, rtol=0, atol=2.0 ** -(FRACTION + 1))


@pytest.mark.parametrize("value", [np.nan, np.inf, 2 * LARGEST, -2 * LARGEST])
def test_what_does_not_fit_is_refused_not_clipped(value):
    with pytest.raises(ValueError, match="fixed point"):
        to_fixed(np.array([value]), 1)


def test_the_largest_values_of_the_most_sites_fit_into_the_sum():
    # 256 times the largest integer below 2**55 is below 2**63, where a sum would turn negative; 2**55 itself is refused.
    assert LARGEST * 2.0**FRACTION == 2.0**55
    largest = np.nextafter(LARGEST, 0)
    one = to_fixed(np.array([largest]), 1)
    with np.errstate(over="ignore"):
        total = sum([one] * MOST_SITES, np.zeros(1, np.uint64))
    assert from_fixed(total)[0] == pytest.approx(256 * largest)
    with pytest.raises(ValueError, match="not below"):
        to_fixed(np.array([LARGEST]), 1)


def masked_sites(count: int, size: int):
    """Values, masked vectors and secrets of `count` sites, as the protocol makes them."""
    names = [f"centre{place}" for place in range(count)]
    keys = {name: Keys.fresh() for name in names}
    own = {name: bytes([place]) * 32 for place, name in enumerate(names)}
    values = {name: np.random.default_rng(place).normal(size=size) for place, name in enumerate(names)}

    def seed(one, other):
        return agree(keys[one].masking, keys[other].public()[1], "-".join(sorted((one, other))).encode())

    masked = {
        name: mask(
            to_fixed(values[name], 3),
            own[name],
            [(seed(name, other), name < other) for other in names if other != name],
        )
        for name in names
    }
    return names, values, masked, own, seed


@pytest.mark.parametrize("dropped", [0, 1, 2, 3])
def test_the_sum_of_those_who_stayed_is_exact(dropped):
    names, values, masked, own, seed = masked_sites(5, 100)
    stayed, gone = names[dropped:], names[:dropped]
    with np.errstate(over="ignore"):
        total = sum((masked[name] for name in stayed), np.zeros(100, np.uint64))
        exact = sum((to_fixed(values[name], 3) for name in stayed), np.zeros(100, np.uint64))
    leftover = [(seed(lost, there), there < lost) for lost in gone for there in stayed]
    np.testing.assert_array_equal(unmask(total, [own[name] for name in stayed], leftover), exact)
    np.testing.assert_allclose(from_fixed(exact), 3 * sum(values[name] for name in stayed), atol=5 * 3 * 2.0**-25)


def test_with_one_mask_still_on_the_sum_is_noise():
    names, values, masked, own, _ = masked_sites(3, 4000)
    with np.errstate(over="ignore"):
        total = sum(masked.values(), np.zeros(4000, np.uint64))
    kept = unmask(total, [own[name] for name in names[1:]], [])
    assert np.abs(from_fixed(kept) - 3 * sum(values.values())).min() > 1  # the true values are within +-40 of 0


@pytest.mark.parametrize("values", [np.zeros(40_000), np.linspace(-1, 1, 40_000)], ids=["constant", "ramp"])
def test_a_masked_update_cannot_be_told_from_uniform(values):
    masked = mask(to_fixed(values, 7), b"own mask's seed, thirty-two bytes"[:32], [(bytes(range(32)), True)])
    for place, octets in enumerate(masked.view(np.uint8).reshape(-1, 8).T):
        p = chisquare(np.bincount(octets, minlength=256)).pvalue
        assert p > 1e-5, f"byte {place}"  # 16 tests: a fair mask fails about once in 6,000 keys, and the keys are fixed
    # Nor does it follow the values: the rank correlation of 40,000 fair pairs has a standard deviation of 0.005.
    if np.ptp(values):
        assert abs(np.corrcoef(np.argsort(np.argsort(masked)), values)[0, 1]) < 0.02


def test_the_stream_is_the_key_stream_of_aes():
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    # FIPS 197: in counter mode from 0 the first block is AES of sixteen zero bytes.
    block = Cipher(algorithms.AES(bytes(range(32))), modes.ECB()).encryptor().update(bytes(16))
    assert stream(bytes(range(32)), 2).tobytes() == block
