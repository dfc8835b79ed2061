"""Images from the update of several steps: those with which a simulation of the steps ends where the site ended.

The adversary repeats the site's training, step by step, with images that it may change: batches, optimiser, momentum, decay and
rates are those of the scenario. It does not know in which order the site drew its slices. So every pass through them has images
of its own, and all passes must agree in their mean, which no order changes (order-invariant prior); in the end they are
averaged, each slice with itself.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from fedprivseg.attacks.base import UpdateAttack, UpdateView
from fedprivseg.attacks.gradient_inversion import STATISTICS, StatisticsDistance, cosine_distance, searched
from fedprivseg.nets.local_training import Work, supervised_loss

AGREEMENT = 1.0
"""Weight of the squared distance between the mean images of two passes."""


@final
class MultiStepInversion(UpdateAttack):
    """Minimises the layers' cosine distances between the update and that of the simulated steps."""

    name = "multi-step-inversion"
    title = "Inversion of several simulated steps"
    paper = "Dimitrov et al. (Data Leakage in Federated Averaging), TMLR 2022"
    knows = "the released update, the weights before it, how the site trains, the outlines, and pictures from elsewhere"
    under_defences: ClassVar[bool] = False

    def lacks(self, view: UpdateView) -> str:
        """One step, steps of another optimiser, or more slices than those whose outlines are known."""
        work = view.work
        if work.steps == 1:
            return "one step is one gradient, which gradient inversion follows"
        if work.optimiser != "sgd":
            return f"it simulates steps of SGD, and the site takes those of {work.optimiser}"
        if work.batch > len(view.masks) or len(view.masks) % work.batch:
            return f"a step takes {work.batch} slices, and the outlines of {len(view.masks)} are known"
        return ""

    def reconstruct(self, view: UpdateView) -> np.ndarray:
        """The images of the best simulation, the mean over its passes."""
        where, work, count = torch.device(view.device), view.work, len(view.masks)
        net = view.build().to(where).train()
        masks = torch.from_numpy(view.masks).to(where)
        names = [name for name, _ in net.named_parameters() if name in view.update]
        wanted = [torch.from_numpy(np.ascontiguousarray(view.update[name])).float().to(where) for name in names]
        statistics = StatisticsDistance(net, view)
        passes = -(-work.steps * work.batch // count)

        def distance(images: torch.Tensor) -> torch.Tensor:
            statistics.begin()
            made = simulated(net, images, masks.repeat(passes, 1, 1), work)
            means = images.reshape(passes, count, *images.shape[1:]).mean(dim=1)
            apart = (means - means.mean(dim=0)).square().mean()
            return (
                cosine_distance([made[name] for name in names], wanted)
                + STATISTICS * statistics.distance()
                + (AGREEMENT * apart)
            )

        start = torch.from_numpy(view.auxiliary.mean(axis=0)).to(where).expand(passes * count, 1, -1, -1)
        steps = max(2, view.effort.inner // work.steps)
        found = searched(distance, start, steps, lambda done: view.progress(self.name, done, steps))
        mean: np.ndarray = found.reshape(passes, count, *found.shape[1:]).mean(axis=0)
        return mean


def simulated(net: nn.Module, images: torch.Tensor, masks: torch.Tensor, work: Work) -> dict[str, torch.Tensor]:
    """The update, before minus after, of the steps of `work` on consecutive batches; differentiable in the images.

    The arithmetic is that of `local_training.train_round` with SGD: gradients clipped, decay added, Nesterov momentum.

    Args:
        net: in training mode, with the weights before.
        images: (N, 1, H, W), N at least steps times batch.
        masks: (N, H, W) uint8.
        work: which steps.
    """
    before: dict[str, torch.Tensor] = dict(net.named_parameters())
    weights, moved = dict(before), dict[str, torch.Tensor]()
    for step in range(work.steps):
        batch = slice(step * work.batch, (step + 1) * work.batch)
        loss = supervised_loss(functional_call(net, weights, (images[batch],)), masks[batch])
        found = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        length = torch.stack([each.square().sum() for each in found]).sum().sqrt()
        clipped = (work.clip / (length + 1e-6)).clamp_max(1)
        for name, each in zip(list(weights), found, strict=True):
            gradient = each * clipped + work.decay * weights[name]
            moved[name] = gradient if step == 0 else work.momentum * moved[name] + gradient
            direction = gradient + work.momentum * moved[name] if work.momentum else gradient
            weights[name] = weights[name] - work.rate_at(step) * direction
    return {name: before[name] - after for name, after in weights.items()}
