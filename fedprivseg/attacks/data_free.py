"""The architecture alone: pictures and a copy of the encoder are sought together, so that the copy's codes are the site's."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np
import torch
from torch.nn import functional

from fedprivseg.attacks.base import Knowledge, Reconstruction, View
from fedprivseg.core.seeds import building
from fedprivseg.nets.descent import arithmetic

TURNS = 10
"""How often the pictures' turn and the copy's turn alternate."""

SMOOTHNESS = 0.05
"""Weight of the total variation of the pictures."""


@final
class DataFree(Reconstruction):
    """Neither data, queries nor pairs."""

    name = "data-free"
    title = "Data-free inversion"
    paper = "Erdogan et al. (UnSplit), WPES 2022, algorithm 1"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.ARCHITECTURE})
    every_view: ClassVar[bool] = False

    def reconstruct(self, view: View) -> dict[str, np.ndarray]:
        """One setting."""
        assert view.architecture is not None
        where = torch.device(view.device)
        with building(view.seed, self.name):
            copy = view.architecture().to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        copy.train()
        wanted = torch.from_numpy(view.codes).float().to(where)
        scale = wanted.var().clamp_min(1e-6)
        pictures = torch.full((len(wanted), *view.shape), 0.5, device=where, requires_grad=True)
        of_pictures = torch.optim.Adam([pictures], 0.02)
        weights = [weight for weight in copy.parameters() if weight.requires_grad]
        of_copy = torch.optim.Adam([{"params": weights}], 1e-3)
        each = max(1, view.effort.inner // (2 * TURNS))
        for turn in range(TURNS):
            for _ in range(each):
                of_pictures.zero_grad(set_to_none=True)
                _distance(copy, pictures, wanted, scale, smooth=True).backward()
                of_pictures.step()
                with torch.no_grad():
                    pictures.clamp_(0, 1)
            for _ in range(each if weights else 0):
                of_copy.zero_grad(set_to_none=True)
                _distance(copy, pictures.detach(), wanted, scale, smooth=False).backward()
                of_copy.step()
            view.progress(self.name, turn + 1, TURNS)
        return {"": pictures.detach().cpu().numpy()}


def _distance(
    copy: torch.nn.Module, pictures: torch.Tensor, wanted: torch.Tensor, scale: torch.Tensor, *, smooth: bool
) -> torch.Tensor:
    with arithmetic(pictures.device, "auto"):  # the copy of a U-Net is most of what a full budget costs
        codes = copy(pictures.contiguous(memory_format=torch.channels_last))
    loss = functional.mse_loss(codes.float(), wanted) / scale
    if smooth:
        down, across = pictures.diff(dim=2).abs().mean(), pictures.diff(dim=3).abs().mean()
        loss = loss + SMOOTHNESS * (down + across)
    return loss
