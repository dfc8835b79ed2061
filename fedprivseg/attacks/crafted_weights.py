"""Weights that an active server sends in the place of an aggregate, so that an update gives images away.

`imprinted` binds images to the rows of a dense layer (Fowl et al., Robbing the Fed, ICLR 2022); `silenced` makes the updates of
other sites vanish from a sum (Pasquini et al., CCS 2022). What reads the images is `closed_form_inversion`, or any attack.

The U-Nets of this package have no dense layer. Each number in the gradient of a convolution is a sum over all positions, so no
imprint separates pixels there, and none is claimed: an active server gains the sum of sites from them, and no closed form.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fedprivseg.attacks.control_nets import PLAIN, WIDTH, control_net

STEEPNESS = 2000.0
"""How fast a row of the imprint fires above its threshold, by mean brightness. Slow enough that float32 keeps the update of the
row beside the row."""

ECHO = 1e-3
"""Weight with which every row reaches the logits, the same for all, so that all rows have one gradient."""


def imprinted(height: int, width: int, structures: int, auxiliary: np.ndarray) -> nn.Sequential:
    """The small network without norm, with crafted weights.

    The convolutions carry every pixel on: the first moves the pixels of each 2 x 2 field into 4 channels, the second these into
    16. Each row of the dense layer takes the mean of all, less a threshold: quantiles of the mean brightness of the adversary's
    images. So row k sums the images brighter than threshold k, and the difference of neighbouring rows' gradients is the sum of
    those between two thresholds: one image, if it is alone there.

    Args:
        height: of the images.
        width: of the images.
        structures: K.
        auxiliary: the adversary's own images (M, H, W).
    """
    net = control_net(PLAIN, height, width, structures, 0)
    first, second, rows, last = net[0], net[3], net[7], net[9]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    assert isinstance(rows, nn.Linear)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
        for phase in range(4):
            down, right = divmod(phase, 2)
            first.weight[phase, 0, 2 + down, 2 + right] = 1
        for channel in range(WIDTH):
            phase, of = divmod(channel, 4)
            down, right = divmod(phase, 2)
            second.weight[channel, of, 2 + down, 2 + right] = 1
        rows.weight.fill_(STEEPNESS / rows.in_features)
        rows.bias.copy_(torch.from_numpy(-STEEPNESS * thresholds(auxiliary, rows.out_features)))
        last.weight.fill_(ECHO)
        # One structure alone: equal logits would push and pull every row as much.
        last.weight[last.out_features // structures :] = 0
    return net


def thresholds(auxiliary: np.ndarray, count: int) -> np.ndarray:
    """`count` levels of mean brightness, rising, between which as many of the images (M, H, W) lie: (count,) float32."""
    levels = np.quantile(auxiliary.mean(axis=(1, 2)), (np.arange(count) + 0.5) / count)
    return levels.astype(np.float32)


def silenced(net: nn.Module) -> nn.Module:
    """`net` with all filters at 0, in place: no gradient passes it, whatever the images; its update is one that anybody who
    knows these weights can work out, but for the last layer's bias."""
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1:
                weight.zero_()
    return net
