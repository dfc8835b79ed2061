"""Images from an update of weights: those whose gradient points where the update points.

The adversary knows the weights before, the update, and, generously, the outlines of the slices: what it lacks are the images.
It takes the update for the gradient of one batch, which it is after one step and is less and less after several.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np
import torch

from fedprivseg.attacks.base import UpdateAttack, UpdateView
from fedprivseg.core.seeds import torch_generator
from fedprivseg.nets.local_training import supervised_loss

SMOOTHNESS = 1e-2
"""Weight of the total variation of the images."""

RATE = 0.05


@final
class GradientInversion(UpdateAttack):
    """Signed gradients of the cosine distance between the update and the gradient that the images would give."""

    name = "gradient-inversion"
    title = "Gradient inversion"
    paper = "Geiping et al., NeurIPS 2020"
    knows = "the released update, the weights before it, and the outlines of the slices"
    every_update: ClassVar[bool] = False

    def reconstruct(self, view: UpdateView) -> np.ndarray:
        """The images of the best step."""
        where = torch.device(view.device)
        net = view.build().to(where).train()
        named = [(name, weight) for name, weight in net.named_parameters() if name in view.update]
        weights = [weight for _, weight in named]
        wanted = [torch.from_numpy(np.ascontiguousarray(view.update[name])).float().to(where) for name, _ in named]
        masks = torch.from_numpy(view.masks).to(where)
        draws = torch_generator(view.seed(view.setting), self.name)
        start = 0.5 + 0.1 * torch.randn((len(masks), 1, *masks.shape[1:]), generator=draws)
        images = start.to(where).requires_grad_()
        optimiser = torch.optim.Adam([images], RATE)
        steps = view.effort.inner
        pace = torch.optim.lr_scheduler.MultiStepLR(optimiser, [round(steps * part) for part in (0.4, 0.7, 0.9)], 0.3)
        best, kept = float("inf"), images.detach().clone()
        for step in range(steps):
            optimiser.zero_grad(set_to_none=True)
            found = torch.autograd.grad(supervised_loss(net(images), masks), weights, create_graph=True)
            distance = _distance(found, wanted)
            across, down = images.diff(dim=3).abs().mean(), images.diff(dim=2).abs().mean()
            total = distance + SMOOTHNESS * (across + down)
            (images.grad,) = torch.autograd.grad(total, [images])
            if float(total.detach()) < best:
                best, kept = float(total.detach()), images.detach().clone()
            images.grad.sign_()
            optimiser.step()
            pace.step()
            with torch.no_grad():
                images.clamp_(0, 1)
            view.progress(self.name, step + 1, steps)
        return kept.clamp(0, 1).cpu().numpy()


def _distance(found: tuple[torch.Tensor, ...], wanted: list[torch.Tensor]) -> torch.Tensor:
    """1 - cosine of the angle between the two sets of gradients, each taken as one vector."""
    product = torch.stack([(a * b).sum() for a, b in zip(found, wanted, strict=True)]).sum()
    lengths = (
        torch.stack([a.square().sum() for a in found]).sum() * torch.stack([b.square().sum() for b in wanted]).sum()
    )
    return 1 - product / lengths.clamp_min(1e-24).sqrt()
