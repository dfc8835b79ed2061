"""The segmentation network of Chen et al. 2024, section 2.3: over-complete, from coded image to coded mask.

Its encoder UP-samples (bilinear) and its decoder max-POOLS after the convolutions, so its inner features are larger than
its input and output. Encoder and decoder are joined by skip connections. A pyramid pooling module (PPM; Zhao et al.,
CVPR 2017) stands near the input and near the output: four levels, pooled to 1, 3, 5 and 7 cells a side. "The rest is as in
the encoding networks", so that it has four stages of the widths of Table 2, in their order:

    enter        [Conv, BN, ReLU] x 2, PPM               (128, h, w)
    up 1..4      bilinear x 2 + [Conv, BN, ReLU] x 2     (64, 2h) (32, 4h) (16, 8h) (8, 16h)
    down 4..1    [Conv, BN, ReLU] x 2 + max-pool 2       (16, 8h) (32, 4h) (64, 2h) (128, h)
    leave        PPM, Conv 1x1                           as asked

The code of Table 2 has 1/16 of the image's side, so the largest features are on the image's own grid.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from fedprivseg.nets.choices import Skips
from fedprivseg.nets.codec import block

PYRAMID = (1, 3, 5, 7)
"""Cells a side of the four pooling levels (section 2.3)."""


class PyramidPooling(nn.Module):
    """PPM: what the whole code shows, beside what each cell shows. (N, C, h, w) -> (N, C, h, w).

    Each level averages the features in s x s regions (adaptive average pooling), reduces them to C // 4 channels by a
    1x1 convolution, and enlarges them back; levels and input are joined and fused by a 3x3 convolution. Batch norm
    follows only the fusion: on a 1 x 1 level it would see as many values as there are slices in the batch.

    Where the code's grid has fewer cells a side than a level (6 of an image of 96 pixels, for the level of 7), regions of that
    level are one or two cells wide and overlap: it is run and costs as much, and shows little that the input does not.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = max(1, channels // len(PYRAMID))
        self.levels = nn.ModuleList(nn.Conv2d(channels, reduced, 1) for _ in PYRAMID)
        self.fuse = nn.Sequential(
            nn.Conv2d(channels + reduced * len(PYRAMID), channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        size = features.shape[-2:]
        pyramid = [features]
        for cells, reduce in zip(PYRAMID, self.levels, strict=True):
            pooled = functional.relu(reduce(functional.adaptive_avg_pool2d(features, cells)))
            pyramid.append(functional.interpolate(pooled, size=size, mode="bilinear", align_corners=False))
        fused: torch.Tensor = self.fuse(torch.cat(pyramid, dim=1))
        return fused


class OverComplete(nn.Module):
    """Coded image -> coded mask. (N, inputs, h, w) float -> (N, outputs, h, w) float.

    As in the encoding networks, channels halve whenever the grid doubles. A skip connection joins what comes down to a grid,
    after pooling, with what the encoder had there. The paper says no more of it than its source (He et al., CVPR 2016), whose
    shortcuts are added; the other reading is that of a U-Net, which puts them side by side as further channels.

    Args:
        inputs: channels of a coded image.
        outputs: channels of a coded mask.
        width: channels at the code's grid, a multiple of 2**levels.
        levels: up-samplings in the encoder, and poolings in the decoder.
        skips: whether skip connections are added or concatenated.

    Raises:
        ValueError: `width` cannot be halved so often.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 128, levels: int = 4, skips: Skips = "add") -> None:
        super().__init__()
        if width % 2**levels:
            raise ValueError(f"width is {width}; it is halved {levels} times, so it must be a multiple of {2**levels}")
        sizes = [width >> level for level in range(levels + 1)]
        self.skips = skips
        joined = 1 if skips == "add" else 2
        self.enter = nn.Sequential(block(inputs, width), PyramidPooling(width))
        self.ups = nn.ModuleList(block(low, high) for low, high in pairwise(sizes))
        self.downs = nn.ModuleList(
            block(high if high == sizes[-1] else joined * high, low) for low, high in reversed(list(pairwise(sizes)))
        )
        self.leave = nn.Sequential(PyramidPooling(joined * width), nn.Conv2d(joined * width, outputs, 1))

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        features = self.enter(code)
        skips = []
        for up in self.ups:
            skips.append(features)
            features = up(functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False))
        for down in self.downs:
            pooled, skip = functional.max_pool2d(down(features), 2), skips.pop()
            features = pooled + skip if self.skips == "add" else torch.cat([pooled, skip], dim=1)
        coded: torch.Tensor = self.leave(features)
        return coded
