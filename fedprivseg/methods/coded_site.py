"""The site half of coded segmentation: its actions, each one step of sections 2.4 and 2.5 of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch

from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE, STATUS
from fedprivseg.core.records import Order, Payload
from fedprivseg.core.seeds import torch_generator
from fedprivseg.core.task import Scope
from fedprivseg.methods.coded_encoders import decode_masks, encode_at, fit_missing, one_hot
from fedprivseg.methods.coded_parameters import PrivacySFParameters
from fedprivseg.methods.coded_payloads import TEST_IMAGES, TRAIN_IMAGES, TRAIN_MASKS
from fedprivseg.methods.coded_refinement import fit_missing as fit_missing_refinement
from fedprivseg.methods.coded_refinement import refined
from fedprivseg.methods.method import Site
from fedprivseg.methods.release_order import order_name, release_order
from fedprivseg.methods.shards import part_of, shards_of
from fedprivseg.nets.augment import Augmentation, augment
from fedprivseg.nets.test_time import average_scores, view


def fit_encoders(p: PrivacySFParameters, site: Site, order: Order) -> Payload:
    """Train both encoding networks on this site's slices alone (section 2.4, step 1). Says which structures were lost."""
    return Payload(STATUS, site.name, "train", {"lost": fit_missing(p, site)})


def send_image_codes(p: PrivacySFParameters, site: Site, order: Order) -> Payload:
    """One shard of the image codes of the training slices, view by view, each in an order of its own (section 2.4, step 2)."""
    images, _, shards = _view(p, site, order.number)
    codes = np.zeros((0, *p.image_code(Scope(site.grid, site.task))), np.float16)
    if len(images):
        codes = encode_at(p, site, "images", images[:, None])
    return TRAIN_IMAGES.payload(site, codes, order.number, shards)


def send_mask_codes(p: PrivacySFParameters, site: Site, order: Order) -> Payload:
    """The mask codes of the same slices, in the same views, as shard `order.number` of the image codes."""
    _, masks, shards = _view(p, site, order.number)
    codes = np.zeros((0, *p.mask_code(site.grid)), np.float16)
    if len(masks):
        codes = encode_at(p, site, "masks", one_hot(masks, len(site.task.structures)))
    return TRAIN_MASKS.payload(site, codes, order.number, shards)


def send_test_codes(p: PrivacySFParameters, site: Site, order: Order) -> Payload:
    """One shard of the image codes of the test slices, view by view. A site without test slices sends none."""
    images = site.testing()
    index, places, _ = part_of(order.number, len(images), p.shard_slices)
    chosen = images[release_order(site, "test", p.test_views, len(images))[index, places]]
    codes = np.zeros((0, *p.image_code(Scope(site.grid, site.task))), np.float16)
    if len(chosen):
        codes = encode_at(p, site, "images", view(chosen, index)[:, None])
    return TEST_IMAGES.payload(site, codes, order.number, shards_of(len(images), p.shard_slices, p.test_views))


def decode(p: PrivacySFParameters, site: Site, order: Order) -> Payload:
    """Decode one answer of the server with the site's own mask decoder; the scores stay in the vault."""
    assert order.answer is not None, "decode needs an answer"
    values = decode_masks(p, site, order.answer.arrays["codes"])
    site.vault.save(f"scores-{order.number:05d}", {"scores": values.astype(np.float16)})
    count = np.array([len(values)], np.int64)
    return Payload(STATUS, site.name, "infer", {"slices": count}, shard=order.number, shards=order.number + 1)


def measure(p: PrivacySFParameters, site: Site, order: Order) -> Payload:
    """Put the answers back into the order of the slices, average the views, refine, and measure against the site's masks, at
    the site."""
    images = site.testing()
    if not len(images):
        return site.measure(np.zeros((0, site.task.classes, *images.shape[1:]), np.float32))
    parts: list[np.ndarray] = []
    while site.vault.has(f"scores-{len(parts):05d}"):
        parts.append(site.vault.load(f"scores-{len(parts):05d}")["scores"])
    values = np.concatenate(parts)
    for index, sent in enumerate(site.vault.load(order_name("test"))["order"]):
        block = values[index * len(images) : (index + 1) * len(images)]
        block[sent] = block.copy()  # each answer back to the place of its slice
    return site.measure(refined(p, site, images, average_scores(values, p.test_views)))


def keep_answers(p: PrivacySFParameters, site: Site, order: Order) -> Payload:
    """Keep the server's answers to codes of training slices, as they come, for the refinement."""
    assert order.answer is not None, "keep_answers needs an answer"
    codes = order.answer.arrays["codes"]
    site.vault.save(f"answers-{order.number:05d}", {"codes": codes})
    count = np.array([len(codes)], np.int64)
    return Payload(STATUS, site.name, "train", {"slices": count}, shard=order.number, shards=order.number + 1)


def fit_refinement(p: PrivacySFParameters, site: Site, order: Order) -> Payload:
    """Train the site's refinement on the views that it sent first and the answers to their codes, which came in their order."""
    images, masks = [], []
    shards = shards_of(len(site.training().images), p.shard_slices, p.refinement_views)
    for number in range(shards):
        pictures, labels, _ = _view(p, site, number)
        images.append(pictures)
        masks.append(labels)
    codes = [np.zeros((0, *p.mask_code(site.grid)), np.float16)]
    while site.vault.has(f"answers-{len(codes) - 1:05d}"):
        codes.append(site.vault.load(f"answers-{len(codes) - 1:05d}")["codes"])
    lost = fit_missing_refinement(p, site, np.concatenate(images), np.concatenate(masks), np.concatenate(codes))
    return Payload(STATUS, site.name, "train", {"lost": lost})


ACTIONS: Mapping[str, Callable[[PrivacySFParameters, Site, Order], Payload]] = MappingProxyType(
    {
        action.__name__: action
        for action in (
            *(fit_encoders, send_image_codes, send_mask_codes, keep_answers, fit_refinement),
            *(send_test_codes, decode, measure),
        )
    }
)
"""The actions by name."""


def predict(
    p: PrivacySFParameters, site: Site, answer: Callable[[np.ndarray], np.ndarray], images: np.ndarray
) -> np.ndarray:
    """Class scores (N, classes, H, W) for slices (N, H, W): encode, ask, decode, average the views, refine.

    Args:
        answer: image codes (n, C, h, w) -> the server's mask codes.
        images: float32 in 0..1.
    """
    parts = []
    for index in range(p.test_views):
        codes = site.guarded(IMAGE_CODE, encode_at(p, site, "images", view(images, index)[:, None]))
        parts.append(decode_masks(p, site, site.opened(MASK_CODE, answer(codes))))
    return refined(p, site, images, average_scores(np.concatenate(parts), p.test_views))


def augmented(
    p: PrivacySFParameters, site: Site, copy: int, part: int, images: np.ndarray, masks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Part `part` of view `copy` of training slices as it is sent: images (n, H, W) and masks (n, H, W), one warp for both.

    With `plain_view`, view 0 is the slices as they are. Every other view is drawn from (seed, site, view, part).
    """
    if p.plain_view and not copy:
        return images, masks
    draws = torch_generator(site.seed, site.name, "view", copy, part)
    warped, labels = augment(torch.from_numpy(images)[:, None], torch.from_numpy(masks), Augmentation(), draws)
    return warped[:, 0].numpy(), labels.numpy()


def first_view(
    p: PrivacySFParameters, site: Site, images: np.ndarray, masks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All training slices, in the order in which they leave, as the first view that is sent shows them."""
    cuts = range(0, len(images), p.shard_slices)
    parts = [
        augmented(p, site, 0, part, images[cut : cut + p.shard_slices], masks[cut : cut + p.shard_slices])
        for part, cut in enumerate(cuts)
    ]
    return np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])


def _view(p: PrivacySFParameters, site: Site, number: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Images, masks of shard `number`, and how many shards there are: of image codes and mask codes the same. A site without
    training slices has one shard without rows."""
    slices = site.training()
    count = len(slices.images)
    orders = release_order(site, "train", p.views, count)
    if not count:
        return slices.images, slices.masks, 1
    copy, places, parts = part_of(number, count, p.shard_slices)
    chosen = orders[copy, places]
    images, masks = augmented(p, site, copy, number % parts, slices.images[chosen], slices.masks[chosen])
    return images, masks, shards_of(count, p.shard_slices, p.views)
