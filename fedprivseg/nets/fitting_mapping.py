"""What the server trains: a mapping from coded images to coded masks, on codes and nothing else.

Each site's encoders were trained alone, so each site's codes are a language of their own. `SiteMapping` gives every site
adapters, and all of them one shared backbone: what is learned about the organ is learned from all sites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from torch import nn

from fedprivseg.nets.baseline import load_weights
from fedprivseg.nets.choices import Skips
from fedprivseg.nets.codec import block
from fedprivseg.nets.descent import Progress, Schedule, arithmetic, descend
from fedprivseg.nets.mapping import OverComplete
from fedprivseg.nets.unet import UNet

AT_ONCE = 256
"""Rows of codes read together when their statistics are taken."""

Backbone = Literal["over-complete", "unet"]


class Rows(Protocol):
    """Codes of one site, wherever they lie: (N, C, h, w), any float type, read a few rows at a time."""

    def __len__(self) -> int: ...

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """The rows at `indices` (n,), as one array (n, C, h, w)."""


class SiteMapping(nn.Module):
    """Codes of several sites -> their mask codes, through one shared backbone.

    Each site's codes are standardised by their own mean and deviation, a channel each, taken from the codes received; the
    answer is put back on the scale of that site's mask codes. With `adapters`, each site has besides an adapter in front of the
    backbone and one behind it; without, the backbone takes and gives the codes themselves, one net for all (the paper).
    The adapter in front sees 5 x 5 cells, for encoders trained alone may differ in where they put things as well as
    in the channel: with codes of a shallow encoder, validation Dice was 0.76 with it and 0.72 with a 1x1 one (one run).
    """

    image_mean: torch.Tensor
    image_deviation: torch.Tensor
    mask_mean: torch.Tensor
    mask_deviation: torch.Tensor

    def __init__(
        self, sites: Sequence[str], inputs: int, outputs: int, backbone: nn.Module, adapters: int | None
    ) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.trunk = backbone  # these names stand in the kept models of runs
        self.entrances = nn.ModuleList(
            nn.Sequential(block(inputs, adapters), nn.Conv2d(adapters, adapters, 1)) if adapters else nn.Identity()
            for _ in self.sites
        )
        self.exits = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(adapters, outputs, 1)) if adapters else nn.Identity() for _ in self.sites
        )
        for name, channels in (("image", inputs), ("mask", outputs)):
            self.register_buffer(f"{name}_mean", torch.zeros(len(self.sites), channels, 1, 1))
            self.register_buffer(f"{name}_deviation", torch.ones(len(self.sites), channels, 1, 1))

    def standardised(self, codes: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Standardised mask codes from image codes of some sites: (n, inputs, h, w) each -> (n, outputs, h, w) each.

        All sites pass the backbone as one batch, so that its batch norms see all of them.
        """
        places = [self.place(site) for site in codes]
        entered = [
            self.entrances[place]((code - self.image_mean[place]) / self.image_deviation[place])
            for place, code in zip(places, codes.values(), strict=True)
        ]
        features = self.trunk(torch.cat(entered).contiguous(memory_format=torch.channels_last))
        parts = features.split([len(part) for part in entered])
        return {site: self.exits[place](part) for site, place, part in zip(codes, places, parts, strict=True)}

    def forward(self, site: str, code: torch.Tensor) -> torch.Tensor:
        """Predicted mask codes of one site, on the scale of its mask codes."""
        place = self.place(site)
        answer: torch.Tensor = self.standardised({site: code})[site].float()
        return answer * self.mask_deviation[place] + self.mask_mean[place]

    def begin(self, one: Mapping[str, np.ndarray]) -> None:
        """Take the weights of a mapping of one site: its backbone, and for every site its adapters and statistics of codes.

        one: that mapping's arrays by name. A site's own codes bring other statistics (`fit_mapping`).
        """
        weights = {name: value for name, value in one.items() if name.startswith("trunk.")}
        for name, value in one.items():
            kind, _, rest = name.partition(".0.")
            if kind in ("entrances", "exits"):
                weights |= {f"{kind}.{place}.{rest}": value for place in range(len(self.sites))}
            if kind in ("image_mean", "image_deviation", "mask_mean", "mask_deviation"):
                weights[name] = np.repeat(value, len(self.sites), axis=0)
        load_weights(self, weights)

    def place(self, site: str) -> int:
        """The position of `site`. Raises ValueError for a site whose codes were not learned from."""
        if site not in self.sites:
            raise ValueError(
                f"no mapping was learned for site {site!r}; there is one for each of {', '.join(self.sites)}"
            )
        return self.sites.index(site)


def build_mapping(
    sites: Sequence[str],
    inputs: int,
    outputs: int,
    *,
    backbone: Backbone = "over-complete",
    width: int = 128,
    levels: int = 4,
    skips: Skips = "add",
    adapters: bool = False,
) -> SiteMapping:
    """An untrained mapping.

    Args:
        sites: whose codes it maps.
        inputs: channels of an image code.
        outputs: channels of a mask code.
        backbone: ``over-complete`` (section 2.3) or ``unet``, for codes on so fine a grid that context is what they lack.
        width: of the backbone, at the code's grid.
        levels: of the backbone: up-samplings, or down-samplings of ``unet``.
        skips: of the over-complete one.
        adapters: whether each site has its own.
    """
    ends = (width, width) if adapters else (inputs, outputs)
    net = OverComplete(*ends, width, levels, skips) if backbone == "over-complete" else UNet(*ends, width, levels)
    return SiteMapping(sites, inputs, outputs, net, width if adapters else None)


def fit_mapping(
    mapping: SiteMapping,
    images: Mapping[str, Rows],
    masks: Mapping[str, Rows],
    schedule: Schedule,
    seed: int,
    names: tuple[str | int, ...],
    *,
    standardise: bool = True,
    device: str = "cpu",
    progress: Progress | None = None,
) -> float:
    """Train `mapping` in place to predict each site's mask codes from its image codes; returns the last mean loss.

    The loss is the mean squared error of mask codes.

    Args:
        mapping: of these sites.
        images: image codes by site.
        masks: mask codes by site, row i belonging to row i of the image codes.
        schedule: how long and how fast.
        seed: with `names`, where the order comes from.
        names: of the purpose.
        standardise: whether codes are brought to zero mean and unit deviation, so that a loss of 1 is what predicting the
            mean would score.
        device: torch device.
        progress: called after every step.

    Raises:
        ValueError: rows do not pair up.
    """
    where = torch.device(device)
    for site in mapping.sites:
        if len(images[site]) != len(masks[site]):
            raise ValueError(
                f"site {site} has {len(images[site])} image codes and {len(masks[site])} mask codes; "
                "row i of one must belong to row i of the other, so collect both again"
            )
        if standardise and len(images[site]):
            _take_statistics(mapping, site, images[site], masks[site])
    mapping.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    starts = np.cumsum([0, *(len(images[site]) for site in mapping.sites)])

    def read(rows: Rows, indices: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(rows.rows(indices), np.float32)).to(where)

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        drawn = chosen.numpy()
        inputs, targets = {}, {}
        for place, site in enumerate(mapping.sites):
            # Sorted: rows of a memory map are then read in the order in which they lie on the disk.
            mine = np.sort(drawn[(drawn >= starts[place]) & (drawn < starts[place + 1])]) - starts[place]
            if len(mine):
                inputs[site] = read(images[site], mine)
                code = read(masks[site], mine)
                targets[site] = (code - mapping.mask_mean[place]) / mapping.mask_deviation[place]
        with arithmetic(where, schedule.half):
            answers = mapping.standardised(inputs)
        errors = torch.cat([(answers[site].float() - targets[site]).square() for site in inputs])
        return errors.mean()

    return descend(mapping, loss, int(starts[-1]), schedule, seed, names, progress)


def _take_statistics(mapping: SiteMapping, site: str, images: Rows, masks: Rows) -> None:
    """Mean and deviation of a site's codes, a channel each, read AT_ONCE rows at a time."""
    place = mapping.place(site)
    for name, codes in (("image", images), ("mask", masks)):
        total = np.zeros(0)
        squares = np.zeros(0)
        count = 0
        for start in range(0, len(codes), AT_ONCE):
            part = codes.rows(np.arange(start, min(start + AT_ONCE, len(codes)))).astype(np.float64)
            total = part.sum(axis=(0, 2, 3)) + (total if len(total) else 0)
            squares = np.square(part).sum(axis=(0, 2, 3)) + (squares if len(squares) else 0)
            count += part.size // part.shape[1]
        mean = total / count
        # A ReLU code has channels that are always 0: leave them as they are.
        spread = np.sqrt(np.maximum(squares / count - mean**2, 0))
        spread[spread < 1e-4] = 1.0
        getattr(mapping, f"{name}_mean")[place] = torch.from_numpy(mean).float()[:, None, None]
        getattr(mapping, f"{name}_deviation")[place] = torch.from_numpy(spread).float()[:, None, None]
