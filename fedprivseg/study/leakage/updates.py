"""Attacks on the update of weights that a site released, and on staged ones that show when they work and what defences buy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import final

import numpy as np

from fedprivseg.attacks import UpdateAttack
from fedprivseg.attacks.gradient_inversion import GradientInversion, Seen, invert_update
from fedprivseg.attacks.learned_inversion import Inverse, learn
from fedprivseg.attacks.metrics import Truth
from fedprivseg.core.leakage_result import ReconstructionResult
from fedprivseg.methods.masking import mean_of
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.training import NET, build, under
from fedprivseg.nets.baseline import Weights
from fedprivseg.runtime.site.site_runtime import Known
from fedprivseg.study.leakage.part import Part, Piece, without
from fedprivseg.study.leakage.scene import AttackSession
from fedprivseg.study.leakage.staging import Pair, Stage

MOST = 4
"""Slices that are sought: the fullest one of each of the first training subjects."""

STAGED = ((1, 1), (4, 1), (4, 5))
"""(slices, local steps) of the updates that are made for the attack."""


@dataclass(frozen=True)
class _Case:
    """Updates that are attacked alike. parts: each with the slices, as positions among the training slices, that are sought in
    it. defence: what was done to staged ones."""

    setting: str
    parts: tuple[tuple[Weights, np.ndarray], ...]
    staged: bool = True
    defence: str = ""


Invert = Callable[[_Case], tuple[np.ndarray, np.ndarray]]
"""The pictures (N, 1, H, W) that an attack draws in a case, and which slices (N,) they should show."""


def attack_updates(scene: AttackSession, attacks: Sequence[type[UpdateAttack]]) -> list[Piece]:
    """On the release of round 1, and staged. A masked update is read as if it were none: that is what masks are for."""
    method = scene.method
    if not isinstance(method, Rounds):
        whys = [f"{attack.title}: {method.title} releases no updates of weights" for attack in attacks]
        return without(scene.site, "updates", *whys)
    battle = _Battle(scene, method)
    return [
        Piece(f"{scene.site}.updates.{attack.name}", f"{scene.site}.updates", partial(battle.carry_out, attack))
        for attack in attacks
    ]


@final
class _Battle:
    """What all attacks on a site's updates share, made when the first of them is carried out."""

    def __init__(self, scene: AttackSession, method: Rounds) -> None:
        self._scene, self._method = scene, method

    @cached_property
    def _stage(self) -> Stage:
        return Stage.of(self._method, self._scene.bench)

    @cached_property
    def _released(self) -> Weights | None:
        return _released(self._scene, self._stage.before)

    @cached_property
    def _cases(self) -> list[_Case]:
        return _cases(self._scene, self._stage, self._scene.bench.known("train"), self._released)

    def carry_out(self, attack: type[UpdateAttack]) -> Part:
        """The verdict on what `attack` draws in each case."""
        scene, known = self._scene, self._scene.bench.known("train")
        inverts = attack is GradientInversion
        invert = _sought(scene, self._method, known) if inverts else _learned(scene, self._stage, known, self._released)
        found: list[ReconstructionResult] = []
        shown: dict[str, np.ndarray] = {}
        for case in self._cases:
            if inverts and case.defence:
                continue
            start = time.perf_counter()
            drawn, chosen = invert(case)
            seconds = time.perf_counter() - start
            region = scene.scenario.task.region
            truth = Truth(known.images[chosen, None], known.subjects[chosen], known.masks[chosen], "images", region)
            names = {"attack": attack.name, "title": attack.title, "paper": attack.paper, "knows": attack.knows}
            names |= {"setting": case.setting, "defence": case.defence}
            found.append(scene.redrawn(names, "images", "train", drawn, truth, seconds, staged=case.staged))
            if not case.staged:  # there is one such case
                shown = scene.examples("images", truth, drawn, None)
        lacking = () if shown else (f"{attack.title}: {scene.site} released no update in round 1",)
        return Part(tuple(found), left_out=lacking, shown=shown)


def _cases(scene: AttackSession, stage: Stage, known: Known, released: Weights | None) -> list[_Case]:
    """The release, if there is one, and what is staged."""
    chosen = _fullest(known)
    cases = [] if released is None else [_Case("released in round 1", ((released, chosen),), staged=False)]
    for slices, steps in STAGED:
        if slices > len(chosen):
            continue
        setting = f"{slices} slice{'s'[: slices > 1]}, {steps} step{'s'[: steps > 1]}"
        groups = np.split(chosen, len(chosen)) if slices == 1 else [chosen[:slices]]
        cases.append(_Case(setting, tuple((stage.update(_of(known, group), steps), group) for group in groups)))
    others = [other.known("train") for other in scene.others]
    defended: dict[str, list[tuple[Weights, np.ndarray]]] = {}
    for place, group in enumerate(np.split(chosen, len(chosen))):
        peers = [_of(other, np.roll(_fullest(other), -place)[:1]) for other in others]
        for defence, update in stage.defended(_of(known, group), peers, scene.seed("defended", place)).items():
            defended.setdefault(defence, []).append((update, group))
    cases += [_Case(f"1 slice, 1 step, {name}", tuple(parts), defence=name) for name, parts in defended.items()]
    return cases


def _sought(scene: AttackSession, method: Rounds, known: Known) -> Invert:
    """By optimisation; of updates that are attacked alike the first alone, since it works long on each."""

    def invert(case: _Case) -> tuple[np.ndarray, np.ndarray]:
        towards, chosen = case.parts[0]
        seen = Seen(
            build=lambda: build(method.parameters, scene.bench),
            towards=towards,
            masks=known.masks[chosen],
            effort=scene.effort,
            seed=scene.seed(case.setting),
            device=scene.bench.device,
            progress=scene.progress,
        )
        return invert_update(seen), chosen

    return invert


def _learned(scene: AttackSession, stage: Stage, known: Known, released: Weights | None) -> Invert:
    """By maps, one for each set of outlines, which are learned for one step and serve for more."""
    maps: dict[tuple[int, ...], Inverse] = {}
    own = scene.auxiliary("images")[:, 0]
    weights = {name for name, _ in stage.net.named_parameters()}
    travels = weights if released is None else weights & set(released)

    def rehearse(masks: np.ndarray, images: np.ndarray) -> Weights:
        update = stage.update((images, masks))
        return {name: update[name] for name in travels}

    def invert(case: _Case) -> tuple[np.ndarray, np.ndarray]:
        drawn = []
        for towards, chosen in case.parts:
            places = tuple(chosen.tolist())
            if places not in maps:
                outlines = partial(rehearse, known.masks[chosen])
                seed = scene.seed("rehearsals", *places)
                maps[places] = learn(outlines, len(chosen), own, scene.effort, seed, scene.progress)
            drawn.append(maps[places].draw(towards))
        return np.concatenate(drawn), np.concatenate([chosen for _, chosen in case.parts])

    return invert


def _of(known: Known, chosen: np.ndarray) -> Pair:
    return known.images[chosen], known.masks[chosen]


def _fullest(known: Known) -> np.ndarray:
    """For each of the first subjects the index of the slice that shows most structures."""
    size = (known.masks > 0).sum(axis=(1, 2))
    people = range(min(MOST, len(known.people)))
    return np.array(
        [np.flatnonzero(known.subjects == person)[size[known.subjects == person].argmax()] for person in people]
    )


def _released(scene: AttackSession, before: Weights) -> Weights | None:
    """Weights before minus weights after round 1, as far as the site released them."""
    payload = scene.released.first_update()
    if payload is None:
        return None
    if payload.kind.discloses == "sum":
        after = mean_of(payload.arrays["masked"].view(np.uint64), before).arrays
    else:
        after = under(payload.arrays, NET)
    return {name: before[name] - value for name, value in after.items()}
