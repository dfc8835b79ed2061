"""Test-time augmentation: mirrored and turned views of a slice, whose answers are turned back and averaged.

A site sends codes of several views of a test slice. View 0 is the slice itself; the next are its mirrorings; then the same
turned by 15 degrees either way. Averaging over views steadies a small network's borders.
"""

from __future__ import annotations

import math

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
    for index, part in enumerate(np.split(values, count)):
        back = upright(part, index)
        # Where the turned slice does not reach, the answer is background.
        back[:, 0] += 1 - back.sum(axis=1)
        total += back
    return total / count


def upright(values: np.ndarray, index: int) -> np.ndarray:
    """Values (N, C, H, W) of view `index`, turned and mirrored back: float32; 0 where the view does not reach."""
    flip, angle = VIEWS[index]
    return np.flip(_turned(values.astype(np.float32), -angle), tuple(axis + 1 for axis in flip)).copy()


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
