"""The intake: everything that arrives at the server is checked before it is used.

Checks, in order: the signature (over run, site, action, number and the bytes' SHA-256, so that a payload fits one slot of one
run), that what is encrypted is so to this server's key and for this slot, replay, format, kind and purpose, shard numbers,
shape and dtype of every array, finite values.
"""

from __future__ import annotations

import numpy as np

from fedprivseg.errors import PayloadError
from fedprivseg.expected import MOST_SHARDS, Array, Expected
from fedprivseg.messages import Released
from fedprivseg.policy.keys import statement, verify
from fedprivseg.policy.transport import EncryptionKey, key_id, slot
from fedprivseg.records import Order, Payload, digest


class Intake:
    """Checks releases of the sites of one run. ``identities``: each site's public key (hex), fixed when it first spoke. key: to
    which sites encrypt, None if this server opens nothing."""

    def __init__(self, run_id: str, identities: dict[str, str], key: EncryptionKey | None = None) -> None:
        self.run_id = run_id
        self.identities = identities
        self._key = key
        self._taken: dict[tuple[str, str], tuple[str, int]] = {}

    def accept(self, site: str, order: Order, expected: Expected, release: Released) -> Payload:
        """The payload of `release`, if it is what `order` asked of `site`. Raises PayloadError that says what is wrong."""
        return self.checked(site, order, expected, self.opened(site, order, expected, release))

    def opened(self, site: str, order: Order, expected: Expected, release: Released) -> bytes:
        """The bytes of the payload in `release`, which `site` signed for this order: decrypted if they are encrypted. Raises
        PayloadError if the signature is not the site's, or they are not encrypted to this server for this order."""
        signed = statement(self.run_id, site, order.action, order.number, digest(release.body))
        if not verify(self.identities[site], signed, release.signature):
            raise PayloadError("bad signature: the payload was not signed by this site for this run, action and shard")
        if not release.encrypted_to:
            return release.body
        if self._key is None or release.encrypted_to != key_id(self._key.public_hex):
            raise PayloadError("what came is encrypted to another key than this server's")
        return self._key.open(slot(self.run_id, site, order.action, order.number, expected.kind), release.body)

    def checked(self, site: str, order: Order, expected: Expected, body: bytes) -> Payload:
        """The payload in `body`, which `opened` returned. Raises PayloadError that says what is wrong with it."""
        # By the payload itself: encrypted twice it is other bytes.
        name, place = digest(body), (order.action, order.number)
        if self._taken.setdefault((site, name), place) != place:
            raise PayloadError(f"replayed payload: the same bytes already came for {self._taken[site, name]}")
        payload = Payload.decode(body)
        self._check_header(site, order, expected, payload)
        if set(payload.arrays) != set(expected.arrays):
            raise PayloadError(f"arrays {sorted(payload.arrays)} came, {sorted(expected.arrays)} were expected")
        for key, form in expected.arrays.items():
            _check_array(key, form, payload.arrays[key])
        return payload

    @staticmethod
    def _check_header(site: str, order: Order, expected: Expected, payload: Payload) -> None:
        if payload.site != site:
            raise PayloadError("the payload names another site as its maker")
        if payload.kind != expected.kind or payload.purpose != expected.purpose:
            raise PayloadError(
                f"wrong kind: {payload.kind} for {payload.purpose!r} came, "
                f"{expected.kind} for {expected.purpose!r} was expected"
            )
        if payload.shard != order.number or not payload.shard < payload.shards <= MOST_SHARDS:
            raise PayloadError(f"shard {payload.shard} of {payload.shards} came for order number {order.number}")


def _check_array(key: str, form: Array, array: np.ndarray) -> None:
    if array.dtype.name != form.dtype:
        raise PayloadError(f"array {key!r} is {array.dtype.name}, expected {form.dtype}")
    fits = array.ndim == len(form.shape) and all(
        want in (None, have) for want, have in zip(form.shape, array.shape, strict=True)
    )
    if not fits:
        raise PayloadError(f"array {key!r} has shape {array.shape}, expected {form.shape} (None: any length)")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise PayloadError(f"array {key!r} holds NaN or infinity")
