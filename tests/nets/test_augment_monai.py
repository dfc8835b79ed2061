"""nnU-Net's augmentation through MONAI: shapes, ranges, labels, and draws that come from the generator alone."""

from __future__ import annotations

import numpy as np
import torch
from fakes import blocks

from fedprivseg.core.seeds import torch_generator
from fedprivseg.nets.augment_monai import augment_like_nnunet


def batch():
    own = blocks(6)
    return torch.from_numpy(own.images)[:, None], torch.from_numpy(own.masks)


def test_shapes_ranges_and_labels_stay():
    images, masks = augment_like_nnunet(*batch(), torch_generator(0, "a"))
    assert images.shape == (6, 1, 32, 32)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert masks.shape == (6, 32, 32)
    assert masks.dtype == torch.uint8
    assert set(masks.unique().tolist()) <= {0, 1, 2, 3}


def test_draws_come_from_the_generator_alone():
    np.random.seed(0)
    world = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    one, same, other = (augment_like_nnunet(*batch(), torch_generator(0, name))[0] for name in ("a", "a", "b"))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert (np.random.get_state()[1] == world[0]).all()
    assert torch.equal(torch.random.get_rng_state(), world[1])


def test_image_and_mask_move_together():
    # The blocks are brightest where the label is 1: after any warp the mean inside label 1 is still the highest.
    images, masks = augment_like_nnunet(*batch(), torch_generator(3, "a"))
    means = [float(images[:, 0][masks == label].mean()) for label in range(4)]
    assert max(means) == means[1]
