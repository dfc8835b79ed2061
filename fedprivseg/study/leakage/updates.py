"""Attacks on the update of weights that a site released, and on staged ones that show when they work and what defences buy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import final

import numpy as np

from fedprivseg.attacks.base import UpdateAttack, UpdateView
from fedprivseg.attacks.metrics import Truth
from fedprivseg.methods.masking import mean_of
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.training import NET, build, under
from fedprivseg.nets.baseline import Weights
from fedprivseg.runtime.site.site_runtime import Known
from fedprivseg.study.leakage.partial import AttackTask, PartialResult, impossible
from fedprivseg.study.leakage.session import AttackSession
from fedprivseg.study.leakage.staging import Pair, Stage

MOST = 4
"""Slices that are sought: the one with most heart of each of the first training subjects."""

STAGED = ((1, 1), (4, 1), (4, 5))
"""(slices, local steps) of the updates that are made for the attack."""


@dataclass(frozen=True)
class _Case:
    """Updates that are attacked alike.

    Attributes:
        parts: each update with the slices, as positions among the training slices, that are sought in it.
        defence: what was done to staged ones.
    """

    setting: str
    parts: tuple[tuple[Weights, np.ndarray], ...]
    staged: bool = True
    defence: str = ""


def reconstruct_from_updates(session: AttackSession, attacks: Sequence[type[UpdateAttack]]) -> list[AttackTask]:
    """On the release of round 1, and staged. A masked update is read as if it were none: that is what masks are for."""
    method = session.method
    if not isinstance(method, Rounds):
        whys = [f"{attack.title}: {method.title} releases no updates of weights" for attack in attacks]
        return impossible(session.victim, "updates", *whys)
    target, of = _Target(session, method), f"{session.victim}.updates"
    return [AttackTask(f"{of}.{kind.name}", of, partial(target.attacked_by, kind())) for kind in attacks]


@final
class _Target:
    """The updates that are attacked: what all attacks share, made when the first of them is carried out."""

    def __init__(self, session: AttackSession, method: Rounds) -> None:
        self._session, self._method = session, method

    @cached_property
    def _known(self) -> Known:
        return self._session.site.known("train")

    @cached_property
    def _auxiliary(self) -> np.ndarray:
        return self._session.auxiliary("images")[:, 0]

    @cached_property
    def _stage(self) -> Stage:
        return Stage.of(self._method, self._session.site)

    @cached_property
    def _released(self) -> Weights | None:
        return _released(self._session, self._stage.before)

    @cached_property
    def _cases(self) -> list[_Case]:
        return _cases(self._session, self._stage, self._known, self._released)

    @cached_property
    def _travels(self) -> set[str]:
        """The names of the weights that an update shows: running statistics have no gradient."""
        weights = {name for name, _ in self._stage.net.named_parameters()}
        return weights if self._released is None else weights & set(self._released)

    def attacked_by(self, attack: UpdateAttack) -> PartialResult:
        """What `attack` reconstructs in each case."""
        session, known = self._session, self._known
        results, shown = [], {}
        for case in self._cases:
            if case.defence and not attack.every_update:
                continue
            parts = case.parts if attack.every_update else case.parts[:1]
            start = time.perf_counter()
            found = np.concatenate([attack.carry_out(self._view(case, *part)) for part in parts])
            seconds = time.perf_counter() - start
            chosen = np.concatenate([slices for _, slices in parts])
            truth = Truth(known.images[chosen, None], known.subjects[chosen], known.masks[chosen])
            one = session.result(attack, case.setting, "images", "train", found, truth, seconds, staged=case.staged)
            results.append(one.model_copy(update={"defence": case.defence}))
            if not case.staged:  # there is one such case
                shown = session.examples("images", truth, found, None)
        lacking = () if shown else (f"{attack.title}: {session.victim} released no update in round 1",)
        return PartialResult(reconstructions=tuple(results), left_out=lacking, shown=shown)

    def _view(self, case: _Case, update: Weights, slices: np.ndarray) -> UpdateView:
        masks = self._known.masks[slices]

        def rehearse(images: np.ndarray) -> Weights:
            made = self._stage.update((images, masks))
            return {name: made[name] for name in self._travels}

        return UpdateView(
            update=update,
            masks=masks,
            slices=tuple(slices.tolist()),
            setting=case.setting,
            build=lambda: build(self._method.parameters, self._session.site),
            rehearse=rehearse,
            auxiliary=self._auxiliary,
            effort=self._session.effort,
            seed=self._session.seed,
            device=self._session.site.device,
            progress=self._session.progress,
        )


def _cases(session: AttackSession, stage: Stage, known: Known, released: Weights | None) -> list[_Case]:
    """The release, if there is one, and what is staged."""
    chosen = _fullest(known)
    cases = [] if released is None else [_Case("released in round 1", ((released, chosen),), staged=False)]
    for slices, steps in STAGED:
        if slices > len(chosen):
            continue
        setting = f"{slices} slice{'s'[: slices > 1]}, {steps} step{'s'[: steps > 1]}"
        groups = np.split(chosen, len(chosen)) if slices == 1 else [chosen[:slices]]
        cases.append(_Case(setting, tuple((stage.update(_of(known, group), steps), group) for group in groups)))
    others = [other.known("train") for other in session.others]
    defended: dict[str, list[tuple[Weights, np.ndarray]]] = {}
    for place, group in enumerate(np.split(chosen, len(chosen))):
        peers = [_of(other, np.roll(_fullest(other), -place)[:1]) for other in others]
        for defence, update in stage.defended(_of(known, group), peers, session.seed("defended", place)).items():
            defended.setdefault(defence, []).append((update, group))
    cases += [_Case(f"1 slice, 1 step, {name}", tuple(parts), defence=name) for name, parts in defended.items()]
    return cases


def _of(known: Known, chosen: np.ndarray) -> Pair:
    return known.images[chosen], known.masks[chosen]


def _fullest(known: Known) -> np.ndarray:
    """For each of the first subjects the index of the slice that shows most of the heart."""
    size = (known.masks > 0).sum(axis=(1, 2))
    people = range(min(MOST, len(known.people)))
    return np.array(
        [np.flatnonzero(known.subjects == person)[size[known.subjects == person].argmax()] for person in people]
    )


def _released(session: AttackSession, before: Weights) -> Weights | None:
    """Weights before minus weights after round 1, as far as the site released them."""
    payload = session.released.first_update()
    if payload is None:
        return None
    if payload.kind.discloses == "sum":
        after = mean_of(payload.arrays["masked"].view(np.uint64), before).arrays
    else:
        after = under(payload.arrays, NET)
    return {name: before[name] - value for name, value in after.items()}
