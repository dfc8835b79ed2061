"""The refinement of a site in coded segmentation: fitted there, kept in its vault, and used after the server's answer."""

from __future__ import annotations

import numpy as np
import torch

from fedprivseg.core.seeds import building
from fedprivseg.methods.coded_encoders import decode_masks
from fedprivseg.methods.coded_parameters import PrivacySFParameters
from fedprivseg.methods.method import Site
from fedprivseg.nets.augment import Augmentation
from fedprivseg.nets.descent import Schedule
from fedprivseg.nets.fitting import Fitting
from fedprivseg.nets.refinement import fit_refinement, refine, untrained_refinement
from fedprivseg.nets.segmentation import lost_structures
from fedprivseg.nets.test_time import average_scores, view

_NET, _LOST = "refinement", "lost"
"""The network in the vault, and beside its weights which structures it lost."""


def fit_missing(
    p: PrivacySFParameters, site: Site, images: np.ndarray, masks: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    """Train the refinement, unless the vault has it; which structures it lost, (K,) uint8.

    Args:
        p: the method's parameters.
        site: whose it is.
        images: (N, H, W) float32.
        masks: (N, H, W) uint8.
        codes: of the server's answers to these, (N, C, h, w), in their order.
    """
    if not site.vault.has(_NET):
        answers = decode_masks(p, site, codes).astype(np.float16) if p.refinement_input == "answer" else None
        fitting = Fitting(
            schedule=Schedule(p.refinement_steps, p.batch, p.refinement_rate, half=p.half),
            augmentation=Augmentation() if p.augmentation else None,
            seed=site.seed,
            names=(site.name, "refinement"),
            structures=len(site.task.structures),
            device=site.device,
            progress=lambda _, done, total: site.progress("fit refinement", done, total),
        )
        net = fit_refinement(images, masks, answers, fitting, noise=p.refinement_noise)

        def labels(pictures: np.ndarray) -> np.ndarray:
            return refine(net, pictures, answers, site.device, p.half).argmax(axis=1).astype(np.uint8)

        gone = lost_structures(labels, images, masks, site.task.names)
        weights = {key: value.cpu().numpy() for key, value in net.state_dict().items()}
        flags = np.array([structure in gone for structure in site.task.names], np.uint8)
        site.vault.save(_NET, {**weights, _LOST: flags})
    return site.vault.load(_NET)[_LOST]


def refined(p: PrivacySFParameters, site: Site, images: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Class scores (N, K + 1, H, W) of slices (N, H, W) and the server's answers to them, (N, K + 1, H, W), by the site's own
    refinement, the mean of as many views as the method takes of a test slice; without a refinement, the answers."""
    if not p.refinement_steps or not len(images):
        return answers
    kept = site.vault.load(_NET)
    with building(0, "weights follow"):
        net = untrained_refinement(len(site.task.structures))
    net.load_state_dict({key: torch.from_numpy(value) for key, value in kept.items() if key != _LOST})
    net.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    parts = []
    for index in range(p.test_views):
        beside = None
        if p.refinement_input == "answer":
            beside = np.stack([view(answers[:, place], index) for place in range(answers.shape[1])], axis=1)
        parts.append(refine(net, view(images, index), beside, site.device, p.half))
    return average_scores(np.concatenate(parts), p.test_views)
