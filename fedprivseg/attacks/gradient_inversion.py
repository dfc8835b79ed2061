"""Images from the update of one step: those whose gradient points where the update points.

The adversary knows the weights before, the update, and, generously, the outlines of the slices: what it lacks are the images.
It takes the update for the gradient of one batch, which it is after one step and is less and less after several
(`multi_step_inversion` follows those).

What makes the search succeed where a plain one stays at noise, each measured on an MRI slice of 96 x 96: the cosine is taken
layer by layer, so that small layers count as much as large ones; the images are a sum of pictures of 3, 6, ... pixels a side,
so that what is coarse is found first (an image pyramid as preconditioner); Adam takes whole gradients and not their signs; soft
signs are compared where a site steps by AdamW, whose first step is the signs of its gradient; and the statistics of the batch,
where the network has batch norm, tell the brightness that no gradient of such a network does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, final

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fedprivseg.attacks.base import UpdateAttack, UpdateView
from fedprivseg.attacks.statistics_inversion import batch_statistics
from fedprivseg.nets.local_training import supervised_loss

SMOOTHNESS = 1e-5
"""Weight of the total variation of the images."""

RANGE = 10.0
"""Weight of the squared distance of the images from 0..1."""

STATISTICS = 0.1
"""Weight of the distance of batch statistics (R_BN of Yin et al., CVPR 2021)."""

TINY = 1e-6
"""Added to variances before they divide."""

RATE = 0.01
"""Of Adam, at its peak."""

LEVELS = 6
"""Pictures of the pyramid, each half as large as the one before."""

SOFTNESS = 0.3
"""See `soft_signs`. On four ACDC slices and the three small networks of the controls it explains 0.73, 0.75 and 0.84 of the
squared error after one step of AdamW, where the bare gradient explains 0.22, 0.47 and 0.75; after one of SGD 0.93 to 0.98."""

SILENT = 1e-5
"""Share of the longest array's length below which an array of an update says nothing: no gradient reaches that weight, as that
of a bias before a norm, and what moved it is decay or rounding."""


@final
class GradientInversion(UpdateAttack):
    """Minimises the layers' cosine distances between the update and the gradient that the images would give."""

    name = "gradient-inversion"
    title = "Gradient inversion"
    paper = "Geiping et al., NeurIPS 2020; statistics of the batch after Yin et al., CVPR 2021"
    knows = "the released update, the weights before it, the outlines of the slices, and pictures from elsewhere"
    under_defences: ClassVar[bool] = False

    def lacks(self, view: UpdateView) -> str:
        """Several steps."""
        return "" if view.work.steps == 1 else "several steps are not one gradient"

    def reconstruct(self, view: UpdateView) -> np.ndarray:
        """The images of the best step, from the mean of the adversary's own pictures on."""
        where = torch.device(view.device)
        net = view.build().to(where).train()
        named = [(name, weight) for name, weight in net.named_parameters() if name in view.update]
        weights = [weight for _, weight in named]
        wanted = [torch.from_numpy(np.ascontiguousarray(view.update[name])).float().to(where) for name, _ in named]
        if adaptive := view.work.optimiser == "adamw":
            rate, decay = view.work.rate_at(0), view.work.decay
            wanted = [each / rate - decay * weight.detach() for each, weight in zip(wanted, weights, strict=True)]
        masks = torch.from_numpy(view.masks).to(where)
        statistics = StatisticsDistance(net, view)

        def distance(images: torch.Tensor) -> torch.Tensor:
            statistics.begin()
            found = torch.autograd.grad(supervised_loss(net(images), masks), weights, create_graph=True)
            shown = [soft_signs(each) for each in found] if adaptive else found
            return cosine_distance(shown, wanted) + STATISTICS * statistics.distance()

        start = torch.from_numpy(view.auxiliary.mean(axis=0)).to(where)
        steps = max(1, view.effort.inner // len(masks))  # a batch takes as many times as long
        return searched(
            distance, start.expand(len(masks), 1, -1, -1), steps, lambda done: view.progress(self.name, done, steps)
        )


def soft_signs(gradient: torch.Tensor) -> torch.Tensor:
    """What the first step of AdamW makes of a gradient, g / (|g| + e), with an e that a search can follow: `SOFTNESS` of the
    mean of |g|. With AdamW's own 1e-8 nearly all numbers are signs, which have no slope."""
    return gradient / (gradient.abs() + SOFTNESS * gradient.abs().mean().detach() + 1e-30)


class StatisticsDistance:
    """How far the statistics of the batches that pass a network are from those that an update tells.

    Args:
        net: in training mode, with the weights before.
        view: whose update it is.
    """

    def __init__(self, net: nn.Module, view: UpdateView) -> None:
        told = batch_statistics(net, view.update, view.work.steps)
        self._wanted = {
            place: tuple(torch.from_numpy(part).float().to(view.device) for part in pair)
            for place, pair in told.items()
        }
        self._kept: dict[str, float] = {}
        self._seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for place, module in net.named_modules():
            if place in self._wanted and isinstance(module, nn.modules.batchnorm._BatchNorm):
                self._kept[place] = 1 - float(module.momentum or 0)
                module.register_forward_pre_hook(partial(self._watch, place))

    def begin(self) -> None:
        """Forget the batches before."""
        self._seen.clear()

    def distance(self) -> torch.Tensor:
        """Squared distances of means in deviations, and of deviations as ratios, mean over channels and norms; 0 without
        norms. Of several batches the mean counts that running statistics keep, weighted towards the last."""
        parts = []
        for place, seen in self._seen.items():
            weights = [self._kept[place] ** back for back in reversed(range(len(seen)))]
            means, variances = (
                torch.stack([weight * pair[which] for weight, pair in zip(weights, seen, strict=True)]).sum(dim=0)
                / sum(weights)
                for which in (0, 1)
            )
            mean, variance = self._wanted[place]
            scale = variance.clamp_min(0) + TINY
            ratio = (variances.clamp_min(0) + TINY).sqrt() / scale.sqrt()
            parts.append(((means - mean).square() / scale).mean() + (ratio - 1).square().mean())
        return torch.stack(parts).mean() if parts else torch.zeros(())

    def _watch(self, place: str, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        self._seen.setdefault(place, []).append((inputs[0].mean(dim=axes), inputs[0].var(dim=axes)))


def cosine_distance(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> torch.Tensor:
    """1 - cosine of the angle between gradients, the mean over the arrays; those that `wanted` does not touch are left out."""
    least = SILENT * max((float(each.norm()) for each in wanted), default=0.0)
    parts = [
        1 - (a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-24)
        for a, b in zip(found, wanted, strict=True)
        if float(b.norm()) > least
    ]
    return torch.stack(parts).mean() if parts else torch.zeros((), requires_grad=True)


def searched(
    distance: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, steps: int, tell: Callable[[int], None]
) -> np.ndarray:
    """Images (B, 1, H, W) in 0..1 that minimise `distance`, those of the best step, in float32.

    Args:
        distance: images -> scalar, differentiable twice.
        start: where the search begins, (B, 1, H, W).
        steps: of Adam.
        tell: called with the number of steps so far.
    """
    size = (start.shape[-2], start.shape[-1])
    sides = [(max(1, size[0] >> level), max(1, size[1] >> level)) for level in range(LEVELS)]
    pyramid = [torch.zeros(len(start), 1, *side, device=start.device, requires_grad=True) for side in sides]
    best, kept = float("inf"), start.detach().clone()

    def images() -> torch.Tensor:
        total = start
        for level, part in enumerate(pyramid):
            grown = functional.interpolate(part, size=size, mode="bilinear", align_corners=False)
            # Coarse parts are few and reach far: doubled steps let them move first.
            total = total + grown * 2.0**level
        return total

    optimiser = torch.optim.Adam(pyramid, RATE)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1, pct_start=0.1)
    for step in range(steps):
        given = images()
        rough = given.diff(dim=3).abs().mean() + given.diff(dim=2).abs().mean()
        outside = (given - given.clamp(0, 1)).square().mean()
        total = distance(given) + SMOOTHNESS * rough + RANGE * outside
        for part, gradient in zip(pyramid, torch.autograd.grad(total, pyramid), strict=True):
            part.grad = gradient
        value = float(total.detach())
        if value < best:
            best, kept = value, given.detach().clone()
        optimiser.step()
        pace.step()
        tell(step + 1)
    return kept.clamp(0, 1).float().cpu().numpy()
