"""Passphrases: what it costs to try one."""

from __future__ import annotations

from fedprivseg.crypto.passphrase import Cost


def test_the_recommended_cost_is_that_of_owasp() -> None:
    """OWASP Password Storage Cheat Sheet: scrypt with N = 2^17, r = 8, p = 1 at least, which is 128 r N = 128 MiB."""
    cost = Cost()
    assert (cost.log2_n, cost.r, cost.p, 128 * cost.r << cost.log2_n) == (17, 8, 1, 128 << 20)
