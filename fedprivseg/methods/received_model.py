"""What a site checks of the weights that a server sends, before it trains on them.

An active server can craft weights whose update gives images away: filters that repeat with rising thresholds, so that the
difference of two neighbours' updates is one image (Fowl et al., ICLR 2022), units that fire for almost nothing (Boenisch et
al., EuroS&P 2023), and dead ones at all sites but one, whose update is then the sum (Pasquini et al., CCS 2022). Such weights
are far from any that averaging can reach from the weights before, which the site knows: those of the first round it makes
itself, from the scenario's seed. (A server that adds noise for central differential privacy moves them further than any such
bound: `Rounds.most_change`.) The bounds stand well above what every method of this package does in honest rounds, and are
no proof: a server that drifts slowly through many rounds stays within them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedprivseg.core.errors import ModelRefused
from fedprivseg.methods.method import Site
from fedprivseg.methods.round_state import load_state, save_state
from fedprivseg.methods.training import TrainingParameters, build

if TYPE_CHECKING:
    from torch import nn

    from fedprivseg.nets.baseline import Weights

RECEIVED = "received"
"""The weights of the last round in which the site took part, in its vault."""

_ROUND = "round/"

MOST = 1e3
"""Largest size of a weight."""

MOST_CHANGE = 1.2
"""How far the filters may move in a round, in lengths of what they were. Measured in honest first rounds of 20 steps at the
package's rates: 0.2 for averaging, 0.4 for FedDyn and DP-SGD at the sites. Unrelated weights of the same size lie at 1.4."""

ALIKE = 0.9999
"""Cosine from which two filters count as the same."""

MOST_REPEATED = 0.25
"""Largest share of a layer's filters that may repeat others of it."""

MOST_DEAD = 0.9
"""Largest share of a layer's units that may be constant on the site's own slices."""

LOOKED_AT = 8
"""Slices on which units are watched, spread evenly over the site's."""


def require_sound(
    parameters: TrainingParameters,
    site: Site,
    net: nn.Module,
    received: Weights,
    number: int,
    most_change: float = MOST_CHANGE,
) -> None:
    """Check the weights of a round, and keep them for the next one's check.

    Args:
        parameters: of the method.
        site: that is to train on them.
        net: with these weights in it; it is only looked at.
        received: the weights, by name.
        number: of the round, from 1.
        most_change: of the filters in a round, in lengths of what they were.

    Raises:
        ModelRefused: they are degenerate, or no successor of those before. The reason tells limits, and nothing of the site.
    """
    from fedprivseg.nets.baseline import weights_of

    before = load_state(site, RECEIVED, number)
    since = number - int(before.pop(_ROUND, np.zeros(1))[0])
    before = before or weights_of(build(parameters, site))
    if not all(np.isfinite(value).all() for value in received.values()):
        raise ModelRefused("model.not-finite", "The weights hold values that are no finite numbers.")
    banks = {name: value.astype(np.float64) for name, value in received.items() if value.ndim > 1}
    if max((float(np.abs(bank).max()) for bank in banks.values()), default=0.0) > MOST:
        raise ModelRefused("model.out-of-range", f"The weights hold values beyond {MOST:g}.")
    if max((repeated_share(bank) for bank in banks.values()), default=0.0) > MOST_REPEATED:
        reason = f"More than {MOST_REPEATED:.0%} of the filters of a layer repeat others of it."
        raise ModelRefused("model.repeated-filters", reason)
    if moved(banks, before) > most_change * since:
        reason = f"The filters moved by more than {most_change:g} times their length in a round, further than averaging goes."
        raise ModelRefused("model.jump", reason)
    images = site.training().images
    chosen = np.unique(np.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).round().astype(int))
    if dead_share(net, images[chosen], site.device) > MOST_DEAD:
        reason = f"More than {MOST_DEAD:.0%} of the units of a layer are constant on this site's slices."
        raise ModelRefused("model.dead-units", reason)
    save_state(site, RECEIVED, number, {**received, _ROUND: np.array([number], np.int64)})


def moved(banks: Weights, before: Weights) -> float:
    """How far filter banks lie from what they were, all together, in lengths of what they were."""
    change = sum(float(np.square(bank - before[name]).sum()) for name, bank in banks.items())
    length = sum(float(np.square(before[name].astype(np.float64)).sum()) for name in banks)
    return float(np.sqrt(change / max(length, 1e-30)))


def repeated_share(filters: np.ndarray) -> float:
    """The share of filters (N, ...) that are another one of them, up to their length; a filter of zeros repeats nothing."""
    rows = filters.reshape(len(filters), -1).astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = (rows / np.maximum(lengths, 1e-30))[lengths[:, 0] > 0]
    if len(rows) < 2:
        return 0.0
    again = np.triu(np.abs(rows @ rows.T) > ALIKE, 1).any(axis=0)
    return float(again.sum() / len(filters))


def dead_share(net: nn.Module, images: np.ndarray, device: str) -> float:
    """The largest share, over layers, of units whose activation is the same everywhere in all of `images` (N, H, W).

    A copy of `net` is looked at as it would train, with the statistics of the batch.
    """
    import copy

    import torch
    from torch import nn

    shares = [0.0]

    def watch(module: nn.Module, given: tuple[torch.Tensor, ...], found: torch.Tensor) -> None:
        if found.ndim == 4:
            axes = (0, 2, 3)
            constant = found.amax(dim=axes) - found.amin(dim=axes) <= 0
            shares.append(float(constant.float().mean()))

    looked = copy.deepcopy(net).to(device).train()
    for module in looked.modules():
        if isinstance(module, nn.ReLU | nn.LeakyReLU | nn.PReLU):
            module.register_forward_hook(watch)
    with torch.no_grad():
        looked(torch.from_numpy(np.ascontiguousarray(images))[:, None].to(device))
    return max(shares)
