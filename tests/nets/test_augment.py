"""Batched augmentation: identity, alignment of image and mask, determinism, and an oracle for the rotation."""

import dataclasses

import numpy as np
import pytest
import scipy.ndimage
import torch

from fedprivseg.core.seeds import torch_generator
from fedprivseg.nets.augment import NONE, Augmentation, augment, relight


def _batch(count: int = 4, height: int = 48, width: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of three labels, and an image that shows exactly them: label / 4."""
    masks = torch.zeros(count, height, width, dtype=torch.uint8)
    masks[:, 8:24, 10:30] = 1
    masks[:, 24:36, 10:20] = 2
    masks[:, 24:40, 24:40] = 3
    return masks[:, None].float() / 4, masks


def test_nothing_changes_when_everything_is_off() -> None:
    images, masks = _batch()
    warped, labels = augment(images, masks, NONE, torch_generator(0, "test"))
    torch.testing.assert_close(warped, images, atol=1e-5, rtol=0)
    assert torch.equal(labels, masks)
    assert labels.dtype == masks.dtype


def test_image_and_mask_are_warped_together() -> None:
    images, masks = _batch(16)
    how = dataclasses.replace(NONE, rotation=40.0, scale=0.3, shift=0.1, flip=True, elastic=0.05)
    warped, labels = augment(images, masks, how, torch_generator(0, "test"))
    assert not torch.equal(labels, masks)
    # Away from edges the image still shows its label; at edges interpolation mixes two of them.
    agree = ((warped[:, 0] * 4 - labels.float()).abs() < 0.02).float().mean()
    assert agree > 0.9


def test_rotation_agrees_with_scipy() -> None:
    smooth = scipy.ndimage.gaussian_filter(np.random.default_rng(0).random((40, 64)), 4)
    smooth = ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)
    how = dataclasses.replace(NONE, rotation=35.0)
    generator = torch_generator(0, "test")
    warped, _ = augment(torch.from_numpy(smooth)[None, None], torch.zeros(1, 40, 64, dtype=torch.uint8), how, generator)
    # The first draw of the same stream is the angle.
    angle = float((torch.rand(1, generator=torch_generator(0, "test")) * 2 - 1) * 35.0)
    candidates = [scipy.ndimage.rotate(smooth, sign * angle, reshape=False, order=1) for sign in (1, -1)]
    inside = (slice(14, 26), slice(24, 40))
    assert min(np.abs(c[inside] - warped[0, 0].numpy()[inside]).max() for c in candidates) < 0.02


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Augmentation)])
def test_every_setting_does_something(field: str) -> None:
    images, masks = _batch()
    images = images * 0.5 + 0.2 * torch.rand(images.shape, generator=torch_generator(0, "texture")) + 0.1
    how = dataclasses.replace(NONE, **{field: getattr(Augmentation(), field)})
    warped, _ = augment(images, masks, how, torch_generator(1, "test"))
    assert (warped - images).abs().max() > 0.01
    assert float(warped.min()) >= 0
    assert float(warped.max()) <= 1


def test_the_same_generator_gives_the_same_batch_and_the_global_state_is_untouched() -> None:
    images, masks = _batch()
    before = torch.random.get_rng_state()
    first = augment(images, masks, Augmentation(), torch_generator(3, "test"))
    again = augment(images, masks, Augmentation(), torch_generator(3, "test"))
    other = augment(images, masks, Augmentation(), torch_generator(4, "test"))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(before, torch.random.get_rng_state())


def test_samples_of_one_batch_differ() -> None:
    images, masks = _batch()
    warped, _ = augment(images, masks, Augmentation(), torch_generator(0, "test"))
    assert all(not torch.equal(warped[0], other) for other in warped[1:])


def test_an_empty_mask_stays_empty() -> None:
    images, masks = _batch()
    _, labels = augment(images, torch.zeros_like(masks), Augmentation(), torch_generator(0, "test"))
    assert labels.max() == 0


def test_relighting_leaves_positions_alone() -> None:
    images, _ = _batch()
    gamma = dataclasses.replace(NONE, gamma=0.5)
    relit = relight(images, gamma, torch_generator(0, "test"))
    # A power law keeps 0 and orders intensities.
    assert torch.equal(relit == 0, images == 0)
