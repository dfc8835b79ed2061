"""Attacks on the update of weights that a site released, and on staged ones that show when they work and what defences buy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from fedprivseg.attacks.base import Rehearse, UpdateAttack, UpdateView
from fedprivseg.attacks.metrics import Truth
from fedprivseg.methods.masking import mean_of
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.training import NET, build, under
from fedprivseg.nets.baseline import Weights
from fedprivseg.study.ground_truth import GroundTruth, ground_truth
from fedprivseg.study.leakage.attack_session import AttackSession
from fedprivseg.study.leakage.partial import AttackTask, PartialResult, impossible
from fedprivseg.study.leakage.staging import Pair, Stage

MOST = 4
"""Slices that are sought: the fullest one of each of the first training subjects."""

STAGED = ((1, 1), (4, 1), (4, 5))
"""(slices, local steps) of the updates that are made for the attack."""


@dataclass(frozen=True)
class _Case:
    """Updates of one setting, which are attacked alike. defence: what was done to staged ones."""

    views: tuple[UpdateView, ...]
    staged: bool = True
    defence: str = ""


def reconstruct_from_updates(session: AttackSession, attacks: Sequence[type[UpdateAttack]]) -> list[AttackTask]:
    """On the release of round 1, and staged. A masked update is read as if it were none: that is what masks are for."""
    method = session.method
    rounds = method.in_rounds
    if not isinstance(rounds, Rounds):
        whys = [f"{attack.title}: {method.title} releases no updates of weights" for attack in attacks]
        return impossible(session.victim, "updates", *whys)
    of = f"{session.victim}.updates"
    prepared = cache(lambda: [*_cases(session, rounds)])
    return [AttackTask(f"{of}.{kind.name}", of, partial(_attacked, session, prepared, kind())) for kind in attacks]


def _attacked(session: AttackSession, prepared: Callable[[], list[_Case]], attack: UpdateAttack) -> PartialResult:
    """What `attack` reconstructs in each case."""
    known, results, shown = ground_truth(session.site, "train"), [], {}
    region = session.scenario.task.region
    for case in prepared():
        if case.defence and not attack.every_update:
            continue
        views = case.views if attack.every_update else case.views[:1]
        start = time.perf_counter()
        found = np.concatenate([attack.carry_out(view) for view in views])
        seconds = time.perf_counter() - start
        chosen = np.concatenate([view.slices for view in views])
        truth = Truth(known.images[chosen, None], known.subjects[chosen], known.masks[chosen], "images", region)
        setting = views[0].setting
        one = session.result(attack, setting, "images", "train", found, truth, seconds, staged=case.staged)
        results.append(one.model_copy(update={"defence": case.defence}))
        if not case.staged:  # there is one such case
            shown = session.examples("images", truth, found, None)
    lacking = () if shown else (f"{attack.title}: {session.victim} released no update in round 1",)
    return PartialResult(reconstructions=tuple(results), left_out=lacking, shown=shown)


def _cases(session: AttackSession, method: Rounds) -> Iterator[_Case]:
    """The release, if there is one, and what is staged."""
    stage, known = Stage(method, session.site), ground_truth(session.site, "train")
    released, chosen = _released(session, stage.before), _fullest(known)
    auxiliary = session.auxiliary("images")[:, 0]
    # Running statistics have no gradient.
    shown = {name for name, _ in stage.net.named_parameters()} & set(stage.before if released is None else released)

    def rehearsal(masks: np.ndarray) -> Rehearse:
        def rehearse(images: np.ndarray) -> Weights:
            made = stage.update((images, masks))
            return {name: made[name] for name in shown}

        return rehearse

    def view(setting: str, update: Weights, slices: np.ndarray) -> UpdateView:
        masks = known.masks[slices]
        return UpdateView(
            update=update,
            masks=masks,
            slices=tuple(slices.tolist()),
            setting=setting,
            build=lambda: build(method.parameters, session.site),
            rehearse=rehearsal(masks),
            auxiliary=auxiliary,
            effort=session.effort,
            seed=session.seed,
            device=session.site.device,
            progress=session.progress,
        )

    if released is not None:
        yield _Case((view("released in round 1", released, chosen),), staged=False)
    for slices, steps in STAGED:
        if slices <= len(chosen):
            setting = f"{slices} slice{'s'[: slices > 1]}, {steps} step{'s'[: steps > 1]}"
            groups = np.split(chosen, len(chosen)) if slices == 1 else [chosen[:slices]]
            yield _Case(tuple(view(setting, stage.update(_of(known, group), steps), group) for group in groups))
    others = [ground_truth(other, "train") for other in session.others]
    defended: dict[str, list[UpdateView]] = {}
    for place, group in enumerate(np.split(chosen, len(chosen))):
        peers = [_of(other, np.roll(_fullest(other), -place)[:1]) for other in others]
        for defence, update in stage.defended(_of(known, group), peers, session.seed("defended", place)).items():
            defended.setdefault(defence, []).append(view(f"1 slice, 1 step, {defence}", update, group))
    for defence, views in defended.items():
        yield _Case(tuple(views), defence=defence)


def _of(known: GroundTruth, chosen: np.ndarray) -> Pair:
    return known.images[chosen], known.masks[chosen]


def _fullest(known: GroundTruth) -> np.ndarray:
    """For each of the first subjects the index of the slice that shows most structures."""
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
