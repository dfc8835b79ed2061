"""The attacks that redraw pictures from a site's released codes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import final

import numpy as np

from fedprivseg.attacks.base import Decode, Encode, Reconstruction, View
from fedprivseg.attacks.metrics import Truth
from fedprivseg.core.measures import LABELS
from fedprivseg.core.method_card import What
from fedprivseg.methods.method import CodedMethod
from fedprivseg.runtime.site.site_runtime import Known, SiteRuntime
from fedprivseg.study.leakage.part import Part, Piece, without
from fedprivseg.study.leakage.scene import CODE_KIND, AttackSession, pictures_of

MASK_VICTIMS = 3
"""Most training subjects whose mask codes are attacked, and half of them at most: pairs come from the others. (Mask codes of
test subjects are never sent.)"""


def attack_codes(scene: AttackSession, what: What, attacks: Sequence[type[Reconstruction]]) -> list[Piece]:
    """Every attack on the site's codes of one kind of picture: of its test subjects where such codes were sent."""
    method = scene.method
    if not isinstance(method, CodedMethod):
        return without(scene.site, what, f"attacks on codes of {what}: {method.title} releases no codes")
    if not any(sent.what == what for sent in method.sends):
        return without(scene.site, what, f"attacks on codes of {what}: {method.title} releases none")
    battle = _Battle(scene, what, method)
    return [
        Piece(f"{scene.site}.{what}.{kind.name}", f"{scene.site}.{what}", partial(battle.carry_out, kind()))
        for kind in attacks
    ]


@final
class _Battle:
    """What all attacks on the codes of one kind of picture share, read when the first of them is carried out."""

    def __init__(self, scene: AttackSession, what: What, method: CodedMethod) -> None:
        self._scene, self._what, self._method = scene, what, method
        streams = [sent for sent in method.sends if sent.what == what]
        self._victims = streams[0]
        self._trained = next((sent for sent in streams if sent.side == "train"), None)
        self._views = method.views(self._victims)

    def carry_out(self, attack: Reconstruction) -> Part:
        """The verdict on what `attack` draws, in each of its settings."""
        scene, what, truth, views = self._scene, self._what, self._truth, self._views
        view = replace(self._view, query=_query(self._method, scene.bench, what))
        if missing := view.lacks(attack.knows):
            return Part(left_out=(f"{attack.title} on {what}: there is no {', '.join(missing)} in this method",))
        start = time.perf_counter()
        drawings = attack.carry_out(view if attack.every_view else replace(view, codes=self._first))
        if attack.every_view and views > 1:
            drawings = _both(drawings, self._method, views)
        seconds = (time.perf_counter() - start) / len(drawings)
        names = {"attack": attack.name, "title": attack.title, "paper": attack.paper, "knows": attack.in_words()}
        side, own = self._victims.side, self._own
        found = {
            setting: scene.redrawn({**names, "setting": setting}, what, side, drawn, truth, seconds, own=own)
            for setting, drawn in drawings.items()
        }
        worst = max(found, key=lambda setting: found[setting].leakage)
        return Part(tuple(found.values()), shown=scene.examples(what, truth, drawings[worst], own))

    @cached_property
    def _known(self) -> Known:
        return self._scene.bench.known(self._victims.side)

    @cached_property
    def _chosen(self) -> np.ndarray:
        """Which slices (N,) are attacked."""
        known = self._known
        return known.subjects >= 0 if self._victims.side == "test" else known.subjects < _victims(known)

    @cached_property
    def _codes(self) -> np.ndarray:
        """Released codes (views * N, C, h, w) of all slices, every view."""
        count = self._views * len(self._known.images)
        return self._scene.released.rows(self._victims.action, count).astype(np.float32)

    @cached_property
    def _first(self) -> np.ndarray:
        """The first view of what is attacked."""
        return self._codes[: len(self._known.images)][self._chosen]

    @cached_property
    def _truth(self) -> Truth:
        known, chosen = self._known, self._chosen
        return Truth(pictures_of(known, self._what)[chosen], known.subjects[chosen], known.masks[chosen])

    @cached_property
    def _own(self) -> np.ndarray | None:
        """What the site's own decoder draws of the first view."""
        bench, what = self._scene.bench, self._what
        return self._method.decode_pictures(bench, what, bench.opened(CODE_KIND[what], self._first))

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Training pictures of the site with their released codes, but of those who are attacked."""
        if self._trained is None:
            return None
        home = self._scene.bench.known("train")
        rest = home.subjects >= (0 if self._victims.side == "test" else _victims(home))
        if not rest.any():
            return None
        sent = self._scene.released.rows(self._trained.action, len(home.images)).astype(np.float32)
        return pictures_of(home, self._what)[rest], sent[rest]

    @cached_property
    def _view(self) -> View:
        scene, what, method = self._scene, self._what, self._method
        return View(
            codes=self._codes[np.tile(self._chosen, self._views)],
            shape=(1 if what == "images" else len(LABELS), *self._known.images.shape[1:]),
            effort=scene.effort,
            seed=scene.seed(what),
            auxiliary=scene.auxiliary(what),
            query=None,
            pairs=self._pairs,
            foreign=_foreign(method, scene.others, what, self._codes[:1]),
            architecture=lambda: method.architecture(what),
            device=scene.bench.device,
            progress=scene.progress,
        )


def _both(drawings: Mapping[str, np.ndarray], method: CodedMethod, views: int) -> dict[str, np.ndarray]:
    """What an attack drew of the first view, and of all `views` laid over each other."""
    found = {}
    for setting, drawn in drawings.items():
        found[setting] = drawn[: len(drawn) // views]
        found[f"{setting}, {views} views".removeprefix(", ")] = method.average_views(drawn, views)
    return found


def _victims(known: Known) -> int:
    """How many of a site's training subjects are attacked: the first so many."""
    return max(1, min(MASK_VICTIMS, len(known.people) // 2))


def _query(method: CodedMethod, bench: SiteRuntime, what: What) -> Encode:
    """The site's encoder with its protections; every call is a payload of its own."""
    calls = iter(range(10**9))

    def query(pictures: np.ndarray) -> np.ndarray:
        codes = method.encode_pictures(bench, what, pictures)
        return bench.shield.apply(CODE_KIND[what], codes, ("query", next(calls)))[0].astype(np.float32)

    return query


def _foreign(
    method: CodedMethod, others: Sequence[SiteRuntime], what: What, sample: np.ndarray
) -> Mapping[str, Decode] | None:
    """The other sites' own decoders, where they have one."""

    def of(bench: SiteRuntime) -> Decode:
        def decode(codes: np.ndarray) -> np.ndarray:
            pictures = method.decode_pictures(bench, what, codes)
            assert pictures is not None
            return pictures

        return decode

    able = [bench for bench in others if method.decode_pictures(bench, what, sample) is not None]
    return {bench.name: of(bench) for bench in able} or None
