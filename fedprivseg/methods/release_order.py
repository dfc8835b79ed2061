"""In which order the codes of a site's slices leave it.

Slices lie at a site patient by patient, from the first of a volume to its last. Were their codes sent like that, their places
alone would say which are of one patient, whatever the codes hide. So a site draws an order of its slices for each view, sends
the view's codes in it, keeps it in its vault, and puts answers back into place by it. Image codes and mask codes of a training
view leave in one order, so that the server has pairs.

In a simulation the orders follow from the run's seed, so that runs repeat, and whoever knows the seed knows them. A deployed
site must have a seed of its own that nobody else knows, or draw them from the system's source of randomness. An order hides who
belongs together from whoever looks at places, and from nobody who compares codes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedprivseg.core.method_card import Sent
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.methods.method import Site, Vault

Side = Literal["train", "test"]


def order_name(side: Side) -> str:
    """Under which name a vault holds the orders of a side: (views, N) int64, row v says which slice stands at each place of
    view v."""
    return f"{side}ing-order"


def release_order(site: Site, side: Side, views: int, count: int) -> np.ndarray:
    """The orders in which a site sends the slices of a side, drawn when first asked for.

    Args:
        site: whose they are.
        side: of whose slices.
        views: how many views of each slice are sent.
        count: how many slices there are.

    Returns:
        (views, count) int64, each row a permutation of 0..count-1.
    """
    name = order_name(side)
    if not site.vault.has(name):
        draws = numpy_generator(site.seed, site.name, "release order", side)
        site.vault.save(name, {"order": draws.permuted(np.tile(np.arange(count), (views, 1)), axis=1)})
    return site.vault.load(name)["order"]


def kept_order(vault: Vault, sent: Sent, view: int, count: int) -> np.ndarray:
    """Which of `count` slices stands at each place of a view of a stream, (count,) int64. Raises FolderError if `vault` should
    keep the order and does not; there is none of no slices."""
    return vault.load(order_name(sent.side))["order"][view] if sent.shuffled and count else np.arange(count)
