"""Adversarial training of an encoder: what its adversaries can tell from its codes, it learns to leave out.

Two reconstruct the image from the code. One is linear, from a cell and its neighbours to the pixels under the cell, and fitted
again to every batch in closed form, so that it is never behind an encoder that moves; the other is a network that learns
along. A probe for each attribute guesses that of the patient. The networks learn first, from codes that they cannot change;
then the encoder pays for what all of them know: for the share of the image's variance about the mean image that an
inverter explains, and for a probe's certainty. Every cost is bounded, and nothing is gained by driving an adversary below what
it would know without any code.

What that buys holds against these adversaries. A stronger one, trained later on the finished encoder, may still find
something; only an attack on the release tells (`attacks`). The family: Ding et al. 2022; Li et al. (DeepObfuscator), 2021.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fedprivseg.nets.choices import WIDTH

RATE = 2e-3
"""The learning rate of adversaries, without a schedule: they have to keep up with an encoder that moves."""

LESSONS = 2
"""Steps of the adversaries for each of the encoder."""

RIDGE = 1e-3
"""Strength of the linear inverter's ridge, times the mean variance of a feature."""

UNKNOWN = -1
"""The label of a slice whose attribute nobody knows."""


class Adversaries:
    """One inverter, and a probe an attribute. Initial weights come from torch's current generator (see `seeds.building`).

    Args:
        channels: of a code.
        ratio: pixels a side of a cell.
        images: (N, H, W) float32, the slices that are trained on.
        attributes: name -> (N,) int, one label of 0, 1, ... a slice, or `UNKNOWN`; an attribute with one label alone is left
            out.
        device: torch device.
    """

    def __init__(
        self, channels: int, ratio: int, images: np.ndarray, attributes: Mapping[str, np.ndarray], device: str
    ) -> None:
        where = torch.device(device)
        width = WIDTH * 4
        self._inverter = _Inverter(channels, ratio, width).to(where)
        known = {name: labels for name, labels in attributes.items() if len(np.unique(labels[labels != UNKNOWN])) > 1}
        self._labels = {name: torch.from_numpy(labels.astype(np.int64)).to(where) for name, labels in known.items()}
        self._probes = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, stride=2, padding=1),
                nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, int(labels.max()) + 1),
            )
            for labels in known.values()
        ).to(where)  # fmt: skip
        self._mean = torch.from_numpy(images.mean(axis=0))[None, None].to(where)
        weights = [*self._inverter.parameters(), *self._probes.parameters()]
        self._optimiser = torch.optim.AdamW(weights, lr=RATE)

    def learn(self, code: torch.Tensor, images: torch.Tensor, chosen: torch.Tensor) -> None:
        """`LESSONS` steps of all networks on codes (n, C, h, w) of images (n, 1, H, W), the slices `chosen` (n,)."""
        given = code.detach().float()
        for _ in range(LESSONS):
            self._optimiser.zero_grad(set_to_none=True)
            loss = functional.mse_loss(self._inverter(given), images) / self._spread(images)
            for logits, labels in self._guesses(given, chosen):
                loss = loss + functional.cross_entropy(logits, labels)
            loss.backward()
            self._optimiser.step()

    def cost(self, code: torch.Tensor, images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """What the encoder pays for `code`, 0 for one that says nothing: the variance that each inverter explains, 0..1, plus
        for each attribute how far the probe's guess is from an even one, in shares of the logarithm of the number of labels."""
        given = code.float()
        missed = functional.mse_loss(self._inverter(given), images) / self._spread(images)
        total = (1 - missed).clamp_min(0) + explained(given, images - self._mean)
        for logits, _ in self._guesses(given, chosen):
            certain = functional.log_softmax(logits, dim=1)
            total = total + 1 + (certain.exp() * certain).sum(dim=1).mean() / float(np.log(logits.shape[1]))
        return total

    def _guesses(self, given: torch.Tensor, chosen: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(logits, labels) of the slices whose attribute is known, for each attribute that some slice of the batch has."""
        found = []
        for probe, labels in zip(self._probes, self._labels.values(), strict=True):
            own = labels[chosen.to(labels.device)]
            if bool((own != UNKNOWN).any()):
                found.append((probe(given[own != UNKNOWN]), own[own != UNKNOWN]))
        return found

    def _spread(self, images: torch.Tensor) -> torch.Tensor:
        """Mean squared distance of a batch from the mean image: what an inverter without any code misses."""
        return (images - self._mean).square().mean().clamp_min(1e-6)


def explained(code: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The share of the squares of `images` (n, 1, H, W) that a ridge regression from neighbourhoods of 3 x 3 cells of `code`
    (n, C, h, w) explains, in closed form and differentiable: a scalar in 0..1."""
    cells = functional.unfold(code, 3, padding=1).transpose(1, 2).flatten(0, 1)
    pixels = (
        functional.pixel_unshuffle(images, images.shape[-1] // code.shape[-1]).flatten(2).transpose(1, 2).flatten(0, 1)
    )
    given, wanted = cells - cells.mean(dim=0), pixels - pixels.mean(dim=0)
    gram, cross = given.T @ given, given.T @ wanted
    ridge = RIDGE * gram.diagonal().mean().clamp_min(1e-6) * torch.eye(len(gram), device=code.device)
    found = (cross * torch.linalg.solve(gram + ridge, cross)).sum() / pixels.square().sum().clamp_min(1e-6)
    return found.clamp(0, 1)


class _Inverter(nn.Module):
    """Codes (N, C, h, w) -> images (N, 1, h * ratio, w * ratio), with a linear way beside the blocks that learns at once."""

    def __init__(self, channels: int, ratio: int, width: int) -> None:
        super().__init__()
        self.straight = nn.Conv2d(channels, ratio**2, 1)
        self.blocks = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1), nn.GELU(),
            nn.Conv2d(width, ratio**2, 3, padding=1),
        )  # fmt: skip
        self.to_space = nn.PixelShuffle(ratio)

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        inverted: torch.Tensor = self.to_space(self.straight(code) + self.blocks(code))
        return inverted
