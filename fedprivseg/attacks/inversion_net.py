"""The decoder that attackers train: residual blocks at every resolution from the code's grid up to half the picture's.

Stronger than the decoders of the sites on purpose (He et al. 2016 blocks, sub-pixel up-sampling after Shi et al. 2016, a loss
with structural similarity in it): an attack that fails should have failed for lack of information and not of capacity.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fedprivseg.attacks.base import View
from fedprivseg.core.method_card import What
from fedprivseg.core.seeds import building, torch_generator
from fedprivseg.nets.augment import Augmentation, augment
from fedprivseg.nets.descent import arithmetic, shuffled

WIDTH, WIDEST = 16, 96
BATCH, RATE = 16, 2e-3
CHECKS = 5
"""How often a training is validated on the attacker's own held-out data; the best state is kept."""

WARP = Augmentation(gamma=0.2, contrast=0.2, brightness=0.05, noise=0.0, blur=0.0, bias=0.0)
"""How an attacker multiplies pictures before it queries: spatially like a site does, in intensity less."""


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = features + self.body(features)
        return out


class _InversionNet(nn.Module):
    """Codes (N, C, h, w) -> pictures (N, K, H, W) in 0..1, for H / h = W / w a power of two.

    A linear map from code to picture runs beside the blocks, so that a code that is the picture needs no training to speak of.
    Codes are standardised by the channels of `codes`, on which it will be trained. Raises ValueError for another ratio.
    """

    mean: torch.Tensor
    var: torch.Tensor

    def __init__(self, codes: torch.Tensor, pictures: torch.Tensor) -> None:
        super().__init__()
        (channels, h, w), (kinds, height, width) = codes.shape[1:], pictures.shape[1:]
        ratio = height // h
        if height != h * ratio or width != w * ratio or ratio & (ratio - 1):
            raise ValueError(
                f"codes on {h} x {w} cells of pictures of {height} x {width} have no power of two between them"
            )
        self.register_buffer("mean", codes.float().mean(dim=(0, 2, 3)))
        self.register_buffer("var", codes.float().var(dim=(0, 2, 3), unbiased=False).clamp_min(1e-6))
        # The last doubling is the output's own: blocks at the picture's resolution cost half of the time and show nothing more.
        levels = max(0, ratio.bit_length() - 2)
        last = ratio >> levels
        widths = [min(WIDTH * last << level, WIDEST) for level in range(levels + 1)][::-1]
        layers = [nn.Conv2d(channels, widths[0], 3, padding=1), _Residual(widths[0]), _Residual(widths[0])]
        for above, below in pairwise(widths):
            layers += [nn.Conv2d(above, below * 4, 3, padding=1), nn.PixelShuffle(2), _Residual(below)]
        layers += [nn.Conv2d(widths[-1], kinds * last**2, 3, padding=1), nn.PixelShuffle(last)]
        self.blocks = nn.Sequential(*layers)
        self.straight = nn.Sequential(nn.Conv2d(channels, kinds * ratio**2, 3, padding=1), nn.PixelShuffle(ratio))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """See the class."""
        codes = functional.batch_norm(codes.contiguous(memory_format=torch.channels_last), self.mean, self.var)
        output: torch.Tensor = torch.sigmoid(self.blocks(codes) + self.straight(codes))
        return output


def similarity(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Mean SSIM of two batches (N, K, H, W) in 0..1, differentiable; a 7 x 7 box window at every other pixel."""

    def mean(values: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(values, 7, stride=2)

    m1, m2 = mean(one), mean(other)
    v1, v2, both = mean(one * one) - m1**2, mean(other * other) - m2**2, mean(one * other) - m1 * m2
    value = (2 * m1 * m2 + 1e-4) * (2 * both + 9e-4) / ((m1**2 + m2**2 + 1e-4) * (v1 + v2 + 9e-4))
    return value.mean()


def unlikeness(output: torch.Tensor, truth: torch.Tensor, what: What) -> torch.Tensor:
    """What a decoder minimises: mean absolute error plus 1 - SSIM for images, cross-entropy plus 1 - Dice for masks."""
    output, truth = output.float(), truth.float()
    if what == "images":
        return (output - truth).abs().mean() + 0.5 * (1 - similarity(output, truth))
    overlap = (output * truth).sum(dim=(0, 2, 3))
    dice = (2 * overlap + 1) / (output.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3)) + 1)
    return functional.binary_cross_entropy(output.clamp(1e-5, 1 - 1e-5), truth) + 1 - dice.mean()


def inverted(
    view: View,
    pictures: np.ndarray,
    codes: np.ndarray,
    steps: int,
    names: tuple[str | int, ...],
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """What a decoder that is trained on pictures and their codes makes of the codes of `view`: (N, K, H, W) float32.

    Args:
        pictures: (M, K, H, W), M of 1 or more.
        codes: theirs, (M, C, h, w).
        steps: of the optimiser.
        names: of every draw.
        held_out: pictures and codes that validate the training `CHECKS` times; the best state is used. Without, the last.
    """
    where = torch.device(view.device)
    truth, given = torch.from_numpy(pictures).to(where), torch.from_numpy(codes).to(where)
    with building(view.seed, *names):
        net = _InversionNet(given, truth)
    net.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-4)
    pace = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=steps + 1, pct_start=max(0.1, 2 / (steps + 1))
    )
    best, kept = float("inf"), None
    batches = shuffled(len(pictures), min(BATCH, len(pictures)), torch_generator(view.seed, *names, "order"))
    for step, chosen in zip(range(1, steps + 1), batches, strict=False):
        chosen = chosen.to(where)
        optimiser.zero_grad(set_to_none=True)
        with arithmetic(where, True):
            output = net(given[chosen])
        unlikeness(output, truth[chosen], view.what).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        pace.step()
        view.progress(" ".join(map(str, names)), step, steps)
        if held_out is not None and (step == steps or step % max(1, steps // CHECKS) == 0):
            found = float(unlikeness(_decoded(net, held_out[1], where), torch.from_numpy(held_out[0]), view.what))
            if found < best:
                best, kept = found, {name: value.clone() for name, value in net.state_dict().items()}
    if kept is not None:
        net.load_state_dict(kept)
    return _decoded(net, view.codes, where).numpy()


@torch.no_grad()
def _decoded(net: nn.Module, codes: np.ndarray, where: torch.device) -> torch.Tensor:
    """Pictures (N, K, H, W) float32 of codes (N, C, h, w), some at a time."""
    return torch.cat([net(part.to(where)) for part in torch.from_numpy(codes).split(32)]).float().cpu().contiguous()


def multiplied(pictures: np.ndarray, what: What, copies: int, seed: int, *names: str | int) -> np.ndarray:
    """`pictures` (M, K, H, W) followed by `copies` warped copies of each: (M * (1 + copies), K, H, W)."""
    draws = torch_generator(seed, *names, "copies")
    return np.concatenate([pictures, *(_warped(pictures, what, draws) for _ in range(copies))])


def _warped(pictures: np.ndarray, what: What, draws: torch.Generator) -> np.ndarray:
    given = torch.from_numpy(pictures)
    if what == "images":
        images, _ = augment(given, torch.zeros(given.shape[0], *given.shape[2:], dtype=torch.uint8), WARP, draws)
        return images.numpy()
    kinds = torch.arange(1, given.shape[1] + 1).view(-1, 1, 1)
    labels = (given * kinds).amax(dim=1).to(torch.uint8)
    _, masks = augment(given[:, :1], labels, WARP, draws)
    return (masks[:, None] == kinds).float().numpy()
