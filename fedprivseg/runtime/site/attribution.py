"""Whose data a payload is made of, as pseudonyms that the site alone can make: what its ledger says of each release.

Without it nobody could tell, after a leak or a withdrawal, which releases concern one patient (T/SCGS 313008-2024 clause
5.6.2-d). A shard of codes is of the few subjects whose slices stand in it; weights are of all who were trained on, measures
of all who were tested. The pseudonyms stay in the site's ledger; no payload carries them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedprivseg.core.expected import Expected
from fedprivseg.core.method_card import Sent
from fedprivseg.core.records import Order, Payload
from fedprivseg.methods.method import Method
from fedprivseg.methods.release_order import kept_order
from fedprivseg.methods.shards import part_of, shards_of
from fedprivseg.runtime.site.enrolment import Side
from fedprivseg.runtime.site.site_context import SiteContext


def owners_name(side: Side) -> str:
    """Under which name a vault holds whose each slice of a side is: (N,) int32, positions among the side's subjects."""
    return f"{side}ing-owners"


def owners_of(payload: Payload, order: Order, site: SiteContext) -> list[str]:
    """The pseudonyms of those whose data `payload`, the answer to `order`, is made of; nobody for what is made of no images.
    Of a shard they are those whose slices belong in it: the gate lets out no shard of other rows (`counted`)."""
    people, made_of = site.enrolment.sides, payload.kind.derived_from
    stream = _stream(site.method, order)
    codes: list[str] = []
    if made_of == "slices" and stream is not None:
        owners = _of_slices(site, stream.side)
        view, places, _ = part_of(order.number, len(owners), site.method.parameters.shard_slices)
        sent = kept_order(site.vault, stream, view, len(owners))[places]
        codes = [people[stream.side][position] for position in np.unique(owners[sent])]
    elif made_of == "slices":  # of nobody knows whom: then of everybody
        codes = [*people["train"], *people["test"]]
    elif made_of is not None:
        codes = [*people[made_of]]
    return [site.key.pseudonym(code) for code in codes]


def counted(expected: Expected, order: Order, site: SiteContext) -> Expected:
    """`expected` with the lengths that this site's own slices and subjects leave no choice of: the rows of a shard and how many
    shards its stream has, and a row of a METRIC for each test subject."""
    stream = _stream(site.method, order)
    if stream is not None:
        count, most = len(_of_slices(site, stream.side)), site.method.parameters.shard_slices
        _, places, _ = part_of(order.number, count, most)
        rows = len(range(*places.indices(count)))
        expected = replace(expected, shards=shards_of(count, most, expected.views))
    elif expected.kind.derived_from == "test":
        rows = len(site.enrolment.sides["test"])
    else:
        return expected
    forms = {
        name: replace(form, shape=(rows, *form.shape[1:])) if form.shape[:1] == (None,) else form
        for name, form in expected.arrays.items()
    }
    return replace(expected, arrays=forms)


def _stream(method: Method, order: Order) -> Sent | None:
    """Of which stream the answer to `order` is a shard; None if of none."""
    return next((sent for sent in method.sends if sent.action == order.action), None)


def _of_slices(site: SiteContext, side: Side) -> np.ndarray:
    """Whose the slices of a side are."""
    name = owners_name(side)
    return site.vault.load(name)["owners"] if site.vault.has(name) else np.empty(0, np.int32)
