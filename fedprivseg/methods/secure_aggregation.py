"""Secure aggregation (Bonawitz et al., CCS 2017): the arithmetic of one site and of the server, without any transport.

Every pair of sites agrees on a mask that one adds and the other subtracts, so that in the sum over all sites the masks are
gone. Besides, every site adds a mask of its own, so that an update that comes late is still covered when the pairwise masks
of its site had to be opened. Both secrets are shared among the sites (Shamir 1979): any `threshold` of them can open the
own masks of those who stayed and the pairwise masks of those who dropped out, and fewer learn nothing.

The promise is computational, against a server that follows the protocol but looks, together with fewer than t = `threshold`
sites: what they learn is the sum of those who stayed, at least t of them, and no more. But every one of them knows its own
part of that sum. The sum may be of t sites only, so t - 1 of these together with the server subtract theirs and hold the
update of the last one; t sites together with the server can open every mask there is. With three sites and t = 2, one site
and the server learn the sum of the two others, and if one of these drops out, the update of the other.

A server that lies about who dropped out, or hands out keys of its own, is not covered: that takes the paper's signed variant
(its section 6.2). Sums are exact in fixed point: integers modulo 2**64 with `FRACTION` bits after the point.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedprivseg.core.errors import PayloadError

FRACTION = 24
"""Bits after the binary point. A float32 of 1 or more loses nothing; a smaller one is off by 2**-25 at most."""

MOST_SITES = 256
"""Sites in one sum."""

LARGEST = 2.0**63 / 2.0**FRACTION / MOST_SITES
"""Weighted values are below this: those of `MOST_SITES` sites then fit into the sum, of integers below 2**63."""

SECRET_BYTES = 32
SHARE_BYTES = 66
"""A share is an element of the field below."""

_PRIME = 2**521 - 1  # a Mersenne prime above 2**256, so every 32-byte secret is an element
_NONCE_BYTES = 12


@dataclass(frozen=True)
class Keys:
    """A site's two key pairs of one round, private halves as 32 raw bytes: for the shares' encryption, for the masks."""

    encryption: bytes
    masking: bytes

    @classmethod
    def fresh(cls) -> Keys:
        """New keys, from the operating system's randomness."""
        return cls(*(X25519PrivateKey.generate().private_bytes_raw() for _ in range(2)))

    def public(self) -> tuple[bytes, bytes]:
        """The public halves, 32 bytes each, in the same order."""
        return public_of(self.encryption), public_of(self.masking)


def public_of(private: bytes) -> bytes:
    """The public half (32 bytes) of a private key."""
    return (
        X25519PrivateKey.from_private_bytes(private)
        .public_key()
        .public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    )


def usable(public: bytes) -> bool:
    """Whether somebody can agree on a secret with the holder of `public` (32 bytes): with a point of low order nobody can
    (RFC 7748, section 6.1)."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return False
    return True


def agree(private: bytes, public: bytes, context: bytes) -> bytes:
    """32 bytes that only the holders of the two private keys know (X25519, then HKDF-SHA-256 with `context`)."""
    shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=context).derive(shared)


def share(secret: bytes, holders: int, threshold: int) -> list[bytes]:
    """Shares of a 32-byte secret for holders 1..n, any `threshold` of which give it back (Shamir 1979)."""
    if not 1 <= threshold <= holders or len(secret) != SECRET_BYTES:
        raise ValueError(f"cannot share {len(secret)} bytes among {holders} with threshold {threshold}")
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(_PRIME) for _ in range(threshold - 1))]

    def at(place: int) -> int:
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * place + coefficient) % _PRIME
        return value

    return [at(place).to_bytes(SHARE_BYTES, "big") for place in range(1, holders + 1)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret from the shares of some holders (1..n), by Lagrange interpolation at 0.

    With fewer shares than the threshold the result is no secret but noise, and PayloadError is raised unless that noise
    happens to fit 32 bytes: give at least `threshold` shares.
    """
    total = 0
    for place, part in shares.items():
        top = bottom = 1
        for other in shares:
            if other != place:
                top = top * -other % _PRIME
                bottom = bottom * (place - other) % _PRIME
        total += int.from_bytes(part, "big") * top * pow(bottom, -1, _PRIME)
    value = total % _PRIME
    if value >= 1 << 8 * SECRET_BYTES:
        raise PayloadError("the shares do not combine to a secret: too few of them, or one is wrong")
    return value.to_bytes(SECRET_BYTES, "big")


def seal(key: bytes, text: bytes, context: bytes) -> bytes:
    """`text` under AES-256-GCM, its nonce in front; `context` is authenticated with it."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, text, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """What was sealed. Raises PayloadError if key, context or a byte differ."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
    except InvalidTag:
        raise PayloadError("an encrypted share does not open: it was changed, or meant for another") from None


def stream(seed: bytes, count: int) -> np.ndarray:
    """`count` pseudo-random integers modulo 2**64, (count,) uint64: the key stream of AES-256 in counter mode."""
    cipher = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(8 * count)), "<u8")


def to_fixed(values: np.ndarray, weight: int) -> np.ndarray:
    """``weight * values`` in fixed point: (n,) real -> (n,) uint64, integers modulo 2**64.

    Values are rounded before they are weighted by an integer, so sums of any sites are sums of integers: exact, and the
    same whether or not masks were on. Raises ValueError for values that are too large or not finite.
    """
    rounded = np.rint(np.asarray(values, np.float64) * 2.0**FRACTION)
    if not (np.abs(rounded) * weight < LARGEST * 2.0**FRACTION).all():
        raise ValueError(f"a weighted value is not below {LARGEST:g}, or no number; it cannot be summed in fixed point")
    return (rounded.astype(np.int64) * weight).view(np.uint64)


def from_fixed(values: np.ndarray) -> np.ndarray:
    """Integers modulo 2**64 (n,) uint64 -> real values (n,) float64."""
    return values.view(np.int64).astype(np.float64) / 2.0**FRACTION


def mask(values: np.ndarray, own: bytes, pairs: Iterable[tuple[bytes, bool]]) -> np.ndarray:
    """Fixed-point values with all masks on.

    Args:
        values: (n,) uint64.
        own: the seed of the own mask.
        pairs: (agreed seed, whether this site adds it) for every other site; of two sites the one first by name adds.
    """
    with np.errstate(over="ignore"):
        masked = values + stream(own, len(values))
        for seed, adds in pairs:
            masked = masked + stream(seed, len(values)) if adds else masked - stream(seed, len(values))
    return masked


def unmask(total: np.ndarray, own: Iterable[bytes], leftover: Iterable[tuple[bytes, bool]]) -> np.ndarray:
    """The sum (n,) uint64 of the survivors' values.

    Args:
        total: (n,) uint64, the sum of what they sent.
        own: their own masks' seeds.
        leftover: (agreed seed, whether the survivor added it) for every survivor with every site that dropped out.
    """
    with np.errstate(over="ignore"):
        for seed in own:
            total = total - stream(seed, len(total))
        for seed, added in leftover:
            total = total - stream(seed, len(total)) if added else total + stream(seed, len(total))
    return total
