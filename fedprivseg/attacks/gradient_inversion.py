"""Pictures from an update of weights: those whose gradient points where the update points.

The adversary knows the weights before, the update, and, generously, the outlines of the slices: what it lacks are the images.
It takes the update for the gradient of one batch, which it is after one step and is less and less after several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import nn

from fedprivseg.attacks.base import Effort, Progress
from fedprivseg.core.seeds import torch_generator
from fedprivseg.nets.baseline import Weights
from fedprivseg.nets.local_training import supervised_loss

SMOOTHNESS = 1e-2
"""Weight of the total variation of the pictures."""

RATE = 0.05

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""``loss(answer of the net, masks)``: what the site is known to minimise."""


@dataclass(frozen=True)
class Seen:
    """What the adversary has. build: the network with the weights before, in training mode. towards: by parameter name, the
    direction of descent (before minus after) that the update shows; zero or absent says nothing. masks: (B, H, W) uint8."""

    build: Callable[[], nn.Module]
    towards: Weights
    masks: np.ndarray
    effort: Effort
    seed: int
    loss: Loss = supervised_loss
    device: str = "cpu"
    progress: Progress = lambda stage, done, total: None


@final
class GradientInversion:
    """The one attack on updates."""

    name = "gradient-inversion"
    title = "Gradient inversion"
    paper = "Geiping et al., NeurIPS 2020"
    knows = "the released update, the weights before it, and the outlines of the slices"


def invert_update(seen: Seen) -> np.ndarray:
    """Images (B, 1, H, W) float32 in 0..1 for the B outlines of `seen`, sought by signed gradients of the cosine distance."""
    where = torch.device(seen.device)
    net = seen.build().to(where).train()
    named = [(name, weight) for name, weight in net.named_parameters() if name in seen.towards]
    weights = [weight for _, weight in named]
    wanted = [torch.from_numpy(np.ascontiguousarray(seen.towards[name])).float().to(where) for name, _ in named]
    masks = torch.from_numpy(seen.masks).to(where)
    draws = torch_generator(seen.seed, GradientInversion.name)
    start = 0.5 + 0.1 * torch.randn((len(masks), 1, *masks.shape[1:]), generator=draws)
    images = start.to(where).requires_grad_()
    artist = torch.optim.Adam([images], RATE)
    steps = seen.effort.inner
    pace = torch.optim.lr_scheduler.MultiStepLR(artist, [round(steps * share) for share in (0.4, 0.7, 0.9)], 0.3)
    best, kept = float("inf"), images.detach().clone()
    for step in range(steps):
        artist.zero_grad(set_to_none=True)
        found = torch.autograd.grad(seen.loss(net(images), masks), weights, create_graph=True)
        distance = _distance(found, wanted)
        across, down = images.diff(dim=3).abs().mean(), images.diff(dim=2).abs().mean()
        total = distance + SMOOTHNESS * (across + down)
        (images.grad,) = torch.autograd.grad(total, [images])
        if float(total.detach()) < best:
            best, kept = float(total.detach()), images.detach().clone()
        images.grad.sign_()
        artist.step()
        pace.step()
        with torch.no_grad():
            images.clamp_(0, 1)
        seen.progress(GradientInversion.name, step + 1, steps)
    return kept.clamp(0, 1).cpu().numpy()


def _distance(found: tuple[torch.Tensor, ...], wanted: list[torch.Tensor]) -> torch.Tensor:
    """1 - cosine of the angle between the two sets of gradients, each taken as one vector."""
    product = torch.stack([(a * b).sum() for a, b in zip(found, wanted, strict=True)]).sum()
    lengths = (
        torch.stack([a.square().sum() for a in found]).sum() * torch.stack([b.square().sum() for b in wanted]).sum()
    )
    return 1 - product / lengths.clamp_min(1e-24).sqrt()
