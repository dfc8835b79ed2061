"""Whose data a payload is made of, as pseudonyms that the site alone can make: what its ledger says of each release.

Without it nobody could tell, after a leak or a withdrawal, which releases concern one patient (T/SCGS 313008-2024 clause
5.6.2-d). A shard of codes is of the few subjects whose slices stand in it; weights are of all who were trained on, measures
of all who were tested. The pseudonyms stay in the site's ledger; no payload carries them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from fedprivseg.methods.method import Method, part_of
from fedprivseg.policy.keys import SiteKey
from fedprivseg.records import Kind, Order, Payload
from fedprivseg.site.rules import Rules
from fedprivseg.site.vault import Vault, open_vault

Side = Literal["train", "test"]

_OF_TRAINING = (Kind.WEIGHTS, Kind.MASKED)
_OF_SLICES = (Kind.IMAGE_CODE, Kind.MASK_CODE, Kind.RAW)


def owners_name(side: Side) -> str:
    """Under which name a vault holds whose each slice of a side is: (N,) int32, positions among the side's subjects."""
    return f"{side}ing-owners"


def owners_of(payload: Payload, order: Order, method: Method, rules: Rules, home: Path, key: SiteKey) -> list[str]:
    """The pseudonyms of those whose data `payload`, the answer to `order`, is made of; nobody for what is made of no images,
    and where nothing is computed (`Rules.closed`).

    home: the site's folder. Raises ValueError if a shard has not as many rows as the slices that belong in it: then it cannot
    be said whose they are.
    """
    if rules.closed:
        return []
    people = rules.taken_in()
    if payload.kind in _OF_TRAINING:
        codes = people["train"]
    elif payload.kind == Kind.METRIC:
        codes = people["test"]
    elif payload.kind in _OF_SLICES:
        side = next((sent.side for sent in method.sends if sent.action == order.action), None)
        if side is None:  # of nobody knows whom: then of everybody
            codes = [*people["train"], *people["test"]]
        else:
            owners = _in_shard(open_vault(home), side, order.number, method.parameters.shard_slices)
            if any(len(array) != len(owners) for array in payload.arrays.values()):
                raise ValueError(f"a shard of {order.action} has not the {len(owners)} rows that belong in it")
            codes = [people[side][position] for position in np.unique(owners)]
    else:
        codes = []
    return [key.pseudonym(code) for code in codes]


def _in_shard(vault: Vault, side: Side, number: int, most: int) -> np.ndarray:
    """Whose the slices of shard `number` are."""
    name = owners_name(side)
    owners = vault.load(name)["owners"] if vault.has(name) else np.empty(0, np.int32)
    _, places, _ = part_of(number, len(owners), most)
    return owners[places]
