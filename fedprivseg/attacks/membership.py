"""Was this patient trained on? The adversary has the patient's image and outlines and may use the finished system.

A slice that the system segments better than networks do that never saw it was probably trained on. The adversary trains such
shadow networks on images of its own; what they reach on a slice is a Gaussian, and the evidence is how far above it the system
lies: the likelihood-ratio attack, offline, one-sided, with a Gaussian for each slice.

Two controls. Every shadow network is taken for the system in turn: it saw none of the patients, so an AUC away from 0.5 shows
that members and others differ in something else than membership. And with the roles exchanged, a network that was trained on
the others is attacked: what the attack reaches where there is certainly something to find.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, final

import numpy as np

from fedprivseg.attacks.base import Indicator, Inference, InferenceMetric, Population
from fedprivseg.attacks.member_statistics import member_metrics
from fedprivseg.core.measures import auc
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.nets.augment import Augmentation
from fedprivseg.nets.descent import Schedule
from fedprivseg.nets.fitting import Fitting, fit_unet, scores

SHADOWS = 16
"""Fewer than Carlini et al. train: what two cores bear. So few know a slice's mean well and its deviation roughly."""

SHARE = 4
"""Each is trained for this part of the steps that a single network gets: sixteen of a quarter cost as much as four whole
ones."""

BATCH = 8
LARGE = 64
"""Slices of so many pixels a side or more are halved: shadow networks then cost a quarter. The system's scores are halved too,
so that both are judged on the same pixels."""

LEAST_SPREAD = 0.1
"""A slice's deviation over the shadows counts as this share of the mean deviation at least: sixteen may agree by chance."""


@final
class Membership(Inference):
    """Likelihood ratio against shadow networks that did not see the patient."""

    name = "membership"
    title = "Membership inference"
    paper = "Carlini et al., S&P 2022 (LiRA, offline, section VI-B); Watson et al., ICLR 2022"
    knows = (
        "the patient's image and outlines, use of the finished system, and pictures from elsewhere for shadow networks"
    )
    needs_codes: ClassVar[bool] = False
    indicator: ClassVar[Indicator] = "membership"

    def infer(self, population: Population) -> tuple[InferenceMetric, ...]:
        """AUC over slices and over patients with intervals and a permutation test, and the two controls."""
        member, subjects, seed = population.member, population.subjects, population.seed
        if member.all() or not member.any():
            return ()
        system = population.predict(population.images)
        population = _coarse(population)
        images, masks = population.elsewhere
        shadows = []
        for number in range(SHADOWS):
            half = numpy_generator(seed, "shadow", number).permutation(len(images))[: max(2, len(images) // 2)]
            shadows.append(_confidences_of_net(population, images[half], masks[half], "shadow", number))
        out = np.stack(shadows)
        reached = confidence(losses(coarse(system, population.images.shape[1]), population.masks))
        found = member_metrics("", likelihood_ratio(reached, out), member, subjects, seed)
        slices = found[0].count
        nobody = [
            auc(evidence[member], evidence[~member])
            for evidence in (likelihood_ratio(out[n], np.delete(out, n, axis=0)) for n in range(SHADOWS))
        ]
        others = _confidences_of_net(population, population.images[~member], population.masks[~member], "exchanged", 0)
        evidence = likelihood_ratio(others, out)
        exchanged = auc(evidence[~member], evidence[member])
        return (
            *found,
            InferenceMetric("control, nets that saw nobody: AUC", float(np.mean(nobody)), 0.5, None, slices),
            InferenceMetric("control, a net that saw the others, roles exchanged: AUC", exchanged, 0.5, None, slices),
        )


def likelihood_ratio(system: np.ndarray, out: np.ndarray) -> np.ndarray:
    """How far the system's confidence lies above that of networks without the slice, in their deviations: (N,) float64.

    The probability of Carlini's one-sided test is a monotone function of it.

    Args:
        system: (N,).
        out: (S, N), of S >= 2 shadow networks.
    """
    spread = out.std(axis=0, ddof=1)
    return np.asarray((system - out.mean(axis=0)) / np.maximum(spread, max(LEAST_SPREAD * spread.mean(), 1e-9)))


def confidence(loss: np.ndarray) -> np.ndarray:
    """The logit of exp(-loss), which over networks is nearly Gaussian (Carlini et al., section IV-B): (N,) float64."""
    return np.asarray(-loss - np.log(-np.expm1(-np.maximum(loss, 1e-9))))


def losses(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Cross-entropy of class scores (N, C, H, W) and labels (N, H, W), the mean over pixels: (N,) float64."""
    chosen = np.take_along_axis(values, masks[:, None].astype(np.int64), axis=1)[:, 0]
    return -np.log(np.maximum(chosen.astype(np.float64), 1e-6)).mean(axis=(1, 2))


def coarse(values: np.ndarray, height: int) -> np.ndarray:
    """Means over equal square fields of (..., H, W), so that `height` rows are left; as they are where H is `height`."""
    side = values.shape[-2] // height
    *first, rows, columns = values.shape
    return values.reshape(*first, rows // side, side, columns // side, side).mean(axis=(-3, -1), dtype=np.float32)


def _coarse(population: Population) -> Population:
    """The population with slices of half the sides, where they are large and the network's four halvings fit still."""
    height, width = population.images.shape[1:]
    if min(height, width) < LARGE or height % 32 or width % 32:
        return population
    images, masks = population.elsewhere
    return replace(
        population,
        images=coarse(population.images, height // 2),
        masks=population.masks[:, ::2, ::2],
        elsewhere=(coarse(images, height // 2), masks[:, ::2, ::2]),
    )


def _confidences_of_net(
    population: Population, images: np.ndarray, masks: np.ndarray, role: str, number: int
) -> np.ndarray:
    """What a small network that is trained on these slices reaches on the population's: (N,) float64."""
    fitting = Fitting(
        Schedule(max(1, population.effort.inner // SHARE), batch=min(BATCH, max(2, len(images)))),
        Augmentation(),
        population.seed,
        (role, number),
        population.structures,
        population.device,
        population.progress,
    )
    net = fit_unet(images, masks, fitting)
    return confidence(losses(scores(net, population.images[:, None], population.device), population.masks))
