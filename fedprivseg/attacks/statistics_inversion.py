"""Images from the running statistics of batch norms, which averaging releases beside the weights.

After k steps a running mean is (1 - m)^k of what it was, plus the means of the steps' batches, weighted m (1 - m)^j from the
last step back (Ioffe and Szegedy, ICML 2015, in torch's form; m is 0.1 there). So after one step

    (after - (1 - m) before) / m

is exactly the mean, or the unbiased variance, of every channel of the batch at the input of that norm; after several steps it
is their weighted mean. These numbers know no clipping, no learning rate and no outlines, and they tell the brightness, which
the gradient of a network with norms does not. From a few hundred of them an inverse map is learned (`rehearsal`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import final

import numpy as np
from torch import nn

from fedprivseg.attacks.base import Rehearse, UpdateAttack, UpdateView
from fedprivseg.attacks.rehearsal import Features, Invert, concatenated, learn, own_images, rehearse
from fedprivseg.nets.baseline import Weights

NAME = "statistics-inversion"

LEAST = 1e-12
"""The smallest variance whose logarithm is taken."""


def batch_statistics(net: nn.Module, update: Weights, steps: int) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """What an update tells of the batches: by the name of each batch norm, mean and unbiased variance (C,) of its input.

    Args:
        net: with the weights before.
        update: before minus after; norms whose statistics it lacks are left out.
        steps: how many were taken; of one the result is exact, of more it is the weighted mean over the steps.
    """
    found = {}
    for place, module in net.named_modules():
        names = [f"{place}.running_mean", f"{place}.running_var"]
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and set(names) <= set(update):
            assert module.momentum is not None, "a cumulative average would need the counter, which does not travel"
            new = 1 - (1 - module.momentum) ** steps
            kept = [net.get_buffer(name).detach().cpu().numpy().astype(np.float64) for name in names]
            mean, variance = (before - update[name] / new for before, name in zip(kept, names, strict=True))
            found[place] = (mean, variance)
    return found


def statistics_features(net: nn.Module, steps: int) -> Features:
    """Means, and logarithms of variances: the numbers that a map learns from."""

    def features(update: Weights) -> np.ndarray:
        parts = [
            part
            for mean, variance in batch_statistics(net, update, steps).values()
            for part in (mean, np.log(np.maximum(variance, LEAST)))
        ]
        return concatenated(parts or [np.zeros(0)])

    return features


@final
class StatisticsInversion(UpdateAttack):
    """Reads the statistics of the batch and looks up, by a learned map, which images have such ones."""

    name = NAME
    title = "Inversion of running statistics"
    paper = "Yin et al. (See through Gradients), CVPR 2021, for the statistics; kernel ridge regression for the map"
    knows = "the running means and variances in the released update, the weights before it, and pictures from elsewhere"

    def __init__(self) -> None:
        self._maps: dict[tuple[Rehearse, tuple[int, ...]], Invert] = {}

    def lacks(self, view: UpdateView) -> str:
        """Networks without batch norm have no running statistics."""
        if any(name.endswith("running_mean") for name in view.update):
            return ""
        return "no running statistics leave the site with this network"

    def reconstruct(self, view: UpdateView) -> np.ndarray:
        """What the map makes of the statistics. One map serves all that rehearse alike; outlines play no part in one step."""
        steps, shown = view.work.steps, view.rehearse_statistics or view.rehearse
        alike = shown, view.slices if steps > 1 else ()
        if alike not in self._maps:
            features = statistics_features(view.build(), steps)
            own = own_images(view, NAME)
            self._maps[alike] = learn(own, *rehearse(replace(view, rehearse=shown), own, lambda _: features, NAME))
        return self._maps[alike](view.update)
