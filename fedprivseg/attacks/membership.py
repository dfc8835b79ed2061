"""Was this patient trained on? The adversary has the patient's image and outlines and may use the finished system.

A slice that the system segments better than its difficulty would suggest was probably trained on. How difficult it is, shadow
networks say, which the adversary trains on pictures of its own. The control splits the members in two halves at random and
tries to tell these apart: a test in which it reaches as much as the attack shows nothing about membership.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from fedprivseg.attacks.people import Inference, InferenceResult, Population
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

    def infer(self, crowd: Population) -> tuple[InferenceResult, ...]:
        """AUC over slices and over patients, true positive rates at low false positive rates, and the control."""
        if crowd.member.all() or not crowd.member.any():
            return ()
        evidence = -losses(crowd.predict(crowd.images), crowd.masks)
        images, masks = crowd.elsewhere
        for number in range(SHADOWS):
            half = numpy_generator(crowd.seed, "shadow", number).permutation(len(images))[: max(2, len(images) // 2)]
            fitting = Fitting(
                Schedule(crowd.effort.inner, batch=min(16, len(half))),
                Augmentation(),
                crowd.seed,
                ("shadow", number),
                crowd.structures,
                crowd.device,
                crowd.progress,
            )
            shadow = fit_unet(images[half], masks[half], fitting)
            evidence = evidence + losses(scores(shadow, crowd.images[:, None], crowd.device), crowd.masks) / SHADOWS
        members, others = evidence[crowd.member], evidence[~crowd.member]
        people = {subject: evidence[crowd.subjects == subject].mean() for subject in np.unique(crowd.subjects)}
        trained = {subject for subject in people if crowd.member[crowd.subjects == subject].all()}
        inside, outside = (
            np.array([people[subject] for subject in people if (subject in trained) == side]) for side in (True, False)
        )
        half = numpy_generator(crowd.seed, "control").permutation(sorted(trained))[: len(trained) // 2]
        first = np.isin(crowd.subjects[crowd.member], half)
        slices = f"{len(members)} slices of members, {len(others)} of others"
        return (
            InferenceResult("slices: AUC", auc(members, others), 0.5, None, slices),
            InferenceResult(
                "patients: AUC", auc(inside, outside), 0.5, None, f"{len(inside)} members, {len(outside)} others"
            ),
            InferenceResult("slices: TPR at 1 % FPR", tpr_at(members, others, 0.01), 0.01, None, slices),
            InferenceResult("slices: TPR at 0.1 % FPR", tpr_at(members, others, 0.001), 0.001, None, slices),
            InferenceResult(
                "control, members against members: AUC", auc(members[first], members[~first]), 0.5, None, slices
            ),
        )


def losses(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Cross-entropy of class scores (N, C, H, W) and labels (N, H, W), the mean over pixels: (N,) float64."""
    chosen = np.take_along_axis(values, masks[:, None].astype(np.int64), axis=1)[:, 0]
    return -np.log(np.maximum(chosen.astype(np.float64), 1e-6)).mean(axis=(1, 2))
