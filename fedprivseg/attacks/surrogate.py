"""Neither pairs nor queries: codes and pictures of the same kind that do not belong together.

A surrogate encoder is trained so that the codes of the attacker's pictures are distributed as the site's codes are (a
discriminator over patches of codes, and the multi-kernel maximum mean discrepancy of their cells); a decoder trained on the
surrogate is then used on the site's codes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, final

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fedprivseg.attacks.base import Knowledge, Reconstruction, View
from fedprivseg.attacks.inversion_net import inverted
from fedprivseg.core.seeds import building, torch_generator
from fedprivseg.nets.descent import shuffled

BATCH = 16
CELLS = 256
"""Cells of each side that enter the discrepancy in a step."""

SPREADS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Widths of the Gaussian kernels, times the median distance."""


class _Surrogate(nn.Module):
    """Pictures -> codes: space-to-depth, then two branches, one of them linear. Another architecture than any site's."""

    def __init__(self, kinds: int, ratio: int, channels: int, width: int) -> None:
        super().__init__()
        self.fold = nn.PixelUnshuffle(ratio)
        inputs = kinds * ratio**2
        self.straight = nn.Conv2d(inputs, channels, 3, padding=1)
        self.blocks = nn.Sequential(
            nn.Conv2d(inputs, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1), nn.GELU(),
            nn.Conv2d(width, channels, 1),
        )  # fmt: skip

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        deep = self.fold(pictures)
        codes: torch.Tensor = self.straight(deep) + self.blocks(deep)
        return codes


@final
class Surrogate(Reconstruction):
    """Matches distributions, then inverts its own copy."""

    name = "surrogate"
    title = "Surrogate without pairs"
    paper = "Xu et al. (FORA), CVPR 2024"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.AUXILIARY})

    def reconstruct(self, view: View) -> dict[str, np.ndarray]:
        """One setting."""
        assert view.auxiliary is not None
        where = torch.device(view.device)
        channels, h = view.codes.shape[1:3]
        mean, spread = (
            view.codes.mean(axis=(0, 2, 3), keepdims=True),
            view.codes.std(axis=(0, 2, 3), keepdims=True) + 1e-6,
        )
        real = torch.from_numpy((view.codes - mean) / spread).float().to(where)
        pictures = torch.from_numpy(view.auxiliary).to(where)
        ratio = view.shape[1] // h
        width = min(64, 16 * ratio)  # a fine grid has many cells, and little to find out in each
        with building(view.seed, self.name):
            encoder = _Surrogate(view.shape[0], ratio, channels, width).to(where)
            discriminator = nn.Sequential(
                nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(width, width, 3, padding=1),
                nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 1),
            ).to(where)  # fmt: skip
        draws = torch_generator(view.seed, self.name, "order")
        ours, theirs = shuffled(len(pictures), BATCH, draws), shuffled(len(real), BATCH, draws)
        of_encoder = torch.optim.Adam(encoder.parameters(), 1e-3, betas=(0.5, 0.9))
        of_discriminator = torch.optim.Adam(discriminator.parameters(), 1e-3, betas=(0.5, 0.9))
        for step in range(view.effort.steps):
            fake, truth = encoder(pictures[next(ours).to(where)]), real[next(theirs).to(where)]
            of_discriminator.zero_grad(set_to_none=True)
            _least_squares(discriminator, truth, fake.detach()).backward()
            of_discriminator.step()
            of_encoder.zero_grad(set_to_none=True)
            loss = (
                discrepancy(_cells(fake, draws), _cells(truth, draws)) + 0.1 * (discriminator(fake) - 1).square().mean()
            )
            loss.backward()
            of_encoder.step()
            view.progress(self.name, step + 1, view.effort.steps)
        with torch.no_grad():
            encoder.eval()
            codes = torch.cat([encoder(part) for part in pictures.split(32)]).cpu().numpy()
        standardised = replace(view, codes=real.cpu().numpy())
        return {"": inverted(standardised, view.auxiliary, codes, view.effort.steps, (self.name, "decoder"))}


def discrepancy(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Squared multi-kernel maximum mean discrepancy of two samples (n, d), biased estimate; 0 for equal samples.

    Gretton et al., JMLR 13:723, 2012, with kernels of several widths about the median distance of the second sample.
    """
    joint = torch.cat([one, other])
    squares = torch.cdist(joint, joint).square()
    n = len(one)
    median = squares[n:, n:].detach().median().clamp_min(1e-6)
    kernel = torch.stack([torch.exp(-squares / (2 * width**2 * median)) for width in SPREADS]).mean(dim=0)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def _least_squares(discriminator: nn.Module, truth: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = (discriminator(truth) - 1).square().mean() + discriminator(fake).square().mean()
    return loss


def _cells(codes: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """`CELLS` neighbourhoods of 3 x 3 cells, drawn at random: (CELLS, 9 * C)."""
    windows = functional.unfold(codes, 3, padding=1).transpose(1, 2).reshape(-1, 9 * codes.shape[1])
    return windows[torch.randint(len(windows), (CELLS,), generator=draws).to(windows.device)]
