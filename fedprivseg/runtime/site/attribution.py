"""Whose data a payload is made of, as pseudonyms that the site alone can make: what its ledger says of each release.

Without it nobody could tell, after a leak or a withdrawal, which releases concern one patient (T/SCGS 313008-2024 clause
5.6.2-d). A shard of codes is of the few subjects whose slices stand in it; weights are of all who were trained on, measures
of all who were tested. The pseudonyms stay in the site's ledger; no payload carries them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from fedprivseg.core.expected import Expected
from fedprivseg.core.records import Order, Payload
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.sitefolder.vault import Vault, open_vault
from fedprivseg.methods.method import Method, part_of, shards_of
from fedprivseg.runtime.site.rules import Rules

Side = Literal["train", "test"]


def owners_name(side: Side) -> str:
    """Under which name a vault holds whose each slice of a side is: (N,) int32, positions among the side's subjects."""
    return f"{side}ing-owners"


def owners_of(payload: Payload, order: Order, method: Method, rules: Rules, home: Path, key: SiteKey) -> list[str]:
    """The pseudonyms of those whose data `payload`, the answer to `order`, is made of; nobody for what is made of no images,
    and where nothing is computed (`Rules.closed`). Of a shard they are those whose slices belong in it: the gate
    lets out no shard of other rows (`counted`).

    home: the site's folder.
    """
    if rules.closed:
        return []
    people = rules.enrolled()
    made_of = payload.kind.derived_from
    if made_of is None:
        codes = []
    elif made_of != "slices":
        codes = people[made_of]
    else:
        side = next((sent.side for sent in method.sends if sent.action == order.action), None)
        if side is None:  # of nobody knows whom: then of everybody
            codes = [*people["train"], *people["test"]]
        else:
            owners = _of_slices(open_vault(home), side)
            _, places, _ = part_of(order.number, len(owners), method.parameters.shard_slices)
            codes = [people[side][position] for position in np.unique(owners[places])]
    return [key.pseudonym(code) for code in codes]


def counted(expected: Expected, order: Order, method: Method, rules: Rules, home: Path) -> Expected:
    """`expected` with the lengths that this site's own slices and subjects leave no choice of: the rows of a shard and how many
    shards its stream has, and a row of a METRIC for each test subject. home: the site's folder."""
    if rules.closed:
        return expected
    sent = next((sent for sent in method.sends if sent.action == order.action), None)
    if sent is not None:
        count, most = len(_of_slices(open_vault(home), sent.side)), method.parameters.shard_slices
        _, places, _ = part_of(order.number, count, most)
        rows = len(range(*places.indices(count)))
        expected = replace(expected, shards=shards_of(count, most, expected.views))
    elif expected.kind.derived_from == "test":
        rows = len(rules.enrolled()["test"])
    else:
        return expected
    forms = {
        name: replace(form, shape=(rows, *form.shape[1:])) if form.shape[:1] == (None,) else form
        for name, form in expected.arrays.items()
    }
    return replace(expected, arrays=forms)


def _of_slices(vault: Vault, side: Side) -> np.ndarray:
    """Whose the slices of a side are."""
    name = owners_name(side)
    return vault.load(name)["owners"] if vault.has(name) else np.empty(0, np.int32)
