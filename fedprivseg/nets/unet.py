"""The U-Net of the baselines (Ronneberger et al., MICCAI 2015), from the same blocks as the encoding networks.

Its widths 8-16-32-64-128 are those of Table 2 of Chen et al. 2024, so that a baseline and a codec differ in their
shape and not in their size. MONAI's BasicUNet has the same shape; this one is here because it shares `block`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from fedprivseg.nets.choices import WIDTH, code_shape
from fedprivseg.nets.codec import block


class UNet(nn.Module):
    """(N, inputs, H, W) float -> (N, outputs, H, W) float, no activation. 2**depth must divide H and W.

    Args:
        inputs: channels of the input.
        outputs: channels of the answer.
        width: channels at full resolution, doubled at each down-sampling.
        depth: down-samplings.
    """

    def __init__(self, inputs: int, outputs: int, width: int = WIDTH, depth: int = 4) -> None:
        super().__init__()
        self.depth = depth
        self.stem = block(inputs, width)
        self.downs = nn.ModuleList(block(width << stage, width << stage + 1) for stage in range(depth))
        self.ups = nn.ModuleList(
            block((width << stage + 1) + (width << stage), width << stage) for stage in reversed(range(depth))
        )
        self.output = nn.Conv2d(width, outputs, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        code_shape(image.shape[-2], image.shape[-1], self.depth)
        features = self.stem(image)
        skips = []
        for down in self.downs:
            skips.append(features)
            features = down(functional.max_pool2d(features, 2))
        for up in self.ups:
            larger = functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
            features = up(torch.cat([larger, skips.pop()], dim=1))
        answer: torch.Tensor = self.output(features)
        return answer
