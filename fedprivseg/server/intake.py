"""The intake: everything that arrives at the server is checked before it is used.

Checks, in order: the signature (over run, site, action, number and the bytes' SHA-256, so that a payload fits one slot of one
run), that what is encrypted is so to this server's key and for this slot, replay, format, kind and purpose, level, shard
numbers, history, shape, dtype and range of every array, finite values, and what the method expects besides (`Expected.check`).

Whatever is wrong is a PayloadError about that one site: nothing that a site sends may raise anything else here or later.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from fedprivseg.errors import PayloadError
from fedprivseg.messages import Released, Reply, printable
from fedprivseg.methods.method import Array, Expected
from fedprivseg.policy.keys import statement, verify
from fedprivseg.policy.transport import EncryptionKey, key_id, slot
from fedprivseg.records import Order, Payload, digest

MOST_SHARDS = 100_000
"""More shards than this in one announcement are refused: a site must not make the server ask for ever."""

LEVELS = range(1, 6)
"""Sensitivity levels that there are (T/SCGS 313008-2024 clause 5.5)."""

MOST_STEPS, MOST_STEP = 32, 200
"""Entries of a payload's history, and characters of one: four times what the longest chain of a method and its protections
has. All that a site may say in its own words is that."""

_NOTHING: Mapping[str, int] = MappingProxyType({})


class Intake:
    """Checks releases of the sites of one run. ``identities``: each site's public key (hex), fixed when it first spoke. key: to
    which sites encrypt, None if this server opens nothing."""

    def __init__(self, run_id: str, identities: dict[str, str], key: EncryptionKey | None = None) -> None:
        self.run_id = run_id
        self.identities = identities
        self._key = key
        self._taken: dict[tuple[str, str], tuple[str, int]] = {}

    def accept(
        self, site: str, order: Order, expected: Expected, release: Released, facts: Mapping[str, int] = _NOTHING
    ) -> Payload:
        """The payload of `release`, if it is what `order` asked of `site`. Raises PayloadError that says what is wrong."""
        return self.checked(site, order, expected, self.opened(site, order, expected, release), facts)

    def signed(self, site: str, order: Order, reply: Reply) -> bool:
        """Whether `reply` is a release that `site` signed for `order`, with the key by which it is known."""
        if site not in self.identities or not isinstance(reply, Released):
            return False
        signed = statement(self.run_id, site, order.action, order.number, digest(reply.body))
        return verify(self.identities[site], signed, reply.signature)

    def opened(self, site: str, order: Order, expected: Expected, release: Released) -> bytes:
        """The bytes of the payload in `release`, which `site` signed for this order: decrypted if they are encrypted. Raises
        PayloadError if the signature is not the site's, or they are not encrypted to this server for this order."""
        if not self.signed(site, order, release):
            raise PayloadError("bad signature: the payload was not signed by this site for this run, action and shard")
        if not release.encrypted_to:
            return release.body
        if self._key is None or release.encrypted_to != key_id(self._key.public_hex):
            raise PayloadError("what came is encrypted to another key than this server's")
        return self._key.open(slot(self.run_id, site, order.action, order.number, expected.kind), release.body)

    def checked(
        self, site: str, order: Order, expected: Expected, body: bytes, facts: Mapping[str, int] = _NOTHING
    ) -> Payload:
        """The payload in `body`, which `opened` returned. facts: what the site said in the roll call. Raises PayloadError that
        says what is wrong with it."""
        # By the payload itself: encrypted twice it is other bytes.
        name, place = digest(body), (order.action, order.number)
        if self._taken.setdefault((site, name), place) != place:
            raise PayloadError(f"replayed payload: the same bytes already came for {self._taken[site, name]}")
        payload = Payload.decode(body)
        self._check_header(site, order, expected, payload)
        if set(payload.arrays) != set(expected.arrays):
            came, wanted = (printable(str(sorted(names)), 100) for names in (payload.arrays, expected.arrays))
            raise PayloadError(
                f"{len(payload.arrays)} arrays {came} came, {len(expected.arrays)} {wanted} were expected"
            )
        for key, form in expected.arrays.items():
            _check_array(key, form, payload.arrays[key])
        if (fault := expected.check(payload, facts)) is not None:
            raise PayloadError(fault)
        return payload

    @staticmethod
    def _check_header(site: str, order: Order, expected: Expected, payload: Payload) -> None:
        if payload.site != site:
            raise PayloadError("the payload names another site as its maker")
        if payload.kind != expected.kind or payload.purpose != expected.purpose:
            raise PayloadError(
                f"wrong kind: {payload.kind} for {printable(payload.purpose, 40)!r} came, "
                f"{expected.kind} for {expected.purpose!r} was expected"
            )
        if payload.shard != order.number or not payload.shard < payload.shards <= MOST_SHARDS:
            came = printable(f"shard {payload.shard} of {payload.shards}", 60)
            raise PayloadError(f"{came} came for order number {order.number}")
        if payload.level not in LEVELS:
            raise PayloadError(f"its level is none; levels are {LEVELS.start} to {LEVELS.stop - 1}")
        if len(payload.history) > MOST_STEPS or any(
            len(step) > MOST_STEP or not step.isprintable() for step in payload.history
        ):
            raise PayloadError(
                f"its history is none: at most {MOST_STEPS} steps of at most {MOST_STEP} printable characters"
            )


def _check_array(key: str, form: Array, array: np.ndarray) -> None:
    if array.dtype.name != form.dtype:
        raise PayloadError(f"array {key!r} is {array.dtype.name}, expected {form.dtype}")
    fits = array.ndim == len(form.shape) and all(
        want in (None, have) for want, have in zip(form.shape, array.shape, strict=True)
    )
    if not fits:
        shape = printable(str(array.shape), 80)
        raise PayloadError(f"array {key!r} has shape {shape}, expected {form.shape} (None: any length)")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise PayloadError(f"array {key!r} holds NaN or infinity")
    if array.size and (
        (form.low is not None and array.min() < form.low) or (form.high is not None and array.max() > form.high)
    ):
        raise PayloadError(f"array {key!r} holds values out of range; it is {form.low} to {form.high} (None: no bound)")
