"""What all three frameworks do at a site in the peer benchmark: the same net, slices, steps and evaluation.

Imported by fedprivseg's peers in their own environments, so it needs torch, numpy and safetensors only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fedprivseg.nets.augment import Augmentation, augment
from fedprivseg.nets.baseline import build_net
from fedprivseg.nets.fitting import scores
from fedprivseg.nets.local_training import Work, train_round

STEPS, BATCH = 5, 16


def new_net() -> torch.nn.Module:
    """The untrained net of every framework."""
    return build_net("unet", "batch", 64, 3, 0, "initial weights")


def site_data(folder: Path, place: int) -> dict[str, np.ndarray]:
    """images, masks, test_images, test_masks of site `place` (0-based)."""
    with np.load(folder / f"site{place}.npz") as file:
        return dict(file)


def train(net: torch.nn.Module, data: dict[str, np.ndarray], place: int, number: int, rounds: int) -> float:
    """One round of a site on one thread."""
    torch.set_num_threads(1)
    work = Work((number - 1) * STEPS, STEPS, rounds * STEPS, BATCH)

    def change(images: torch.Tensor, masks: torch.Tensor, draws: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return augment(images, masks, Augmentation(), draws)

    return train_round(net, data["images"], data["masks"], work, 0, (place, number), augment=change)


def evaluate(net: torch.nn.Module, data: dict[str, np.ndarray]) -> float:
    """Dice of all structures together on the test slices."""
    torch.set_num_threads(1)
    labels = scores(net, data["test_images"][:, None]).argmax(axis=1)
    found, real = labels > 0, data["test_masks"] > 0
    return float(2 * (found & real & (labels == data["test_masks"])).sum() / max(1, found.sum() + real.sum()))
