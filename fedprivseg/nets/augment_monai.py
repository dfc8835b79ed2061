"""nnU-Net's augmentation of 2-D slices, from MONAI's transforms (Isensee et al., Nature Methods 18:203, 2021, supplement 4).

One sample at a time, so about four times as slow as `augment`; for those who want the baseline as its authors train it.
Probabilities and ranges are the supplement's for 2-D; only images change in intensity, and they stay in 0..1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch


def _pipeline() -> Any:
    """The transforms, built for every batch: some keep what they drew last, and nothing may stay for another site."""
    from monai.transforms import (
        Compose,
        RandAdjustContrastd,
        RandAffined,
        RandFlipd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        RandScaleIntensityFixedMeand,
        RandSimulateLowResolutiond,
    )

    image, both = "image", ("image", "mask")
    return Compose(
        [
            RandAffined(
                both,
                prob=0.36,  # rotation and scaling each with 0.2: 1 - 0.8 ** 2
                rotate_range=math.pi,
                scale_range=((-0.3, 0.4), (-0.3, 0.4)),
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandGaussianNoised(
                image, prob=0.1, std=0.1**0.5 / 4
            ),  # variance up to 0.1 of a unit deviation; slices have 1/4
            RandGaussianSmoothd(image, prob=0.2, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0)),
            RandScaleIntensityd(image, prob=0.15, factors=(-0.25, 0.25)),
            RandScaleIntensityFixedMeand(image, prob=0.15, factors=(-0.25, 0.25), preserve_range=True),
            RandSimulateLowResolutiond(image, prob=0.25, zoom_range=(0.5, 1.0), upsample_mode="bilinear"),
            RandAdjustContrastd(image, prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandFlipd(both, prob=0.5, spatial_axis=1),
        ]
    )


def augment_like_nnunet(
    images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A changed copy of a batch: images (N, 1, H, W) float in 0..1 and masks (N, H, W) integer, as they came.

    All draws come from `generator`: it seeds MONAI's own random state once a batch.
    """
    pipeline = _pipeline()
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    pipeline.set_random_state(state=np.random.RandomState(seed))
    warped, labels = [], []
    for image, mask in zip(images.cpu(), masks.cpu(), strict=True):
        changed = pipeline({"image": image, "mask": mask[None].float()})
        warped.append(torch.as_tensor(changed["image"]).clamp(0, 1))
        labels.append(torch.as_tensor(changed["mask"])[0].to(masks.dtype))
    return torch.stack(warped).to(images), torch.stack(labels).to(masks.device)
