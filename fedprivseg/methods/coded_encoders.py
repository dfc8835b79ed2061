"""The two encoding networks of a site in coded segmentation: trained there, kept in its vault, and used from there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from fedprivseg.core.method_card import What
from fedprivseg.core.records import Slices
from fedprivseg.core.seeds import building
from fedprivseg.core.task import Scope, SegmentationTask
from fedprivseg.methods.coded_parameters import PrivacySFParameters
from fedprivseg.methods.method import Place, Site
from fedprivseg.nets.augment import Augmentation
from fedprivseg.nets.baseline import load_weights
from fedprivseg.nets.codec import Codec, Decoder, Encoder
from fedprivseg.nets.descent import Schedule
from fedprivseg.nets.fitting import (
    AnswerEncoder,
    Fitting,
    TaskEncoder,
    encode,
    fit_answer_encoder,
    fit_image_codec,
    fit_mask_codec,
    fit_task_encoder,
    images_of,
    scores,
    sound,
)
from fedprivseg.nets.segmentation import as_picture, lost_structures
from fedprivseg.nets.unet import UNet

IMAGE, MASK = "image-codec", "mask-codec"
"""The networks, in the vault and in a public start."""

_LOST = "lost"
"""Beside the weights of each: which structures it lost."""


def fit_missing(p: PrivacySFParameters, site: Site) -> np.ndarray:
    """Train those of the two networks that the vault does not have yet; which structures each lost, (2, K) uint8."""
    for name, fit, lost in ((IMAGE, _fit_image, _lost_by_image), (MASK, _fit_mask, _lost_by_mask)):
        if not site.vault.has(name) and not site.labelled:
            # It has nothing to train with: what phantoms taught is all that it has.
            _keep(site, name, _begun(p, site, name), ())
        if not site.vault.has(name):
            net, gone = sound(partial(fit, p, site), partial(lost, p, site))
            _keep(site, name, net, gone)
    return np.stack([site.vault.load(name)[_LOST] for name in (IMAGE, MASK)])


def adopt_networks(p: PrivacySFParameters, site: Site, segmenter: nn.Module) -> None:
    """Take a trained segmentation network for the image encoder, whose answer is the code, and the mask encoding network of the
    public start."""
    with building(0, "weights follow"):
        image, mask = AnswerEncoder(UNet(1, len(site.task.structures)), p.image_depth), _untrained_codec(p, site)
    image.encoder.load_state_dict(segmenter.state_dict())
    load_weights(mask, started(site, MASK))
    _keep(site, IMAGE, image, _lost_by_image(p, site, image) if site.labelled else ())
    _keep(site, MASK, mask, _lost_by_mask(p, site, mask) if site.labelled else ())


def _begun(p: PrivacySFParameters, site: Site, name: str) -> nn.Module:
    """What is used of one of the two networks, as the public start has it."""
    start = started(site, name)
    with building(0, "weights follow"):
        if name == MASK:
            net: nn.Module = _untrained_codec(p, site)
        else:
            encoder = untrained_encoder(p, "images", site.task)
            net = encoder if isinstance(encoder, AnswerEncoder) else nn.ModuleDict({"encoder": encoder})
    load_weights(net, {key: start[key] for key in start if key in net.state_dict()})
    return net


def _keep(site: Site, name: str, net: nn.Module, lost: tuple[str, ...]) -> None:
    flags = np.array([structure in lost for structure in site.task.names], np.uint8)
    site.vault.save(name, {**{key: value.cpu().numpy() for key, value in net.state_dict().items()}, _LOST: flags})


def _trainable(p: PrivacySFParameters, site: Site, name: str) -> dict[str, np.ndarray]:
    """The public start of a network under the names that its fit knows: an answer encoder is fitted without the step that makes
    its answer coarse."""
    start = started(site, name)
    if name == IMAGE and p.encoder == "answer":
        return {key.removeprefix("encoder."): value for key, value in start.items()}
    return start


def started(where: Place, name: str) -> dict[str, np.ndarray]:
    """The weights with which a network begins in the public start. name: `IMAGE`, `MASK` or ``mapping``."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in where.start().items() if key.startswith(prefix)}


def untrained_encoder(p: PrivacySFParameters, what: What, task: SegmentationTask) -> nn.Module:
    """An encoder of the architecture that everybody knows; its initial weights come from torch's global generator."""
    if what == "masks":
        return Encoder(len(task.structures), p.mask_depth, p.mask_channels, p.mask_folds)
    if p.encoder == "answer":
        return AnswerEncoder(UNet(1, len(task.structures)), p.image_depth)
    return Encoder(1, p.image_depth, p.image_channels, p.image_folds)


def encode_at(p: PrivacySFParameters, site: Site, what: What, pictures: np.ndarray) -> np.ndarray:
    """Codes (N, C, h, w) float16 of pictures (N, K, H, W), by the site's own encoder."""
    encoder = _image_encoder(p, site) if what == "images" else _mask_codec(p, site).encoder
    return encode(encoder, pictures, site.device, p.half)


def decode_masks(p: PrivacySFParameters, site: Site, codes: np.ndarray) -> np.ndarray:
    """Class scores (N, classes, H, W) float32 of mask codes (N, C, h, w), by the site's own decoder."""
    return scores(_mask_codec(p, site).decoder, codes.astype(np.float32), site.device, p.half)


def decode_images(p: PrivacySFParameters, site: Site, codes: np.ndarray) -> np.ndarray | None:
    """Images (N, 1, H, W) float32 in 0..1 of image codes; None where the encoder was trained without an image decoder."""
    weights = _weights(site, IMAGE, "decoder." if p.encoder == "reconstruction" else "redraw.")
    if not weights:
        return None
    with building(0, "weights follow"):
        decoder = Decoder(1, p.image_depth, p.image_channels, p.image_folds)
    decoder.load_state_dict(weights)
    return images_of(decoder.eval(), codes.astype(np.float32), site.device, p.half)


def one_hot(masks: np.ndarray, structures: int) -> np.ndarray:
    """Masks (N, H, W) uint8 as what a mask encoder reads: (N, K, H, W) float32 in {0, 1}, a channel a structure."""
    return as_picture(torch.from_numpy(masks), structures).numpy()


def fit_image(
    p: PrivacySFParameters,
    scope: Scope,
    slices: Slices,
    fitting: Fitting,
    attributes: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> TaskEncoder | AnswerEncoder | Codec:
    """The image encoding network that the parameters ask for, trained on `slices`.

    Args:
        p: of the method.
        scope: grid and task.
        slices: what it is trained on.
        fitting: how.
        attributes: what adversaries are to tell of each slice's patient, where the encoder is trained against them.
    """
    if p.encoder == "task":
        return fit_task_encoder(
            slices.images,
            slices.masks,
            fitting,
            depth=p.image_depth,
            channels=p.image_code(scope)[0],
            space_to_depth=p.image_folds,
            levels=_levels(scope.grid.height >> p.image_depth, scope.grid.width >> p.image_depth),
            reconstruction=p.image_reconstruction,
            noise=p.image_noise,
            adversarial=p.opposition,
            attributes=attributes,
        )
    if p.encoder == "answer":
        return fit_answer_encoder(slices.images, slices.masks, fitting, depth=p.image_depth)
    return fit_image_codec(slices.images, fitting, depth=p.image_depth, channels=p.image_channels)


def fit_mask(p: PrivacySFParameters, masks: np.ndarray, fitting: Fitting) -> Codec:
    """The mask encoding network, trained on `masks` (N, H, W) uint8."""
    return fit_mask_codec(
        masks,
        fitting,
        depth=p.mask_depth,
        channels=p.mask_channels,
        space_to_depth=p.mask_folds,
        noise=p.mask_noise,
    )


def code_of(p: PrivacySFParameters, net: nn.Module, pictures: np.ndarray, device: str) -> np.ndarray:
    """Codes (N, C, h, w) float16 of pictures (N, K, H, W), by the encoder of a fitted network."""
    encoder = net if isinstance(net, AnswerEncoder) else net.encoder
    return encode(encoder, pictures, device, p.half)  # type: ignore[arg-type]


def _fit_image(p: PrivacySFParameters, site: Site, attempt: int) -> TaskEncoder | AnswerEncoder | Codec:
    fitting = _fitting(p, site, "image encoder", p.image_steps, p.image_rate, attempt, IMAGE)
    attributes = site.attributes() if p.opposition else {}
    return fit_image(p, Scope(site.grid, site.task), site.training(), fitting, attributes)


def _lost_by_image(p: PrivacySFParameters, site: Site, net: nn.Module) -> tuple[str, ...]:
    if isinstance(net, Codec):
        return ()  # it was not trained to segment
    slices = site.training()
    segment = net.encoder if isinstance(net, AnswerEncoder) else net
    return lost_structures(
        lambda images: _labels(p, site, segment, images[:, None]), slices.images, slices.masks, site.task.names
    )


def _fit_mask(p: PrivacySFParameters, site: Site, attempt: int) -> Codec:
    return fit_mask(
        p, site.training().masks, _fitting(p, site, "mask encoder", p.mask_steps, p.mask_rate, attempt, MASK)
    )


def _lost_by_mask(p: PrivacySFParameters, site: Site, codec: Codec) -> tuple[str, ...]:
    slices = site.training()
    return lost_structures(
        lambda _: _labels(p, site, codec, one_hot(slices.masks, len(site.task.structures))),
        slices.images,
        slices.masks,
        site.task.names,
    )


def _labels(p: PrivacySFParameters, site: Site, net: nn.Module, pictures: np.ndarray) -> np.ndarray:
    return scores(net, pictures, site.device, p.half).argmax(axis=1).astype(np.uint8)


def _fitting(
    p: PrivacySFParameters, site: Site, stage: str, steps: int, rate: float, attempt: int, name: str
) -> Fitting:
    """How this site trains one of its networks; randomness from the run's seed, the site, the stage and the attempt."""
    again = (attempt,) if attempt else ()
    return Fitting(
        schedule=Schedule(steps, p.batch, rate, half=p.half),
        augmentation=Augmentation() if p.augmentation else None,
        seed=site.seed,
        names=(site.name, stage, *again),
        structures=len(site.task.structures),
        device=site.device,
        progress=lambda _, done, total: site.progress(f"fit {stage}" + ", again" * attempt, done, total),
        start=None if p.start == "random" else _trainable(p, site, name),
    )


def _levels(height: int, width: int) -> int:
    """How often a code's grid can be halved, three times at most: the depth of the U-Net behind a task encoder."""
    return next(levels for levels in (3, 2, 1, 0) if height % 2**levels == width % 2**levels == 0)


def _image_encoder(p: PrivacySFParameters, site: Site) -> nn.Module:
    with building(0, "weights follow"):
        net = untrained_encoder(p, "images", site.task)
    # What was trained besides, a decoder or a head, is kept under other names; the answer of an `AnswerEncoder` is all of it.
    whole = net.encoder if isinstance(net, AnswerEncoder) else net
    whole.load_state_dict(_weights(site, IMAGE, "encoder."))
    return net.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def _mask_codec(p: PrivacySFParameters, site: Site) -> Codec:
    with building(0, "weights follow"):
        codec = _untrained_codec(p, site)
    codec.load_state_dict(_weights(site, MASK))
    return codec.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def _untrained_codec(p: PrivacySFParameters, site: Site) -> Codec:
    count = len(site.task.structures)
    return Codec(count, count, p.mask_depth, p.mask_channels, p.mask_folds)


def _weights(site: Site, name: str, prefix: str = "") -> dict[str, torch.Tensor]:
    kept = site.vault.load(name)
    return {
        key.removeprefix(prefix): torch.from_numpy(kept[key]) for key in kept if key.startswith(prefix) and key != _LOST
    }
