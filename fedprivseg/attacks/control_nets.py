"""Small networks on which an attack on updates has to succeed: without norm, with GroupNorm, with batch norm.

They are made for being inverted, as the networks of the first such attacks were (Zhu et al., NeurIPS 2019): smooth activations,
and dense layers, which see where in the image something is. Where an attack fails on them it fails for reasons of its own;
where it succeeds on them and fails on a U-Net, the difference is the U-Net's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from fedprivseg.core.seeds import building

WIDTH, HIDDEN, CELLS, GROUPS = 16, 32, 6, 4

PLAIN = "small net"

_NORMS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        PLAIN: nn.Identity,
        "small net with GroupNorm": lambda: nn.GroupNorm(GROUPS, WIDTH),
        "small net with batch norm": lambda: nn.BatchNorm2d(WIDTH),
    }
)

CONTROL_NETS = tuple(_NORMS)
"""Their names."""


def control_net(name: str, height: int, width: int, structures: int, seed: int) -> nn.Sequential:
    """An untrained small network: (N, 1, H, W) -> logits (N, K, H, W).

    Two convolutions 5x5 of stride 2 to 16 channels, so that they could hold every pixel; two dense layers, to logits on 6 x 6
    cells; ELU between them, which is the identity above 0.

    Args:
        name: one of `CONTROL_NETS`.
        height: H, a multiple of 4.
        width: W, a multiple of 4.
        structures: K.
        seed: of its initial weights.
    """
    with building(seed, "control net"):
        return nn.Sequential(
            nn.Conv2d(1, WIDTH, 5, stride=2, padding=2),
            _NORMS[name](),
            nn.ELU(),
            nn.Conv2d(WIDTH, WIDTH, 5, stride=2, padding=2),
            _NORMS[name](),
            nn.ELU(),
            nn.Flatten(),
            nn.Linear(WIDTH * (height // 4) * (width // 4), HIDDEN),
            nn.ELU(),
            nn.Linear(HIDDEN, structures * CELLS**2),
            nn.Unflatten(1, (structures, CELLS, CELLS)),
            nn.Upsample(size=(height, width), mode="bilinear"),
        )
