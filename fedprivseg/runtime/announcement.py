"""The announcement of a model: what a server signs about the weights that it sends to every site for one order.

A server that sends one site other weights than the others reads that site's update in a sum of all (model inconsistency:
Pasquini et al., CCS 2022). It signs one statement about the weights of each order; a site trains on nothing else, and writes
their digest into its ledger. Two sites with two digests for one order show that it signed twice
(`ledger.checkpoints.equivocations`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedprivseg.core.array_bytes import arrays_digest
from fedprivseg.core.errors import ModelRefused
from fedprivseg.core.records import Order
from fedprivseg.crypto.identity import SiteKey, canonical, verify


def announce(key: SiteKey, run_id: str, order: Order, arrays: Mapping[str, np.ndarray]) -> str:
    """The server's signature (hex) over the weights of `order`, for every site alike.

    Args:
        key: the server's.
        run_id: of the run.
        order: with which the weights go out.
        arrays: what of its answer is the same for all (`Method.announced`).
    """
    return key.sign(_statement(run_id, order, arrays_digest(arrays))).hex()


def announced_model(
    public_hex: str | None, run_id: str, order: Order, signature: str, arrays: Mapping[str, np.ndarray]
) -> str:
    """The SHA-256 of the weights that came, which the server announced.

    Args:
        public_hex: the server's public key; None for a site that knows none: then nothing but the digest can be told.
        run_id: of the run.
        order: with which the weights came.
        signature: hex, of the envelope.
        arrays: what of its answer must be the same for all.

    Raises:
        ModelRefused: these weights are not the ones that the server signed for this order.
    """
    found = arrays_digest(arrays)
    if public_hex is not None:
        try:
            signed = verify(public_hex, _statement(run_id, order, found), bytes.fromhex(signature))
        except ValueError:
            signed = False
        if not signed:
            reason = "The weights are not the ones that the server announced to every site for this order."
            raise ModelRefused("model.not-announced", reason, "5.3.2-b")
    return found


def _statement(run_id: str, order: Order, model: str) -> bytes:
    return canonical(
        {
            "statement": "fedprivseg model 1",
            "run": run_id,
            "action": order.action,
            "number": order.number,
            "model": model,
        }
    )
