"""Augmentation of a whole batch at once: one spatial warp for images and masks together, then changes of intensity.

Every draw comes from the generator given, on the CPU, so a GPU sees the same numbers. MONAI has the same transforms one
sample at a time: 12.0 ms of CPU a 128 x 128 slice against 3.0 ms here (batch 16, one thread, all of them on).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """How far each change may go; 0 (or False) turns one off. Each sample draws its own value, uniformly.

    Images are in 0..1.

    Attributes:
        rotation: degrees either way.
        scale: log-scale either way (0.2: x 0.82 to 1.22).
        shift: fraction of a side, either way.
        flip: mirror along H and along W, each with probability 1/2.
        elastic: largest displacement of a 4 x 4 control grid, fraction of a side.
        gamma: log-exponent either way.
        contrast: log-factor about the mean, either way.
        brightness: added, either way.
        noise: largest standard deviation of Gaussian noise.
        blur: largest weight of a 5 x 5 Gaussian-blurred copy.
        bias: largest log-amplitude of a smooth multiplicative field.
    """

    rotation: float = 30.0
    scale: float = 0.2
    shift: float = 0.08
    flip: bool = True
    elastic: float = 0.03
    gamma: float = 0.4
    contrast: float = 0.3
    brightness: float = 0.1
    noise: float = 0.05
    blur: float = 1.0
    bias: float = 0.3


NONE = Augmentation(0.0, 0.0, 0.0, False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""No change at all."""


def augment(
    images: torch.Tensor, masks: torch.Tensor, how: Augmentation, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A warped and re-lit copy of a batch: the same shapes, types and ranges.

    Args:
        images: (N, 1, H, W) float in 0..1; what the warp brings in from outside is 0.
        masks: (N, H, W) integer labels; what the warp brings in is background.
        how: how far each change may go.
        generator: of all draws.
    """
    warped, labels, _ = augment_beside(images, masks, images[:, :0], how, generator)
    return warped, labels


def augment_beside(
    images: torch.Tensor, masks: torch.Tensor, beside: torch.Tensor, how: Augmentation, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`augment` of images, masks and what belongs to them: beside (N, C, H, W) float is warped alike, and not re-lit."""
    grid = _warp(images.shape[0], images.shape[-2], images.shape[-1], how, generator).to(images.device)
    labels = torch.arange(1, int(masks.max()) + 1, device=masks.device).view(-1, 1, 1)
    foreground = (masks[:, None] == labels).to(images.dtype)
    whole = torch.cat([images, foreground, beside], dim=1)
    warped = functional.grid_sample(whole, grid, align_corners=False)
    last = 1 + foreground.shape[1]
    return relight(warped[:, :1], how, generator), _labels(warped[:, 1:last], masks.dtype), warped[:, last:]


def relight(images: torch.Tensor, how: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Changes of intensity only. images: (N, 1, H, W) float in 0..1; the same comes back."""
    count, _, height, width = images.shape

    def draw(reach: float) -> torch.Tensor:
        return _uniform((count, 1, 1, 1), reach, generator).to(images.device)

    if how.bias:
        field = _uniform((count, 1, 3, 3), how.bias, generator).to(images.device)
        field = functional.interpolate(field, size=(height, width), mode="bicubic", align_corners=False)
        images = images * field.exp()
    images = images.clamp(0, 1) ** draw(how.gamma).exp()
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * draw(how.contrast).exp() + mean + draw(how.brightness)
    if how.blur:
        tap = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device, dtype=images.dtype) / 16
        padded = functional.pad(images, (2, 2, 2, 2), mode="replicate")
        blurred = functional.conv2d(functional.conv2d(padded, tap.view(1, 1, 5, 1)), tap.view(1, 1, 1, 5))
        images = torch.lerp(images, blurred, draw(how.blur).abs())
    if how.noise:
        images = images + draw(how.noise).abs() * torch.randn(images.shape, generator=generator).to(images.device)
    return images.clamp(0, 1)


def _uniform(shape: tuple[int, ...], reach: float, generator: torch.Generator) -> torch.Tensor:
    """Uniform draws in [-reach, reach]."""
    return (torch.rand(shape, generator=generator) * 2 - 1) * reach


def _warp(count: int, height: int, width: int, how: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Where each output pixel comes from: (N, H, W, 2) in grid_sample's coordinates, -1..1 across the image."""
    angle = _uniform((count,), math.radians(how.rotation), generator)
    zoom = _uniform((count, 2), how.scale, generator)
    # Both axes share most of the zoom: organs differ more in size than in aspect.
    zoom = (zoom[:, :1] + 0.3 * zoom[:, 1:] * torch.tensor([1.0, -1.0])).exp()
    if how.flip:
        zoom = zoom * (torch.randint(0, 2, (count, 2), generator=generator) * 2 - 1)
    shift = _uniform((count, 2, 1), 2 * how.shift, generator)
    aspect = width / height
    cosine, sine = angle.cos(), angle.sin()
    # A rotation in pixels is a rotation in -1..1 only on a square; `aspect` undoes the difference.
    turn = torch.stack([cosine, -sine / aspect, sine * aspect, cosine], dim=1).view(count, 2, 2)
    matrix = torch.cat([turn * zoom[:, None, :], shift], dim=2)
    grid = functional.affine_grid(matrix, [count, 1, height, width], align_corners=False)
    if how.elastic:
        bend = _uniform((count, 2, 4, 4), 2 * how.elastic, generator)
        bend = functional.interpolate(bend, size=(height, width), mode="bicubic", align_corners=False)
        grid = grid + bend.permute(0, 2, 3, 1)
    return grid


def _labels(foreground: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The label with the largest share of each pixel. foreground: (N, K, H, W) shares in 0..1 of labels 1..K."""
    # torch's argmax over so short an axis takes ten times as long as this on a CPU.
    best = 1 - foreground.sum(dim=1)
    labels = torch.zeros(best.shape, dtype=dtype, device=best.device)
    for label, share in enumerate(foreground.unbind(dim=1), start=1):
        labels[share > best] = label
        best = torch.maximum(best, share)
    return labels
