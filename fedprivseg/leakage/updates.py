"""Gradient inversion on the update of weights that a site released, and on staged ones that show when it works."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from fedprivseg.attacks.gradient_inversion import GradientInversion, Seen, invert_update
from fedprivseg.attacks.judge import Truth
from fedprivseg.leakage.scene import Found, Scene
from fedprivseg.methods.masking import mean_of
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.training import NET, build, planned, under
from fedprivseg.nets.baseline import Weights, weights_of
from fedprivseg.nets.local_training import train_round
from fedprivseg.records import Kind
from fedprivseg.site.bench import Known

MOST = 4
"""Slices that are sought at once: the one with most heart of each of the first training subjects."""

STAGED = ((1, 1), (4, 1), (4, 5))
"""(slices, local steps) of the updates that are made for the attack."""


def attack_updates(scene: Scene) -> Found:
    """On the release of round 1, and staged. A masked update is read as if it were none: that is what masks are for."""
    method, attack = scene.method, GradientInversion
    if not isinstance(method, Rounds):
        return [], [f"{attack.title}: {method.title} releases no updates of weights"], {}
    known = scene.bench.known("train")
    chosen = _fullest(known)
    before = weights_of(build(method.parameters, scene.bench))
    sought: list[tuple[str, Weights, np.ndarray, bool]] = []
    released = _released(scene, before)
    if released is not None:
        sought.append(("released in round 1", released, chosen, False))
    for slices, steps in STAGED:
        if slices <= len(chosen):
            setting = f"{slices} slice{'s'[: slices > 1]}, {steps} step{'s'[: steps > 1]}"
            sought.append(
                (setting, _staged(scene, method, known, chosen[:slices], steps, before), chosen[:slices], True)
            )
    found = []
    shown: dict[str, np.ndarray] = {}
    for setting, towards, slices_of, staged in sought:
        start = time.perf_counter()
        seen = Seen(
            build=lambda: build(method.parameters, scene.bench),
            towards=towards,
            masks=known.masks[slices_of],
            effort=scene.effort,
            seed=scene.seed(setting),
            device=scene.bench.device,
            progress=scene.progress,
        )
        drawn = invert_update(seen)
        truth = Truth(known.images[slices_of, None], known.subjects[slices_of], known.masks[slices_of])
        names = {"attack": attack.name, "title": attack.title, "paper": attack.paper, "knows": attack.knows}
        seconds = time.perf_counter() - start
        found.append(
            scene.redrawn({**names, "setting": setting}, "images", "train", drawn, truth, seconds, staged=staged)
        )
        if not staged:
            shown = scene.examples("images", truth, drawn, None)
    lacking = [] if released is not None else [f"{attack.title}: {scene.site} released no update in round 1"]
    return found, lacking, shown


def _fullest(known: Known) -> np.ndarray:
    """For each of the first subjects the index of the slice that shows most of the heart."""
    size = (known.masks > 0).sum(axis=(1, 2))
    people = range(min(MOST, len(known.people)))
    return np.array(
        [np.flatnonzero(known.subjects == person)[size[known.subjects == person].argmax()] for person in people]
    )


def _released(scene: Scene, before: Weights) -> Weights | None:
    """Weights before minus weights after round 1, as far as the site released them."""
    payload = scene.released.first_update()
    if payload is None:
        return None
    if payload.kind == Kind.MASKED:
        after = mean_of(payload.arrays["masked"].view(np.uint64), before).arrays
    else:
        after = under(payload.arrays, NET)
    return {name: before[name] - value for name, value in after.items()}


def _staged(scene: Scene, method: Rounds, known: Known, chosen: np.ndarray, steps: int, before: Weights) -> Weights:
    """What an update would show if the site trained for so few steps on so few slices, without augmentation or noise."""
    net = build(method.parameters, scene.bench)
    work = replace(planned(method.parameters, 0, steps, steps), batch=len(chosen), half=False)
    train_round(net, known.images[chosen], known.masks[chosen], work, scene.bench.seed, ("staged",))
    return {name: before[name] - value for name, value in weights_of(net).items()}
