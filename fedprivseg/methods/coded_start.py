"""The public start of coded segmentation: both encoding networks and the segmentation network on codes, trained on phantoms.

Encoders that begin from one start and are then trained apart keep codes that are alike, and the server's network knows such
codes before the first site has sent one. What leaves a site does not change.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fedprivseg.core.records import Slices
from fedprivseg.core.seeds import torch_generator
from fedprivseg.core.task import Scope
from fedprivseg.methods.coded_encoders import IMAGE, MASK, code_of, fit_image, fit_mask, one_hot
from fedprivseg.methods.coded_mapping import MAPPING, untrained
from fedprivseg.methods.coded_parameters import PrivacySFParameters
from fedprivseg.methods.public_start import Progress
from fedprivseg.nets.augment import augment
from fedprivseg.nets.baseline import weights_of
from fedprivseg.nets.descent import Schedule
from fedprivseg.nets.fitting import Fitting
from fedprivseg.nets.fitting_mapping import fit_mapping
from fedprivseg.nets.pretraining import PUBLIC_SEED, WIDE

CROWD = "public"
"""What the one site is called whose codes are the phantoms'."""


def coded_start(
    p: PrivacySFParameters, scope: Scope, slices: Slices, device: str, progress: Progress
) -> dict[str, np.ndarray]:
    """The weights of the three networks after `p.start_steps` steps each on public slices, each under its name in `started`."""

    def fitting(stage: str) -> Fitting:
        return Fitting(
            schedule=Schedule(p.start_steps, p.batch, p.start_rate, half=p.half),
            augmentation=WIDE,
            seed=PUBLIC_SEED,
            names=("public start", stage),
            structures=len(scope.task.structures),
            device=device,
            progress=lambda _, done, total: progress(f"train the public start: {stage}", done, total),
        )

    image = fit_image(p, scope, slices, fitting("image encoder"))
    mask = fit_mask(p, slices.masks, fitting("mask encoder"))
    mapping = untrained(p, scope.task, (CROWD,), PUBLIC_SEED)
    draws = torch_generator(PUBLIC_SEED, "public start", "views")
    warped, labels = augment(
        torch.from_numpy(slices.images)[:, None], torch.from_numpy(slices.masks), replace(WIDE, rotation=30), draws
    )
    codes = {
        "image": code_of(p, image, warped.numpy(), device),
        "mask": code_of(p, mask, one_hot(labels.numpy(), len(scope.task.structures)), device),
    }
    schedule = Schedule(p.start_steps, p.batch, p.start_rate, decay=p.mapping_decay, half=p.half)
    fit_mapping(
        mapping,
        {CROWD: _Rows(codes["image"])},
        {CROWD: _Rows(codes["mask"])},
        schedule,
        PUBLIC_SEED,
        ("public start", "mapping"),
        standardise=p.standardise,
        device=device,
        progress=lambda _, done, total: progress("train the public start: segmentation network", done, total),
    )
    nets = {IMAGE: image, MASK: mask, MAPPING: mapping}
    return {f"{name}/{key}": value for name, net in nets.items() for key, value in weights_of(net).items()}


class _Rows:
    """Codes in memory."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """See `fitting_mapping.Rows`."""
        return np.asarray(self._values[indices])
