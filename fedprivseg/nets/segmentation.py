"""Pixels to labels and back: the mask as a picture, the loss, the probabilities, and a detector of lost structures.

Networks answer with one logit per foreground structure, as Chen et al. 2024 have it (output channels = foreground
classes); the background's logit is 0. This is the softmax with the background as its reference class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

PRIOR = 0.02
"""Share of a slice that an untrained network gives each structure: what a small structure takes. Of many structures together
at most half."""


def as_picture(masks: torch.Tensor, structures: int) -> torch.Tensor:
    """Labels (N, H, W) in 0..K -> (N, K, H, W) float32 in {0, 1}: one channel a structure, background nowhere."""
    labels = torch.arange(1, structures + 1, device=masks.device).view(-1, 1, 1)
    return (masks[:, None] == labels).float()


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Logits (N, K, H, W) of the structures -> (N, K + 1, H, W) float32 probabilities, background first."""
    logits = logits.float()
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1).softmax(dim=1)


def expect_background(output: nn.Conv2d, structures: int) -> None:
    """Set the bias of a network's last layer, in place, so that untrained it expects every structure in `PRIOR` of the pixels.

    After Lin et al., Focal loss for dense object detection, ICCV 2017, section 4.1. With torch's own start every class has as
    many pixels, and the first steps go into unlearning all but one of them: a task encoder of 150 steps then ended with a
    Dice of 0.05 for one of three structures on its own training slices, and of 0.84 from this start (phantom, one seed).

    output: the convolution that gives the logits, one channel a structure, or a block of them where pixels are folded.
    """
    assert output.bias is not None, "without a bias it cannot expect anything"
    prior = min(PRIOR, 0.5 / structures)
    nn.init.constant_(output.bias, math.log(prior / (1 - structures * prior)))


def segmentation_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus 1 - soft Dice, the Dice pooled over the batch and averaged over the structures.

    logits: (N, K, H, W). masks: (N, H, W) integer in 0..K. Pooling over the batch keeps slices without a structure from
    pulling its Dice to 0 or 1. Written out because softmax and one-hot over so short an axis are slow on a CPU.
    """
    logits = logits.float()
    truth = as_picture(masks, logits.shape[1])
    top = logits.detach().amax(dim=1).clamp_min(0)
    shares = (logits - top[:, None]).exp()
    total = shares.sum(dim=1) + (-top).exp()
    entropy = (total.log() + top - (truth * logits).sum(dim=1)).mean()
    shares = shares / total[:, None]
    overlap = (shares * truth).sum(dim=(0, 2, 3))
    dice = (2 * overlap + 1) / (shares.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3)) + 1)
    return entropy + 1 - dice.mean()


def lost_structures(
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    masks: np.ndarray,
    names: Sequence[str],
    floor: float = 0.05,
) -> tuple[str, ...]:
    """The structures that `masks` show and `predict` all but never finds on the very slices it was trained on.

    A small network can lose a class for good early in training: Dice below `floor`, over all slices together.
    predict: images (N, H, W) -> labels (N, H, W). names: of the labels 1, 2, 3...
    Returns some of `names`; empty when nothing was lost.
    """
    labels = predict(images)
    lost = []
    for label, name in enumerate(names, start=1):
        found, real = labels == label, masks == label
        overlap, size = int((found & real).sum()), int(found.sum()) + int(real.sum())
        if real.any() and 2 * overlap < floor * size:
            lost.append(name)
    return tuple(lost)
