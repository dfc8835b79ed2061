"""The image and mask encoding networks of Chen et al. 2024, Table 2: an encoder, a decoder, and the two together.

    encoder   input        [Conv, BN, ReLU] x 2                      (8, H, W)
              down 1..4    max-pool 2 + [Conv, BN, ReLU] x 2         (16, H/2) (32, H/4) (64, H/8) (128, H/16)
    decoder   up 4..1      bilinear x 2 + [Conv, BN, ReLU] x 2       (64, H/8) (32, H/4) (16, H/2) (8, H)
              output       Conv 1x1                                  as asked

Convolutions are 3x3 with padding 1. The paper's text says stride 2 for them, which contradicts the sizes of its Table 2;
Table 2 stands (stride 1). `depth` and `channels` leave the table: fewer stages give a finer code grid, and a 1x1
projection sets the number of values in a code, so that a code of 32 x H/8 x W/8 has as many values as 128 x H/16 x W/16.
`space_to_depth` replaces the first stages by moving blocks of pixels into channels (pixel unshuffle), without a convolution at
full resolution: a codec with all its stages replaced trains several times as fast, and its code depends on a small
neighbourhood alone.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from fedprivseg.nets.choices import WIDTH, code_shape


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


class Encoder(nn.Module):
    """Image or mask -> code. (N, inputs, H, W) float -> (N, channels, H / 2**depth, W / 2**depth) float.

    Args:
        inputs: channels of the input.
        depth: down-samplings, 4 in the paper.
        channels: of the code; None is Table 2 (8 * 2**depth, after a ReLU), any other number adds a 1x1 projection and
            standardises its channels over the training batches (batch norm without scale and shift), so that one noise level
            or one loss means the same in each.
        space_to_depth: how many of the down-samplings move pixels into channels instead of pooling; 0 in the paper.
    """

    def __init__(self, inputs: int, depth: int = 4, channels: int | None = None, space_to_depth: int = 0) -> None:
        super().__init__()
        _check_stages(depth, space_to_depth)
        self.depth = depth
        last = WIDTH << depth
        self.to_depth = nn.PixelUnshuffle(2**space_to_depth)
        self.stem = block(inputs * 4**space_to_depth, WIDTH << space_to_depth)
        self.downs = nn.ModuleList(block(WIDTH << stage, WIDTH << stage + 1) for stage in range(space_to_depth, depth))
        self.project: nn.Module = nn.Identity()
        if channels is not None and channels != last:
            self.project = nn.Sequential(
                nn.Conv2d(last, channels, 1, bias=False), nn.BatchNorm2d(channels, affine=False)
            )
        self.channels = last if channels is None else channels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        code_shape(image.shape[-2], image.shape[-1], self.depth, self.channels)
        features = self.stem(self.to_depth(image))
        for down in self.downs:
            features = down(nn.functional.max_pool2d(features, 2))
        code: torch.Tensor = self.project(features)
        return code


class Decoder(nn.Module):
    """Code -> image or mask. (N, channels, h, w) float -> (N, outputs, h * 2**depth, w * 2**depth) float, no activation.

    With space-to-depth, a block on the code's own grid comes first, for then fewer of them, or none, come after.

    Args:
        outputs: 1 for an image; for a mask, the number of foreground classes.
        depth: up-samplings.
        channels: as in `Encoder`.
        space_to_depth: as in `Encoder`.
    """

    def __init__(self, outputs: int, depth: int = 4, channels: int | None = None, space_to_depth: int = 0) -> None:
        super().__init__()
        _check_stages(depth, space_to_depth)
        first = WIDTH << depth if channels is None else channels
        self.enter = block(first, WIDTH << depth) if space_to_depth else nn.Identity()
        sizes = [
            WIDTH << depth if space_to_depth else first,
            *(WIDTH << stage for stage in reversed(range(space_to_depth, depth))),
        ]
        self.ups = nn.ModuleList(block(above, below) for above, below in pairwise(sizes))
        self.output = nn.Conv2d(WIDTH << space_to_depth, outputs * 4**space_to_depth, 1)
        self.to_space = nn.PixelShuffle(2**space_to_depth)

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        features = self.enter(code)
        for up in self.ups:
            features = up(nn.functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False))
        image: torch.Tensor = self.to_space(self.output(features))
        return image


class Codec(nn.Module):
    """An encoder and a decoder trained together (section 2.2) and parted afterwards (section 2.4)."""

    def __init__(
        self, inputs: int, outputs: int, depth: int = 4, channels: int | None = None, space_to_depth: int = 0
    ) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, depth, channels, space_to_depth)
        self.decoder = Decoder(outputs, depth, channels, space_to_depth)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = self.decoder(self.encoder(image))
        return decoded


def _check_stages(depth: int, space_to_depth: int) -> None:
    if depth < 1 or not 0 <= space_to_depth <= depth:
        raise ValueError(
            f"depth is {depth} and space-to-depth is {space_to_depth}; allowed are at least 1 down-sampling (4 in the paper), "
            f"of which 0 to {max(depth, 1)} move pixels into channels (0 in the paper)"
        )
