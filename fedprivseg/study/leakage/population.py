"""The attacks that tell something about a site's subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import Any

import numpy as np

from fedprivseg.attacks.people import Inference, Population
from fedprivseg.core.leakage_result import InferenceSummary
from fedprivseg.core.models import ModelStore
from fedprivseg.methods.method import CodedMethod
from fedprivseg.runtime.site.site_runtime import Known, attributes_of
from fedprivseg.study.leakage.part import Part, Piece
from fedprivseg.study.leakage.scene import AttackSession


def attack_people(scene: AttackSession, attacks: Sequence[type[Inference]]) -> list[Piece]:
    """What each attack can tell of the site's subjects."""
    crowd = cache(lambda: _crowd(scene))
    return [
        Piece(f"{scene.site}.people.{kind.name}", f"{scene.site}.people", partial(_infer, scene, crowd, kind()))
        for kind in attacks
    ]


def _infer(scene: AttackSession, crowd: Callable[[], Population], attack: Inference) -> Part:
    if attack.needs_codes and crowd().codes is None:
        return Part(left_out=(f"{attack.title}: {scene.method.title} releases nothing of single patients",))
    told = attack.infer(crowd())
    if not told:
        return Part(left_out=(f"{attack.title}: too few patients at {scene.site}, or too little known of them",))
    names: dict[str, Any] = {
        "attack": attack.name,
        "title": attack.title,
        "paper": attack.paper,
        "knows": attack.knows,
    }
    return Part(inferred=tuple(InferenceSummary(**names, site=scene.site, **asdict(one)) for one in told))


def _crowd(scene: AttackSession) -> Population:
    train, test = scene.bench.known("train"), scene.bench.known("test")
    people = (*train.people, *test.people)
    elsewhere = [other.known("train") for other in scene.others]
    return Population(
        images=np.concatenate([train.images, test.images]),
        masks=np.concatenate([train.masks, test.masks]),
        subjects=np.concatenate([train.subjects, test.subjects + len(train.people)]),
        phases=np.concatenate([train.phases, test.phases]),
        places=np.concatenate([train.places, test.places]),
        member=np.repeat([True, False], [len(train.images), len(test.images)]),
        attributes=attributes_of(people),
        codes=_codes(scene, train, test),
        predict=lambda images: scene.method.predict(scene.bench, ModelStore(scene.run / "server"), images),
        elsewhere=(
            np.concatenate([side.images for side in elsewhere]),
            np.concatenate([side.masks for side in elsewhere]),
        ),
        structures=len(scene.scenario.task.structures),
        times=scene.scenario.task.times,
        effort=scene.effort,
        seed=scene.seed("people"),
        device=scene.bench.device,
        progress=scene.progress,
    )


def _codes(scene: AttackSession, train: Known, test: Known) -> np.ndarray | None:
    """The released image codes of all of the site's slices, in their order; None if there are none of one side."""
    if not isinstance(scene.method, CodedMethod):
        return None
    parts = []
    for name, side in (("train", train), ("test", test)):
        sent = next((s for s in scene.method.sends if s.what == "images" and s.side == name), None)
        if sent is None:
            return None
        if len(side.images):
            parts.append(scene.released.rows(sent.action, len(side.images)))
    return np.concatenate(parts).astype(np.float32)
