"""Was this patient trained on? The adversary has the patient's image and outlines and may use the finished system.

A slice that the system segments better than its difficulty would suggest was probably trained on. How difficult it is, shadow
networks say, which the adversary trains on images of its own. The control splits the members in two halves at random and
tries to tell these apart: a test in which it reaches as much as the attack shows nothing about membership.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from fedprivseg.attacks.base import Indicator, Inference, InferenceMetric, Population
from fedprivseg.core.measures import auc, tpr_at
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.nets.augment import Augmentation
from fedprivseg.nets.descent import Schedule
from fedprivseg.nets.fitting import Fitting, fit_unet, scores

SHADOWS = 2


@final
class Membership(Inference):
    """Difficulty-calibrated loss."""

    name = "membership"
    title = "Membership inference"
    paper = "Watson et al., ICLR 2022; Shokri et al., S&P 2017; Carlini et al., S&P 2022 (on low FPR)"
    knows = (
        "the patient's image and outlines, use of the finished system, and pictures from elsewhere for shadow networks"
    )
    needs_codes: ClassVar[bool] = False
    indicator: ClassVar[Indicator] = "membership"

    def infer(self, population: Population) -> tuple[InferenceMetric, ...]:
        """AUC over slices and over patients, true positive rates at low false positive rates, and the control."""
        member, subjects = population.member, population.subjects
        if member.all() or not member.any():
            return ()
        evidence = -losses(population.predict(population.images), population.masks)
        images, masks = population.elsewhere
        for number in range(SHADOWS):
            half = numpy_generator(population.seed, "shadow", number).permutation(len(images))
            half = half[: max(2, len(images) // 2)]
            schedule = Schedule(population.effort.inner, batch=min(16, len(half)))
            names = ("shadow", number)
            fitting = Fitting(
                schedule,
                Augmentation(),
                population.seed,
                names,
                population.structures,
                population.device,
                population.progress,
            )
            shadow = fit_unet(images[half], masks[half], fitting)
            given = scores(shadow, population.images[:, None], population.device)
            evidence = evidence + losses(given, population.masks) / SHADOWS
        members, others = evidence[member], evidence[~member]
        people = {subject: evidence[subjects == subject].mean() for subject in np.unique(subjects)}
        trained = {subject for subject in people if member[subjects == subject].all()}
        inside, outside = (
            np.array([people[subject] for subject in people if (subject in trained) == side]) for side in (True, False)
        )
        half = numpy_generator(population.seed, "control").permutation(sorted(trained))[: len(trained) // 2]
        first = np.isin(subjects[member], half)
        slices = f"{len(members)} slices of members, {len(others)} of others"
        patients = f"{len(inside)} members, {len(outside)} others"
        by_slice, by_patient = auc(members, others), auc(inside, outside)
        control = auc(members[first], members[~first])
        return (
            InferenceMetric("slices: AUC", by_slice, 0.5, None, slices, counts=by_slice),
            InferenceMetric("patients: AUC", by_patient, 0.5, None, patients, counts=by_patient),
            InferenceMetric("slices: TPR at 1 % FPR", tpr_at(members, others, 0.01), 0.01, None, slices),
            InferenceMetric("slices: TPR at 0.1 % FPR", tpr_at(members, others, 0.001), 0.001, None, slices),
            InferenceMetric("control, members against members: AUC", control, 0.5, None, slices),
        )


def losses(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Cross-entropy of class scores (N, C, H, W) and labels (N, H, W), the mean over pixels: (N,) float64."""
    chosen = np.take_along_axis(values, masks[:, None].astype(np.int64), axis=1)[:, 0]
    return -np.log(np.maximum(chosen.astype(np.float64), 1e-6)).mean(axis=(1, 2))
