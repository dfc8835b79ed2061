"""The attacks that infer something about a site's patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial

import numpy as np

from fedprivseg.attacks.base import Inference, Population
from fedprivseg.core.leakage_result import InferenceResult
from fedprivseg.core.models import ModelStore
from fedprivseg.methods.method import CodedMethod
from fedprivseg.runtime.site.site_runtime import attributes_of
from fedprivseg.study.ground_truth import GroundTruth, ground_truth
from fedprivseg.study.leakage.attack_session import AttackSession
from fedprivseg.study.leakage.partial import AttackTask, PartialResult


def infer(session: AttackSession, attacks: Sequence[type[Inference]]) -> list[AttackTask]:
    """What each attack can infer about the site's patients."""
    population, of = cache(lambda: _population(session)), f"{session.victim}.people"
    return [AttackTask(f"{of}.{kind.name}", of, partial(_infer, session, population, kind())) for kind in attacks]


def _infer(session: AttackSession, population: Callable[[], Population], attack: Inference) -> PartialResult:
    if attack.needs_codes and population().codes is None:
        why = f"{attack.title}: {session.method.title} releases nothing of single patients"
        return PartialResult(left_out=(why,))
    found = attack.infer(population())
    if not found:
        why = f"{attack.title}: too few patients at {session.victim}, or too little known of them"
        return PartialResult(left_out=(why,))
    named = {**attack.identity, "site": session.victim, "indicator": attack.indicator}
    return PartialResult(inferences=tuple(InferenceResult.model_validate({**named, **asdict(one)}) for one in found))


def _population(session: AttackSession) -> Population:
    train, test = ground_truth(session.site, "train"), ground_truth(session.site, "test")
    people = (*train.people, *test.people)
    elsewhere = [ground_truth(other, "train") for other in session.others]
    return Population(
        images=np.concatenate([train.images, test.images]),
        masks=np.concatenate([train.masks, test.masks]),
        subjects=np.concatenate([train.subjects, test.subjects + len(train.people)]),
        phases=np.concatenate([train.phases, test.phases]),
        places=np.concatenate([train.places, test.places]),
        member=np.repeat([True, False], [len(train.images), len(test.images)]),
        attributes=attributes_of(people),
        codes=_codes(session, train, test),
        predict=lambda images: session.method.predict(session.site, ModelStore(session.run / "server"), images),
        elsewhere=(
            np.concatenate([side.images for side in elsewhere]),
            np.concatenate([side.masks for side in elsewhere]),
        ),
        structures=len(session.scenario.task.structures),
        times=session.scenario.task.times,
        effort=session.effort,
        seed=session.seed("people"),
        device=session.site.device,
        progress=session.progress,
    )


def _codes(session: AttackSession, train: GroundTruth, test: GroundTruth) -> np.ndarray | None:
    """The released image codes of all of the site's slices, in their order; None if there are none of one side."""
    if not isinstance(session.method, CodedMethod):
        return None
    parts = []
    for name, side in (("train", train), ("test", test)):
        sent = next((s for s in session.method.sends if s.what == "images" and s.side == name), None)
        if sent is None:
            return None
        if len(side.images):
            parts.append(session.released.rows(sent.action, len(side.images)))
    return np.concatenate(parts).astype(np.float32)
