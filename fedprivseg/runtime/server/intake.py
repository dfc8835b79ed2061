"""The intake: everything that arrives at the server is checked before it is used.

Checks, in order: the signature (over run, site, action, number and the bytes' SHA-256, so that a payload fits one slot of one
run), that what is encrypted is so to this server's key and for this slot, replay, format, maker, level, finite values, then
all that the site's gate asks of the same declaration (`declaration`), and what the method expects besides.

Whatever is wrong is a PayloadError about that one site: nothing that a site sends may raise anything else here or later.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from fedprivseg.core.errors import PayloadError
from fedprivseg.core.expected import Expected
from fedprivseg.core.records import Order, Payload
from fedprivseg.crypto.hpke import EncryptionKey, key_id, slot
from fedprivseg.crypto.identity import statement, verify
from fedprivseg.governance.policy.declaration import departure
from fedprivseg.governance.policy.gate import LEVELS
from fedprivseg.runtime.wire import Released

_NOTHING: Mapping[str, int] = MappingProxyType({})


class Intake:
    """Checks releases of the sites of one run. ``identities``: each site's public key (hex), fixed when it first spoke. key: to
    which sites encrypt, None if this server opens nothing."""

    def __init__(self, run_id: str, identities: dict[str, str], key: EncryptionKey | None = None) -> None:
        self.run_id = run_id
        self.identities = identities
        self._key = key
        self._taken: dict[tuple[str, str], tuple[str, int]] = {}

    def signed(self, site: str, order: Order, release: Released, sent: str) -> bool:
        """Whether `site` signed `release`, whose body has the SHA-256 `sent`, for `order` with the key by which it is known."""
        signed = statement(self.run_id, site, order.action, order.number, sent)
        return site in self.identities and verify(self.identities[site], signed, release.signature)

    def opened(self, site: str, order: Order, expected: Expected, release: Released, sent: str) -> bytes:
        """The bytes of the payload in `release`, which `site` signed for this order: decrypted if they are encrypted. sent:
        SHA-256 of the release's body. Raises PayloadError if the signature is not the site's, or they are not encrypted to
        this server for this order."""
        if not self.signed(site, order, release, sent):
            raise PayloadError("bad signature: the payload was not signed by this site for this run, action and shard")
        if not release.encrypted_to:
            return release.body
        if self._key is None or release.encrypted_to != key_id(self._key.public_hex):
            raise PayloadError("what came is encrypted to another key than this server's")
        return self._key.open(slot(self.run_id, site, order.action, order.number, expected.kind), release.body)

    def checked(
        self, site: str, order: Order, expected: Expected, body: bytes, name: str, facts: Mapping[str, int] = _NOTHING
    ) -> Payload:
        """The payload in `body`, which `opened` returned and whose SHA-256 is `name`. facts: what the site said in the roll
        call. Raises PayloadError that says what is wrong with it."""
        # By the payload itself: encrypted twice it is other bytes.
        place = order.action, order.number
        if self._taken.setdefault((site, name), place) != place:
            raise PayloadError(f"replayed payload: the same bytes already came for {self._taken[site, name]}")
        payload = Payload.decode(body)
        if payload.site != site:
            raise PayloadError("the payload names another site as its maker")
        if payload.level not in LEVELS:
            raise PayloadError(f"its level is none; levels are {LEVELS[0]} to {LEVELS[-1]}")
        if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in payload.arrays.values()):
            raise PayloadError("an array of its holds NaN or infinity")
        if (departs := departure(payload, expected, order.number)) is not None:
            raise PayloadError(departs.reason)
        if (fault := expected.check(payload, facts)) is not None:
            raise PayloadError(fault)
        return payload
