"""Refinement at a site: a network that never leaves it makes one segmentation of a server's answer and the image itself.

An answer that came through codes has lost what codes lose; the image, which stays at the site, has it still. Nothing more
leaves for it than for the answer alone. Pure functions of arrays: of the method that got the answer nothing is known here.

The answers that a site can train with are too good: whoever gave them was trained on the same slices. A network that trusts
them too much copies later errors. Against it stand answers to augmented views beside those to the slices themselves, the
warps of each step, and, if asked for, smooth noise on the answers (`noisy`), which moves borders and flips whole places.
Noise is off by default: in short trainings it cost more than it gave (150 steps on answers of a mean Dice of 0.18: 0.73
without, 0.51 at a noise of 2; one site, one seed).
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from fedprivseg.core.compute import Half
from fedprivseg.core.seeds import building, torch_generator
from fedprivseg.nets.augment import augment_beside
from fedprivseg.nets.descent import arithmetic, descend
from fedprivseg.nets.fitting import Fitting, scores
from fedprivseg.nets.segmentation import expect_background, probabilities, segmentation_loss
from fedprivseg.nets.unet import UNet

SUREST = 6.0
"""Log-odds beyond which an answer counts as no surer: 0.998."""

CELLS = 8
"""Cells a side of the grid on which draws are drawn; between them they are smooth."""


def untrained_refinement(structures: int) -> UNet:
    """The network: the U-Net of the baselines with K further inputs, (N, 1 + K, H, W) -> logits (N, K, H, W)."""
    return UNet(1 + structures, structures)


def fit_refinement(
    images: np.ndarray, masks: np.ndarray, answers: np.ndarray | None, fitting: Fitting, *, noise: float = 0.0
) -> UNet:
    """Train a refinement on slices of which the masks are known.

    Args:
        images: (N, H, W) float32 in 0..1.
        masks: (N, H, W) uint8, labels.
        answers: (N, K + 1, H, W), class probabilities, background first, of any float type; None trains on the image alone,
            with zeros in their place: the control that shows what an answer is worth.
        fitting: how. Image, mask and answer are warped alike.
        noise: largest standard deviation of what is added to an answer's log-odds, see `noisy`.
    """
    count = fitting.structures
    with building(fitting.seed, *fitting.names):
        net = untrained_refinement(count)
    expect_background(net.output, count)
    device = torch.device(fitting.device)
    pictures, labels = (torch.from_numpy(np.ascontiguousarray(each)).to(device) for each in (images, masks))
    given = None if answers is None else torch.from_numpy(np.ascontiguousarray(answers[:, 1:])).to(device)
    warps = torch_generator(fitting.seed, *fitting.names, "augmentation")
    draws = torch_generator(fitting.seed, *fitting.names, "doubt")

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        chosen = chosen.to(device)
        picture, truth = pictures[chosen][:, None], labels[chosen]
        beside = (
            given[chosen].float() if given is not None else picture.new_zeros(len(chosen), count, *picture.shape[2:])
        )
        if fitting.augmentation is not None:
            picture, truth, beside = augment_beside(picture, truth, beside, fitting.augmentation, warps)
        if given is not None and noise:
            beside = noisy(beside, noise, draws)
        inputs = torch.cat([picture, beside], dim=1).contiguous(memory_format=torch.channels_last)
        with arithmetic(device, fitting.schedule.half):
            logits = net(inputs)
        return segmentation_loss(logits, truth)

    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    descend(net, loss, len(images), fitting.schedule, fitting.seed, fitting.names, fitting.progress)
    return net


def refine(
    net: UNet, images: np.ndarray, answers: np.ndarray | None, device: str = "cpu", half: Half = "auto"
) -> np.ndarray:
    """Class probabilities (N, K + 1, H, W) float32 of images (N, H, W) and answers (N, K + 1, H, W); None, as in training."""
    structures = net.output.out_channels
    beside = np.zeros((len(images), structures, *images.shape[1:])) if answers is None else answers[:, 1:]
    return scores(net, np.concatenate([images[:, None], beside.astype(np.float32)], axis=1), device, half)


def noisy(answers: torch.Tensor, strength: float, draws: torch.Generator) -> torch.Tensor:
    """Answers (N, K, H, W), probabilities of the structures, as somebody would give them who is less sure.

    To the log-odds of each structure against the background, at most `SUREST` either way, comes noise that is drawn on
    `CELLS` x `CELLS` cells and smooth between them; its deviation is drawn a slice, evenly from 0 to `strength`.
    """
    count, structures, height, width = answers.shape
    noise = torch.randn((count, structures, CELLS, CELLS), generator=draws)
    noise = noise * strength * torch.rand((count, 1, 1, 1), generator=draws)
    noise = functional.interpolate(noise.to(answers.device), size=(height, width), mode="bicubic", align_corners=False)
    background = (1 - answers.sum(dim=1, keepdim=True)).clamp_min(1e-6)
    odds = (answers.clamp_min(1e-6) / background).log().clamp(-SUREST, SUREST)
    return probabilities(odds + noise)[:, 1:]
