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

from fedprivseg.attacks.base import Progress
from fedprivseg.core.method_card import What
from fedprivseg.core.seeds import building, torch_generator
from fedprivseg.nets.augment import Augmentation, augment
from fedprivseg.nets.descent import arithmetic, shuffled

WIDTH, WIDEST = 16, 96
BATCH = 16
CHECKS = 5
"""How often a training is looked at on the attacker's own held-out data; the best state is kept."""

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


class InversionNet(nn.Module):
    """Codes (N, C, h, w) -> pictures (N, K, H, W) in 0..1, for H / h = W / w a power of two.

    A linear way from code to picture runs beside the blocks, so that a code that is the picture needs no training to speak
    of. Raises ValueError for another ratio.
    """

    def __init__(self, code: tuple[int, int, int], picture: tuple[int, int, int]) -> None:
        super().__init__()
        (channels, h, w), (kinds, height, width) = code, picture
        ratio = height // h
        if height != h * ratio or width != w * ratio or ratio & (ratio - 1):
            raise ValueError(
                f"codes on {h} x {w} cells of pictures of {height} x {width} have no power of two between them"
            )
        self.standardise = nn.BatchNorm2d(channels, affine=False, momentum=None)
        # The last doubling is the output's own: blocks at the picture's resolution cost half of the time and show nothing more.
        levels = max(0, ratio.bit_length() - 2)
        last = ratio >> levels
        widths = [min(WIDTH * last << level, WIDEST) for level in range(levels + 1)][::-1]
        layers: list[nn.Module] = [
            nn.Conv2d(channels, widths[0], 3, padding=1),
            _Residual(widths[0]),
            _Residual(widths[0]),
        ]
        for above, below in pairwise(widths):
            layers += [nn.Conv2d(above, below * 4, 3, padding=1), nn.PixelShuffle(2), _Residual(below)]
        self.blocks = nn.Sequential(
            *layers, nn.Conv2d(widths[-1], kinds * last**2, 3, padding=1), nn.PixelShuffle(last)
        )
        self.straight = nn.Sequential(nn.Conv2d(channels, kinds * ratio**2, 3, padding=1), nn.PixelShuffle(ratio))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """See the class."""
        codes = self.standardise(codes)
        drawn: torch.Tensor = torch.sigmoid(self.blocks(codes) + self.straight(codes))
        return drawn


def similarity(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Mean SSIM of two batches (N, K, H, W) in 0..1, differentiable; a 7 x 7 box window at every other pixel (the judge's is
    Gaussian, and at every pixel)."""

    def mean(values: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(values, 7, stride=2)

    m1, m2 = mean(one), mean(other)
    v1, v2, both = mean(one * one) - m1**2, mean(other * other) - m2**2, mean(one * other) - m1 * m2
    value = (2 * m1 * m2 + 1e-4) * (2 * both + 9e-4) / ((m1**2 + m2**2 + 1e-4) * (v1 + v2 + 9e-4))
    return value.mean()


def unlikeness(drawn: torch.Tensor, truth: torch.Tensor, what: What) -> torch.Tensor:
    """What a decoder minimises: mean absolute error plus 1 - SSIM for images, cross-entropy plus 1 - Dice for masks."""
    drawn, truth = drawn.float(), truth.float()
    if what == "images":
        return (drawn - truth).abs().mean() + 0.5 * (1 - similarity(drawn, truth))
    overlap = (drawn * truth).sum(dim=(0, 2, 3))
    dice = (2 * overlap + 1) / (drawn.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3)) + 1)
    return functional.binary_cross_entropy(drawn.clamp(1e-5, 1 - 1e-5), truth) + 1 - dice.mean()


def fit_inverter(
    pictures: np.ndarray,
    codes: np.ndarray,
    steps: int,
    seed: int,
    names: tuple[str | int, ...],
    *,
    what: What,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
    rate: float = 2e-3,
    device: str = "cpu",
    progress: Progress | None = None,
) -> InversionNet:
    """A decoder trained on pictures (M, K, H, W) and their codes (M, C, h, w), M of 1 or more.

    what: images or masks, which are learned under another loss. held_out: pictures and codes on which the training is looked
    at `CHECKS` times; the best state is returned. Without, the last.
    """
    with building(seed, *names):
        net = InversionNet(codes.shape[1:], pictures.shape[1:])
    where = torch.device(device)
    net.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    truth, given = torch.from_numpy(pictures).to(where), torch.from_numpy(codes).to(where)
    _set_scale(net, given)
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-4)
    pace = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps + 1, pct_start=max(0.1, 2 / (steps + 1))
    )
    best, kept = float("inf"), None
    net.train()
    net.standardise.eval()
    batches = shuffled(len(pictures), min(BATCH, len(pictures)), torch_generator(seed, *names, "order"))
    for step, chosen in zip(range(1, steps + 1), batches, strict=False):
        chosen = chosen.to(where)
        optimiser.zero_grad(set_to_none=True)
        with arithmetic(where, True):
            drawn = net(given[chosen].contiguous(memory_format=torch.channels_last))
        loss = unlikeness(drawn, truth[chosen], what)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        pace.step()
        if progress is not None:
            progress(" ".join(map(str, names)), step, steps)
        if held_out is not None and (step == steps or step % max(1, steps // CHECKS) == 0):
            found = _loss_on(net, held_out, where, what)
            if found < best:
                best, kept = found, {name: value.clone() for name, value in net.state_dict().items()}
    if kept is not None:
        net.load_state_dict(kept)
    return net.eval()


@torch.no_grad()
def invert(net: nn.Module, codes: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Pictures (N, K, H, W) float32 of codes (N, C, h, w), some at a time."""
    net.eval()
    parts = [
        net(torch.from_numpy(codes[start : start + 32]).to(device).contiguous(memory_format=torch.channels_last))
        for start in range(0, len(codes), 32)
    ]
    return torch.cat(parts).float().cpu().contiguous().numpy()


def multiplied(pictures: np.ndarray, what: What, copies: int, seed: int, *names: str | int) -> np.ndarray:
    """`pictures` (M, K, H, W) followed by `copies` warped copies of each: (M * (1 + copies), K, H, W)."""
    draws = torch_generator(seed, *names, "copies")
    parts = [pictures]
    for _ in range(copies):
        parts.append(_warped(pictures, what, draws))
    return np.concatenate(parts)


def _warped(pictures: np.ndarray, what: What, draws: torch.Generator) -> np.ndarray:
    given = torch.from_numpy(pictures)
    if what == "images":
        images, _ = augment(given, torch.zeros(given.shape[0], *given.shape[2:], dtype=torch.uint8), WARP, draws)
        return images.numpy()
    kinds = torch.arange(1, given.shape[1] + 1).view(-1, 1, 1)
    labels = (given * kinds).amax(dim=1).to(torch.uint8)
    _, masks = augment(given[:, :1], labels, WARP, draws)
    return (masks[:, None] == kinds).float().numpy()


def _set_scale(net: InversionNet, codes: torch.Tensor) -> None:
    """Fix the standardisation to the channels of `codes`: batches of one pair have no spread of their own."""
    with torch.no_grad():
        mean, var = net.standardise.running_mean, net.standardise.running_var
        assert mean is not None
        assert var is not None
        mean.copy_(codes.float().mean(dim=(0, 2, 3)))
        var.copy_(codes.float().var(dim=(0, 2, 3), unbiased=False).clamp_min(1e-6))


@torch.no_grad()
def _loss_on(net: nn.Module, held_out: tuple[np.ndarray, np.ndarray], where: torch.device, what: What) -> float:
    pictures, codes = held_out
    net_was = net.training
    drawn = torch.from_numpy(invert(net, codes, str(where)))
    net.train(net_was)
    if isinstance(net, InversionNet):
        net.standardise.eval()
    return float(unlikeness(drawn, torch.from_numpy(pictures), what))
