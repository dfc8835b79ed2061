"""What a site trains: its image and mask encoding networks, and the U-Net of the baselines. Pure functions of arrays.

images: (N, H, W) float32 in 0..1. masks: (N, H, W) uint8 in 0..K, K structures. Initial weights and every draw come from
(seed, names), so two sites or two purposes never share them; on a CPU the result is the same, bit for bit, for a given number
of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fedprivseg.core.compute import Half
from fedprivseg.core.seeds import building, torch_generator
from fedprivseg.nets.adversaries import Adversaries
from fedprivseg.nets.augment import Augmentation, augment
from fedprivseg.nets.baseline import load_weights
from fedprivseg.nets.choices import ATTEMPTS
from fedprivseg.nets.codec import Codec, Decoder, Encoder
from fedprivseg.nets.descent import Progress, Schedule, arithmetic, descend
from fedprivseg.nets.segmentation import as_picture, expect_background, probabilities, segmentation_loss
from fedprivseg.nets.unet import UNet

AT_ONCE = 32
"""Slices that go through a network together when nothing is learned."""

Loss = Callable[[torch.Tensor], torch.Tensor]
"""Indices of a batch -> its loss."""

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Fitting:
    """What every fit needs besides its data.

    Attributes:
        schedule: how long and how fast.
        augmentation: None trains on the slices as they are.
        seed: with `names`, where all randomness comes from.
        names: of the site and the purpose.
        structures: how many the masks show.
        device: torch device.
        progress: called after every step.
        start: the weights that the network begins with; None: such as are drawn from (seed, names).
    """

    schedule: Schedule
    augmentation: Augmentation | None
    seed: int
    names: tuple[str | int, ...]
    structures: int
    device: str = "cpu"
    progress: Progress | None = None
    start: Mapping[str, np.ndarray] | None = None


class TaskEncoder(nn.Module):
    """An image encoding network whose decoder gives the mask instead of the image: what its code keeps, it keeps for
    the task. Between code and decoder a small U-Net adds context, so that the encoder need not.

    (N, 1, H, W) -> logits (N, K, H, W). Only `encoder` is used after training. reconstruct: whether a second decoder
    reconstructs the image besides.
    """

    def __init__(
        self,
        structures: int,
        depth: int,
        channels: int,
        context: int,
        levels: int,
        space_to_depth: int = 0,
        reconstruct: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(1, depth, channels, space_to_depth)
        self.context = UNet(channels, context, width=context, depth=levels)
        self.decoder = Decoder(structures, depth, context, space_to_depth)
        self.redraw = Decoder(1, depth, channels, space_to_depth) if reconstruct else None  # a name in vaults

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.decoder(self.context(self.encoder(image)))
        return logits


class AnswerEncoder(nn.Module):
    """A segmentation network whose answer, made coarse, is the code: the probability of every structure, averaged over the
    cells of the code's grid. (N, 1, H, W) -> (N, K, H / 2**depth, W / 2**depth) in 0..1.

    It says of the image what the mask says, and what the network's uncertainty says besides; the site has done the segmenting,
    and what is left to the server is to fix it.
    """

    def __init__(self, encoder: UNet, depth: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.depth = depth

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(probabilities(self.encoder(image))[:, 1:], 2**self.depth)


def fit_image_codec(images: np.ndarray, fitting: Fitting, *, depth: int = 4, channels: int | None = None) -> Codec:
    """The image encoding network as in the paper: an autoencoder that minimises the mean squared error (section 2.4)."""
    with building(fitting.seed, *fitting.names):
        codec = Codec(1, 1, depth, channels)
    batches = _Batches(images, np.zeros(images.shape, np.uint8), fitting)

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        inputs, _ = batches(chosen)
        with arithmetic(batches.device, fitting.schedule.half):
            decoded = codec(inputs)
        return functional.mse_loss(decoded.float(), inputs)

    return _fit(codec, loss, len(images), fitting)


def fit_mask_codec(
    masks: np.ndarray,
    fitting: Fitting,
    *,
    depth: int = 4,
    channels: int | None = None,
    noise: float = 0.0,
    space_to_depth: int = 0,
) -> Codec:
    """The mask encoding network: structures in, structures out, under cross-entropy and Dice.

    A decoder that never saw a code other than its encoder's answers a code that a server predicted, which is always a little
    off, with anything.

    Args:
        masks: (N, H, W) uint8, labels.
        fitting: how.
        depth: as in `Encoder`.
        channels: as in `Encoder`.
        noise: largest standard deviation of what is added to a code before it is decoded, half of it white and half smooth
            over five cells, in units of the code.
        space_to_depth: as in `Encoder`.
    """
    with building(fitting.seed, *fitting.names):
        codec = Codec(fitting.structures, fitting.structures, depth, channels, space_to_depth)
    expect_background(codec.decoder.output, fitting.structures)
    batches = _Batches(np.zeros(masks.shape, np.float32), masks, fitting)
    draws = torch_generator(fitting.seed, *fitting.names, "noise")

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        _, labels = batches(chosen)
        with arithmetic(batches.device, fitting.schedule.half):
            code = codec.encoder(as_picture(labels, fitting.structures).contiguous(memory_format=torch.channels_last))
            if noise:
                code = code + noise * _disturbance(code.shape, draws).to(code.device)
            logits = codec.decoder(code)
        return segmentation_loss(logits, labels)

    return _fit(codec, loss, len(masks), fitting)


def fit_task_encoder(
    images: np.ndarray,
    masks: np.ndarray,
    fitting: Fitting,
    *,
    depth: int,
    channels: int,
    context: int = 32,
    levels: int = 3,
    space_to_depth: int = 0,
    reconstruction: float = 0.0,
    noise: float = 0.0,
    adversarial: float = 0.0,
    attributes: Mapping[str, np.ndarray] | None = None,
) -> TaskEncoder:
    """An image encoding network trained for the mask (see `TaskEncoder`), and as far as asked for the image.

    Args:
        images: (N, H, W) float32 in 0..1.
        masks: (N, H, W) uint8, labels.
        fitting: how.
        depth: as in `Encoder`.
        channels: as in `Encoder`.
        context: width of the U-Net between code and decoder.
        levels: its depth.
        space_to_depth: as in `Encoder`.
        reconstruction: weight in 0..1 of the mean squared error of a reconstructed image, in units of the variance of
            `images`; the loss of the mask has the rest. What a code keeps for the image helps the server to understand it,
            and an attacker too.
        noise: standard deviation of what is added to a code before anything reads it, in units of the code. Under noise an
            encoder spends what a code can hold on the mask, and it is ready for the noise that a protection adds.
        adversarial: weight of what `Adversaries` can tell from the code of the image and of `attributes`, beside the loss of
            the mask's 1.
        attributes: of each slice's patient, see `Adversaries`.
    """
    with building(fitting.seed, *fitting.names):
        net = TaskEncoder(
            fitting.structures, depth, channels, context, levels, space_to_depth, reconstruct=reconstruction > 0
        )
    expect_background(net.decoder.output, fitting.structures)
    adversaries = None
    if adversarial:
        with building(fitting.seed, *fitting.names, "opponents"):
            adversaries = Adversaries(channels, 2**depth, images, attributes or {}, fitting.device)
    batches = _Batches(images, masks, fitting)
    draws = torch_generator(fitting.seed, *fitting.names, "noise")
    variance = float(np.var(images)) or 1.0

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        inputs, labels = batches(chosen)
        with arithmetic(batches.device, fitting.schedule.half):
            code = net.encoder(inputs)
            if noise:
                code = code + noise * torch.randn(code.shape, generator=draws).to(code.device)
            logits = net.decoder(net.context(code))
            reconstructed = None if net.redraw is None else net.redraw(code)
        task = segmentation_loss(logits, labels)
        if adversaries is not None:
            adversaries.learn(code, inputs, chosen)
            task = task + adversarial * adversaries.cost(code, inputs, chosen)
        if reconstructed is None:
            return task
        likeness = functional.mse_loss(reconstructed.float(), inputs) / variance
        return (1 - reconstruction) * task + reconstruction * likeness

    return _fit(net, loss, len(images), fitting)


def fit_unet(images: np.ndarray, masks: np.ndarray, fitting: Fitting) -> UNet:
    """The U-Net of the baselines, image to mask."""
    with building(fitting.seed, *fitting.names):
        net = UNet(1, fitting.structures)
    expect_background(net.output, fitting.structures)
    batches = _Batches(images, masks, fitting)

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        inputs, labels = batches(chosen)
        with arithmetic(batches.device, fitting.schedule.half):
            logits = net(inputs)
        return segmentation_loss(logits, labels)

    return _fit(net, loss, len(images), fitting)


def fit_answer_encoder(images: np.ndarray, masks: np.ndarray, fitting: Fitting, *, depth: int) -> AnswerEncoder:
    """An image encoding network that sends its own answer (see `AnswerEncoder`): the U-Net of the baselines, on this site."""
    return AnswerEncoder(fit_unet(images, masks, fitting), depth)


def sound(fit: Callable[[int], Net], lost: Callable[[Net], tuple[str, ...]]) -> tuple[Net, tuple[str, ...]]:
    """A fitted network that lost no structure, if one of `ATTEMPTS` is such: fits again, from another draw, until it is.

    A small network can lose a class for good early in training (see `segmentation.lost_structures`); whether it does
    depends on its initial weights and on the order of the slices.

    Args:
        fit: number of the attempt, from 0 -> a fitted network.
        lost: network -> names of the structures that it lost.

    Returns:
        The network that lost fewest, the earliest of them, and what it lost.
    """
    best: tuple[Net, tuple[str, ...]] | None = None
    for attempt in range(ATTEMPTS):
        net = fit(attempt)
        gone = lost(net)
        if best is None or len(gone) < len(best[1]):
            best = net, gone
        if not gone:
            break
    assert best is not None
    return best


def encode(encoder: nn.Module, inputs: np.ndarray, device: str = "cpu", half: Half = "auto") -> np.ndarray:
    """Codes of images or one-hot masks, as they are sent: (N, C, H, W) float32 -> (N, c, h, w) float16."""
    return _apply(encoder, inputs, device, half, torch.Tensor.half)


def scores(net: nn.Module, inputs: np.ndarray, device: str = "cpu", half: Half = "auto") -> np.ndarray:
    """Class probabilities (N, K + 1, H, W) float32, background first, from a mask decoder or a U-Net and its inputs."""
    return _apply(net, inputs, device, half, probabilities)


def images_of(decoder: nn.Module, codes: np.ndarray, device: str = "cpu", half: Half = "auto") -> np.ndarray:
    """What an image decoder reconstructs: codes (N, C, h, w) -> (N, 1, H, W) float32, clipped to 0..1."""
    return _apply(decoder, codes, device, half, lambda found: found.float().clamp(0, 1))


class _Batches:
    """Augmented batches of images (n, 1, H, W) float32 and masks (n, H, W) uint8 on the device, by index."""

    def __init__(self, images: np.ndarray, masks: np.ndarray, fitting: Fitting) -> None:
        self.device = torch.device(fitting.device)
        self.images = torch.from_numpy(np.ascontiguousarray(images))[:, None].to(self.device)
        self.masks = torch.from_numpy(np.ascontiguousarray(masks)).to(self.device)
        self.augmentation = fitting.augmentation
        self.draws = torch_generator(fitting.seed, *fitting.names, "augmentation")

    def __call__(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = chosen.to(self.device)
        images, masks = self.images[chosen], self.masks[chosen]
        if self.augmentation is not None:
            images, masks = augment(images, masks, self.augmentation, self.draws)
        return images.contiguous(memory_format=torch.channels_last), masks


def _fit(net: Net, loss: Loss, count: int, fitting: Fitting) -> Net:
    """`net` on the device, in the memory layout that its convolutions are fastest in, trained."""
    if fitting.start is not None:
        load_weights(net, fitting.start)
    net.to(fitting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    descend(net, loss, count, fitting.schedule, fitting.seed, fitting.names, fitting.progress)
    return net


def _disturbance(shape: torch.Size, draws: torch.Generator) -> torch.Tensor:
    """Noise of unit variance times a strength drawn uniformly per sample: half white, half smooth over five cells."""
    white = torch.randn(shape, generator=draws)
    smooth = 5 * functional.avg_pool2d(torch.randn(shape, generator=draws), 5, stride=1, padding=2)
    strength = torch.rand((shape[0], 1, 1, 1), generator=draws)
    return strength * (white + smooth) / 2**0.5


@torch.no_grad()
def _apply(
    net: nn.Module, inputs: np.ndarray, device: str, half: Half, then: Callable[[torch.Tensor], torch.Tensor]
) -> np.ndarray:
    """`then` of `net` of (N, C, H, W) inputs, a bounded number at a time."""
    net = net.to(device).eval()
    parts = []
    for start in range(0, len(inputs), AT_ONCE):
        part = torch.from_numpy(np.ascontiguousarray(inputs[start : start + AT_ONCE], np.float32)).to(device)
        with arithmetic(torch.device(device), half):
            answer = net(part.contiguous(memory_format=torch.channels_last))
        parts.append(then(answer).cpu().contiguous().numpy())
    if not parts:
        raise ValueError("there is nothing to apply the network to: 0 slices given, at least 1 needed")
    return np.concatenate(parts)
