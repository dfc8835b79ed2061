"""Attacks on the update of weights that a site released, and on staged ones that show when they work and what defences buy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from torch import nn

from fedprivseg.attacks.base import Rehearse, UpdateAttack, UpdateView
from fedprivseg.attacks.control_nets import CONTROL_NETS, PLAIN, control_net
from fedprivseg.attacks.crafted_weights import imprinted
from fedprivseg.attacks.metrics import Truth
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import digest
from fedprivseg.core.seeds import derive, numpy_generator
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.training import NET, OPENED, SummableParameters, under
from fedprivseg.nets.baseline import Weights
from fedprivseg.nets.local_training import Work
from fedprivseg.study.ground_truth import GroundTruth, ground_truth
from fedprivseg.study.leakage.attack_session import AttackSession
from fedprivseg.study.leakage.partial import AttackTask, PartialResult, impossible
from fedprivseg.study.leakage.staging import Pair, Stage

MOST = 4
"""Slices that are sought: the fullest one of each of the first training subjects."""

STAGED = ((1, 1, 1), (4, 1, 4), (4, 4, 2))
"""(slices, local steps, slices a step) of the updates that are made for the attack. The last goes twice through its slices."""


ROUNDS_OF_OTHERS = 8
"""Rounds of other sites that an adversary rehearses, at least, where it sees the mean of several."""


@dataclass(frozen=True)
class _Case:
    """Updates of one setting, which are attacked alike.

    Attributes:
        views: of slices of their own.
        staged: whether they were made for the attack.
        defence: what was done to staged ones.
    """

    views: tuple[UpdateView, ...]
    staged: bool = True
    defence: str = ""


def reconstruct_from_updates(session: AttackSession, attacks: Sequence[type[UpdateAttack]]) -> list[AttackTask]:
    """On the release of round 1, or the sum that masked ones opened to, and staged."""
    method = session.method
    rounds = method.in_rounds
    if not isinstance(rounds, Rounds):
        whys = [f"{attack.title}: {method.title} releases no updates of weights" for attack in attacks]
        return impossible(session.victim, "updates", *whys)
    of = f"{session.victim}.updates"
    prepared = cache(lambda: [*_Cases(session, rounds).all()])
    return [AttackTask(f"{of}.{kind.name}", of, partial(_attacked, session, prepared, kind())) for kind in attacks]


def _attacked(session: AttackSession, prepared: Callable[[], list[_Case]], attack: UpdateAttack) -> PartialResult:
    """What `attack` reconstructs in each case in which there is something for it."""
    known, results, shown = ground_truth(session.site, "train"), [], {}
    lacking: dict[str, list[str]] = {}
    region = session.scenario.task.region
    for case in prepared():
        views = case.views
        if why := attack.lacks(views[0]):
            lacking.setdefault(why, []).append(views[0].setting)
            continue
        if case.defence and not attack.under_defences:
            continue
        start = time.perf_counter()
        found = np.concatenate([attack.carry_out(view) for view in views])
        seconds = time.perf_counter() - start
        chosen = np.concatenate([view.slices for view in views])
        truth = Truth(known.images[chosen, None], known.subjects[chosen], known.masks[chosen], "images", region)
        one = session.result(attack, views[0].setting, "images", "train", found, truth, seconds, staged=case.staged)
        results.append(one.model_copy(update={"defence": case.defence, "net": views[0].net}))
        if not case.staged:  # there is one such case
            shown = session.examples("images", truth, found, None)
    whys = [f"{attack.title} ({'; '.join(settings)}): {why}" for why, settings in lacking.items()]
    if all(case.staged for case in prepared()):
        whys.append(
            f"{attack.title}: {session.victim} released no weights of a whole network in round 1, alone or in a sum that the "
            "server kept"
        )
    return PartialResult(reconstructions=tuple(results), left_out=tuple(whys), shown=shown)


class _Cases:
    """What is attacked at one site."""

    def __init__(self, session: AttackSession, method: Rounds) -> None:
        self.session, self.method = session, method
        self.known = ground_truth(session.site, "train")
        self.others = [ground_truth(other, "train") for other in session.others]
        self.chosen = _fullest(self.known)
        self.auxiliary = session.auxiliary("images")[:, 0]
        self.stage = Stage(method, session.site)
        # Made once each: by the same rehearsal an attack knows that it has learned from it before.
        self._statistics: dict[tuple[Stage, Work, tuple[int, ...]], Rehearse] = {}
        self._mean_statistics = cache(self._in_sum)
        self._shown = cache(_only)

    def all(self) -> Iterator[_Case]:
        """What came of the release, if there is one, and what is staged."""
        if (released := _released(self.session, self.stage.before)) is not None:
            update, sites = released
            whole = self.method.work(1, len(self.known.images))
            rehearse = self._whole_round(len(self.known.images), sites)
            setting = "released in round 1" if sites == 1 else f"the sum of {sites} sites in round 1"
            yield _Case((self._view(setting, update, self.chosen, whole, rehearse),), staged=False)
        for count, steps, batch in STAGED:
            if count <= len(self.chosen):
                groups = np.split(self.chosen, len(self.chosen)) if count == 1 else [self.chosen[:count]]
                yield self._plain(self.stage, groups, self.stage.work(batch, steps))
        grid, seed = self.session.site.grid, self.session.seed("control net")
        for name in CONTROL_NETS:
            made = partial(control_net, name, grid.height, grid.width, len(self.session.scenario.task.structures), seed)
            stage = Stage(self.method, self.session.site, made)
            yield self._plain(stage, np.split(self.chosen, len(self.chosen)), stage.work(1, 1), name)
        yield from self._defended()
        yield from self._from_active_server()

    def _plain(self, stage: Stage, groups: Sequence[np.ndarray], work: Work, net: str = "") -> _Case:
        setting = f"{_counted(len(groups[0]), 'slice')}, {_counted(work.steps, 'step')}"
        if work.batch < len(groups[0]):
            setting += f" of {work.batch}"
        setting += f", {net}" if net else ""
        return _Case(
            tuple(
                self._view(
                    setting,
                    stage.update(_of(self.known, group), work),
                    group,
                    work,
                    self._steps(stage, self.known.masks[group], work),
                    self._statistics_of(stage, group, work),
                    net=net,
                    build=stage.build,
                )
                for group in groups
            )
        )

    def _defended(self) -> Iterator[_Case]:
        """One slice, one step, as the run's defences let it out."""
        work, defended = self.stage.work(1, 1), dict[str, list[UpdateView]]()
        for place, group in enumerate(np.split(self.chosen, len(self.chosen))):
            peers = [_of(other, np.roll(_fullest(other), -place)[:1]) for other in self.others]
            seed = self.session.seed("defended", place)
            for defence, update in self.stage.defended(_of(self.known, group), peers, seed).items():
                rehearse = self._steps(self.stage, self.known.masks[group], work)
                statistics = self._statistics_of(self.stage, group, work)
                if defence.startswith("in the sum"):
                    rehearse, statistics = self._in_sum(rehearse), self._mean_statistics(statistics)
                view = self._view(f"1 slice, 1 step, {defence}", update, group, work, rehearse, statistics)
                defended.setdefault(defence, []).append(view)
        for defence, views in defended.items():
            yield _Case(tuple(views), defence=defence)

    def _from_active_server(self) -> Iterator[_Case]:
        """Updates of weights that the server crafted, as a site without a check of what it receives would make them."""
        grid, structures = self.session.site.grid, len(self.session.scenario.task.structures)
        made = partial(imprinted, grid.height, grid.width, structures, self.auxiliary)
        stage = Stage(self.method, self.session.site, made)
        work = stage.work(len(self.chosen), 1)
        yield self._plain(stage, [self.chosen], work, f"{PLAIN} with crafted weights")
        p = self.method.parameters
        if self.others and isinstance(p, SummableParameters) and p.summation == "secure" and p.dp is None:
            net, work, views = "dead weights at the other sites", self.stage.work(1, 1), []
            for place, group in enumerate(np.split(self.chosen, len(self.chosen))):
                peers = [_of(other, np.roll(_fullest(other), -place)[:1]) for other in self.others]
                pictures = self.auxiliary[place : place + 1], self.known.masks[group]
                update = self.stage.singled_out(_of(self.known, group), peers, pictures)
                rehearse = self._steps(self.stage, self.known.masks[group], work)
                statistics = self._statistics_of(self.stage, group, work)
                setting = f"1 slice, 1 step, in the sum of {len(peers) + 1} sites, {net}"
                views.append(self._view(setting, update, group, work, rehearse, statistics, net=net))
            yield _Case(tuple(views))

    def _view(
        self,
        setting: str,
        update: Weights,
        slices: np.ndarray,
        work: Work,
        rehearse: Rehearse,
        statistics: Rehearse | None = None,
        *,
        net: str = "",
        build: Callable[[], nn.Module] | None = None,
    ) -> UpdateView:
        session, names = self.session, frozenset(update)
        return UpdateView(
            update=update,
            masks=self.known.masks[slices],
            slices=tuple(slices.tolist()),
            setting=setting,
            build=build or self.stage.build,
            rehearse=self._shown(rehearse, names),
            rehearse_statistics=statistics and self._shown(statistics, names),
            auxiliary=self.auxiliary,
            effort=session.effort,
            seed=session.seed,
            work=work,
            net=net,
            device=session.site.device,
            progress=session.progress,
        )

    def _steps(self, stage: Stage, masks: np.ndarray, work: Work) -> Rehearse:
        """The same steps on other images under the same outlines."""
        return lambda images: stage.update((images, masks), work)

    def _statistics_of(self, stage: Stage, group: np.ndarray, work: Work) -> Rehearse:
        """The running statistics of the same steps; in a first step outlines play no part."""
        alike = stage, work, tuple(group.tolist()) if work.steps > 1 else ()
        masks, kept = self.known.masks[group], dict[str, Weights]()

        def statistics(images: np.ndarray) -> Weights:
            given = digest(np.ascontiguousarray(images).tobytes())
            if given not in kept:
                kept[given] = stage.statistics((images, masks), work)
            return kept[given]

        return self._statistics.setdefault(alike, statistics)

    def _in_sum(self, alone: Rehearse) -> Rehearse:
        """The mean with the updates of images that the adversary draws for the other sites."""

        def rehearse(images: np.ndarray) -> Weights:
            draws = numpy_generator(self._of_images(images), "peers")
            peers = [self.auxiliary[draws.integers(0, len(self.auxiliary), len(images))] for _ in self.others]
            return _mean([alone(each) for each in (images, *peers)])

        return rehearse

    def _whole_round(self, slices: int, sites: int) -> Rehearse:
        """The mean of the first rounds of `sites` sites of `slices` slices: the images, under the outlines that are sought,
        among slices of the adversary's own, and the others of such slices alone. A mean is linear, so a few rounds of others
        serve all rehearsals, in other combinations."""
        images = np.concatenate([other.images for other in self.others])
        masks = np.concatenate([other.masks for other in self.others])

        def alone(seed: int, given: np.ndarray) -> Weights:
            draws = numpy_generator(seed, "pool")
            chosen = draws.permutation(len(images))[: slices - len(given)]
            pool = (
                np.concatenate([given, images[chosen]]),
                np.concatenate([self.known.masks[self.chosen[: len(given)]], masks[chosen]]),
            )
            return self.stage.round(pool, derive(seed, "round"))

        @cache
        def of_other(number: int) -> Weights:
            return alone(self.session.seed("round of another site", number), images[:0])

        def rehearse(given: np.ndarray) -> Weights:
            seed = self._of_images(given)
            peers = numpy_generator(seed, "others").permutation(max(ROUNDS_OF_OTHERS, sites - 1))[: sites - 1]
            return _mean([alone(seed, given), *(of_other(int(number)) for number in peers)])

        return rehearse

    def _of_images(self, images: np.ndarray) -> int:
        """A seed that follows from the images, so that a rehearsal is the same whenever it is repeated."""
        return self.session.seed("rehearsed", digest(np.ascontiguousarray(images).tobytes()))


def _only(rehearse: Rehearse, names: frozenset[str]) -> Rehearse:
    """What `rehearse` shows of these arrays."""
    return lambda images: {name: value for name, value in rehearse(images).items() if name in names}


def _mean(updates: Sequence[Weights]) -> dict[str, np.ndarray]:
    return {name: np.mean([each[name] for each in updates], axis=0) for name in updates[0]}


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s'[: count > 1]}"


def _of(known: GroundTruth, chosen: np.ndarray) -> Pair:
    return known.images[chosen], known.masks[chosen]


def _fullest(known: GroundTruth) -> np.ndarray:
    """For each of the first subjects the index of the slice that shows most structures."""
    size = (known.masks > 0).sum(axis=(1, 2))
    people = range(min(MOST, len(known.people)))
    return np.array(
        [np.flatnonzero(known.subjects == person)[size[known.subjects == person].argmax()] for person in people]
    )


def _released(session: AttackSession, before: Weights) -> tuple[Mapping[str, np.ndarray], int] | None:
    """Weights before minus weights after round 1, as far as the server has them, and of how many sites this is the mean: of the
    attacked one, or, where that sent a masked update, of all whose sum was opened. None for a release of other things, such as
    a selection of values."""
    payload = session.released.first_update()
    if payload is None:
        return None
    if payload.kind.discloses == "sum":
        kept = ModelStore(session.run / "server").load(OPENED)
        if kept is None:
            return None
        after, sites = under(kept[0], NET), int(kept[1]["sites"])
    else:
        after, sites = under(payload.arrays, NET), 1
    update = {name: before[name] - value for name, value in after.items()}
    return (update, sites) if update else None
