"""The image and mask encoding networks of Chen et al. 2024, Table 2: an encoder, a decoder, and the two together.

    encoder   input        [Conv, BN, ReLU] x 2                      (8, H, W)
              down 1..4    max-pool 2 + [Conv, BN, ReLU] x 2         (16, H/2) (32, H/4) (64, H/8) (128, H/16)
    decoder   up 4..1      bilinear x 2 + [Conv, BN, ReLU] x 2       (64, H/8) (32, H/4) (16, H/2) (8, H)
              output       Conv 1x1                                  as asked

Convolutions are 3x3 with padding 1. The paper's text says stride 2 for them, which contradicts the sizes of its Table 2;
Table 2 stands (stride 1). `depth` and `channels` leave the table: fewer stages give a finer code grid, and a 1x1
projection sets the number of values in a code, so that a code of 32 x H/8 x W/8 has as many values as 128 x H/16 x W/16.
`folds` replaces the first stages by folding blocks of pixels into channels, without a convolution at full resolution: a
codec with all its stages folded trains several times as fast, and its code depends on a small neighbourhood alone.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

WIDTH = 8
"""Channels of the input stage (Table 2); each stage below has twice as many."""


def block(inputs: int, outputs: int) -> nn.Sequential:
    """[Conv 3x3, BN, ReLU] x 2, the unit of every network here. (N, inputs, H, W) -> (N, outputs, H, W)."""
    return nn.Sequential(
        # No bias: the batch norm that follows would cancel it.
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def code_shape(height: int, width: int, depth: int = 4, channels: int | None = None) -> tuple[int, int, int]:
    """The (C, h, w) of the code of one `height` x `width` image. Raises ValueError if 2**depth does not divide both."""
    cell = 2**depth
    if height % cell or width % cell:
        raise ValueError(
            f"an image of {height} x {width} pixels cannot pass {depth} down-samplings: both sides must be multiples of "
            f"{cell}; crop or pad to {-(-height // cell) * cell} x {-(-width // cell) * cell}"
        )
    return (WIDTH << depth if channels is None else channels), height // cell, width // cell


class Encoder(nn.Module):
    """Image or mask -> code. (N, inputs, H, W) float -> (N, channels, H / 2**depth, W / 2**depth) float.

    inputs: channels of the picture. depth: down-samplings, 4 in the paper. channels: channels of the code; None is
    Table 2 (8 * 2**depth, after a ReLU), any other number adds a 1x1 projection and standardises its channels over the
    training batches (batch norm without scale and shift), so that one noise level or one loss means the same in each.
    folds: how many of the down-samplings fold pixels into channels instead of pooling; 0 in the paper.
    """

    def __init__(self, inputs: int, depth: int = 4, channels: int | None = None, folds: int = 0) -> None:
        super().__init__()
        _check_stages(depth, folds)
        self.depth = depth
        last = WIDTH << depth
        self.fold = nn.PixelUnshuffle(2**folds)
        self.stem = block(inputs * 4**folds, WIDTH << folds)
        self.downs = nn.ModuleList(block(WIDTH << stage, WIDTH << stage + 1) for stage in range(folds, depth))
        self.project: nn.Module = nn.Identity()
        if channels is not None and channels != last:
            self.project = nn.Sequential(
                nn.Conv2d(last, channels, 1, bias=False), nn.BatchNorm2d(channels, affine=False)
            )
        self.channels = last if channels is None else channels

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        code_shape(picture.shape[-2], picture.shape[-1], self.depth, self.channels)
        features = self.stem(self.fold(picture))
        for down in self.downs:
            features = down(nn.functional.max_pool2d(features, 2))
        code: torch.Tensor = self.project(features)
        return code


class Decoder(nn.Module):
    """Code -> picture. (N, channels, h, w) float -> (N, outputs, h * 2**depth, w * 2**depth) float, no activation.

    outputs: 1 for an image; for a mask, the number of foreground classes. channels, folds: as in `Encoder`. With folds, a
    block on the code's own grid comes first, for then fewer of them, or none, come after.
    """

    def __init__(self, outputs: int, depth: int = 4, channels: int | None = None, folds: int = 0) -> None:
        super().__init__()
        _check_stages(depth, folds)
        first = WIDTH << depth if channels is None else channels
        self.enter = block(first, WIDTH << depth) if folds else nn.Identity()
        sizes = [WIDTH << depth if folds else first, *(WIDTH << stage for stage in reversed(range(folds, depth)))]
        self.ups = nn.ModuleList(block(above, below) for above, below in pairwise(sizes))
        self.output = nn.Conv2d(WIDTH << folds, outputs * 4**folds, 1)
        self.unfold = nn.PixelShuffle(2**folds)

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        features = self.enter(code)
        for up in self.ups:
            features = up(nn.functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False))
        picture: torch.Tensor = self.unfold(self.output(features))
        return picture


class Codec(nn.Module):
    """An encoder and a decoder trained together (section 2.2) and parted afterwards (section 2.4)."""

    def __init__(self, inputs: int, outputs: int, depth: int = 4, channels: int | None = None, folds: int = 0) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, depth, channels, folds)
        self.decoder = Decoder(outputs, depth, channels, folds)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = self.decoder(self.encoder(picture))
        return decoded


def _check_stages(depth: int, folds: int) -> None:
    if depth < 1 or not 0 <= folds <= depth:
        raise ValueError(
            f"depth is {depth} and folds is {folds}; allowed are at least 1 down-sampling (4 in the paper), "
            f"of which 0 to {max(depth, 1)} fold (0 in the paper)"
        )
