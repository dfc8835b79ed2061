"""Test-time augmentation: mirrored and turned views of a slice, whose answers are turned back and averaged.

A site sends codes of several views of a test slice. View 0 is the slice itself; the next are its mirrorings; then the same
turned by 15 degrees either way. Averaging over views steadies a small network's borders.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from fedprivseg.nets.choices import VIEWS


def view(images: np.ndarray, index: int) -> np.ndarray:
    """View `index` of slices (N, H, W) float32: the same shape; what a turn brings in from outside is 0."""
    flip, angle = VIEWS[index]
    return _turned(np.flip(images, flip)[:, None], angle)[:, 0]


def average_scores(values: np.ndarray, count: int) -> np.ndarray:
    """Scores (count * N, 4, H, W), view by view -> their mean (N, 4, H, W) float32, each turned back first."""
    total = np.zeros((len(values) // count, *values.shape[1:]), np.float32)
    for back in _upright(values, count):
        # Where the turned slice does not reach, the answer is background.
        back[:, 0] += 1 - back.sum(axis=1)
        total += back
    return total / count


def average_images(images: np.ndarray, count: int) -> np.ndarray:
    """Images (count * N, C, H, W), view by view -> (N, C, H, W) float32: the mean, where each reaches, turned back."""
    whole = np.ones((1, *images.shape[2:]), np.float32)
    reach = sum(_upright(np.concatenate([view(whole, index)[:, None] for index in range(count)]), count))
    return np.asarray(sum(_upright(images, count)) / np.maximum(reach, 1e-6))


def _upright(values: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """Values (count * N, C, H, W) of all views, one view (N, C, H, W) after the other, each turned and mirrored back."""
    for (flip, angle), part in zip(VIEWS, np.split(values.astype(np.float32), count), strict=False):
        yield np.flip(_turned(part, -angle), tuple(axis + 1 for axis in flip)).copy()


def _turned(images: np.ndarray, angle: float) -> np.ndarray:
    """Images (N, C, H, W) turned about the centre by `angle` degrees, bilinear."""
    images = np.ascontiguousarray(images, np.float32)
    if not angle or not len(images):
        return images
    count, _, height, width = images.shape
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # affine_grid counts in half sides, so a turn of a slice that is not square has to scale by the sides' ratio.
    turn = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]])
    grid = functional.affine_grid(turn.expand(count, 2, 3), [count, 1, height, width], align_corners=False)
    return functional.grid_sample(torch.from_numpy(images), grid, align_corners=False).numpy()
