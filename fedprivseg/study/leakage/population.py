"""The attacks that infer something about a site's patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial

import numpy as np

from fedprivseg.attacks.base import Inference, Population
from fedprivseg.core.leakage_result import InferenceResult
from fedprivseg.core.method_card import What
from fedprivseg.core.models import ModelStore
from fedprivseg.methods.method import CodedMethod
from fedprivseg.runtime.site.site_runtime import attributes_of
from fedprivseg.study.ground_truth import ground_truth
from fedprivseg.study.leakage.attack_session import AttackSession, Side
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
    elsewhere, trained = [ground_truth(other, "train") for other in session.others], _trained(session)
    return Population(
        images=np.concatenate([train.images, test.images]),
        masks=np.concatenate([train.masks, test.masks]),
        subjects=np.concatenate([train.subjects, test.subjects + len(train.people)]),
        phases=np.concatenate([train.phases, test.phases]),
        places=np.concatenate([train.places, test.places]),
        member=np.repeat([True, False], [len(train.images), len(test.images)]),
        attributes=attributes_of(people),
        codes=_codes(session),
        trained=trained,
        query={what: session.query(what) for what in trained},
        query_elsewhere={what: session.query(what, another_key=True) for what in trained if session.keyed},
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


def _codes(session: AttackSession) -> np.ndarray | None:
    """The released image codes of all of the site's slices, put into their order, of the first view; None if there are none of
    one side."""
    if not isinstance(session.method, CodedMethod):
        return None
    sends = {sent.side: sent for sent in session.method.sends if sent.what == "images"}
    sides: tuple[Side, Side] = ("train", "test")
    if set(sends) != set(sides):
        return None
    orders = [session.order(sends[side]) for side in sides]
    parts = [
        session.codes(sends[side])[np.argsort(order)] for side, order in zip(sides, orders, strict=True) if len(order)
    ]
    return np.concatenate(parts)


def _trained(session: AttackSession) -> dict[What, np.ndarray]:
    """Of images and of masks, all training codes that the site sent, as they came."""
    sends = session.method.sends if isinstance(session.method, CodedMethod) else ()
    return {sent.what: session.released.rows(sent.action).astype(np.float32) for sent in sends if sent.side == "train"}
