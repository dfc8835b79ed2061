"""The attacks that reconstruct images and masks from a site's released codes."""

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
from fedprivseg.study.leakage.partial import AttackTask, PartialResult, impossible
from fedprivseg.study.leakage.session import CODE_KIND, AttackSession, pictures_of

MASK_VICTIMS = 3
"""Most training subjects whose mask codes are attacked, and half of them at most: pairs come from the others. (Mask codes of
test subjects are never sent.)"""


def reconstruct_from_codes(
    session: AttackSession, what: What, attacks: Sequence[type[Reconstruction]]
) -> list[AttackTask]:
    """Every attack on the site's codes of images or of masks: of its test subjects where such codes were sent."""
    method = session.method
    if not isinstance(method, CodedMethod):
        return impossible(session.victim, what, f"attacks on codes of {what}: {method.title} releases no codes")
    if not any(sent.what == what for sent in method.sends):
        return impossible(session.victim, what, f"attacks on codes of {what}: {method.title} releases none")
    target, of = _Target(session, what, method), f"{session.victim}.{what}"
    return [AttackTask(f"{of}.{kind.name}", of, partial(target.attacked_by, kind())) for kind in attacks]


@final
class _Target:
    """The site's codes of images or of masks: what all attacks on them share, read when the first of them is carried out."""

    def __init__(self, session: AttackSession, what: What, method: CodedMethod) -> None:
        self._session, self._what, self._method = session, what, method
        streams = [sent for sent in method.sends if sent.what == what]
        self._victims = streams[0]
        self._trained = next((sent for sent in streams if sent.side == "train"), None)
        self._views = method.views(self._victims)

    def attacked_by(self, attack: Reconstruction) -> PartialResult:
        """What `attack` reconstructs, in each of its settings."""
        session, what, truth, views = self._session, self._what, self._truth, self._views
        view = replace(self._view, query=_query(self._method, session.site, what))
        if missing := view.lacks(attack.knows):
            why = f"{attack.title} on {what}: there is no {', '.join(missing)} in this method"
            return PartialResult(left_out=(why,))
        start = time.perf_counter()
        found = attack.carry_out(view if attack.every_view else replace(view, codes=self._first))
        if attack.every_view and views > 1:
            found = _both(found, self._method, views)
        seconds = (time.perf_counter() - start) / len(found)
        side, own = self._victims.side, self._own
        results = {
            setting: session.result(attack, setting, what, side, pictures, truth, seconds, own=own)
            for setting, pictures in found.items()
        }
        worst = max(results, key=lambda setting: results[setting].leakage)
        shown = session.examples(what, truth, found[worst], own)
        return PartialResult(reconstructions=tuple(results.values()), shown=shown)

    @cached_property
    def _known(self) -> Known:
        return self._session.site.known(self._victims.side)

    @cached_property
    def _chosen(self) -> np.ndarray:
        """Which slices (N,) are attacked."""
        known = self._known
        return known.subjects >= 0 if self._victims.side == "test" else known.subjects < _victims(known)

    @cached_property
    def _codes(self) -> np.ndarray:
        """Released codes (views * N, C, h, w) of all slices, every view."""
        count = self._views * len(self._known.images)
        return self._session.released.rows(self._victims.action, count).astype(np.float32)

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
        """What the site's own decoder reconstructs from the first view."""
        site, what = self._session.site, self._what
        return self._method.decode_pictures(site, what, site.opened(CODE_KIND[what], self._first))

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Training pictures of the site with their released codes, but of those who are attacked."""
        if self._trained is None:
            return None
        home = self._session.site.known("train")
        rest = home.subjects >= (0 if self._victims.side == "test" else _victims(home))
        if not rest.any():
            return None
        sent = self._session.released.rows(self._trained.action, len(home.images)).astype(np.float32)
        return pictures_of(home, self._what)[rest], sent[rest]

    @cached_property
    def _view(self) -> View:
        session, what, method = self._session, self._what, self._method
        return View(
            codes=self._codes[np.tile(self._chosen, self._views)],
            shape=(1 if what == "images" else len(LABELS), *self._known.images.shape[1:]),
            effort=session.effort,
            seed=session.seed(what),
            auxiliary=session.auxiliary(what),
            query=None,
            pairs=self._pairs,
            foreign=_foreign(method, session.others, what, self._codes[:1]),
            architecture=lambda: method.architecture(what),
            device=session.site.device,
            progress=session.progress,
        )


def _both(found: Mapping[str, np.ndarray], method: CodedMethod, views: int) -> dict[str, np.ndarray]:
    """What an attack reconstructed from the first augmented view, and from all `views`, averaged."""
    both = {}
    for setting, pictures in found.items():
        both[setting] = pictures[: len(pictures) // views]
        both[f"{setting}, {views} views".removeprefix(", ")] = method.overlaid(pictures, views)
    return both


def _victims(known: Known) -> int:
    """How many of a site's training subjects are attacked: the first so many."""
    return max(1, min(MASK_VICTIMS, len(known.people) // 2))


def _query(method: CodedMethod, site: SiteRuntime, what: What) -> Encode:
    """The site's encoder with its protections; every call is a payload of its own."""
    calls = iter(range(10**9))

    def query(pictures: np.ndarray) -> np.ndarray:
        codes = method.encode_pictures(site, what, pictures)
        return site.shield.apply(CODE_KIND[what], codes, ("query", next(calls)))[0].astype(np.float32)

    return query


def _foreign(
    method: CodedMethod, others: Sequence[SiteRuntime], what: What, sample: np.ndarray
) -> Mapping[str, Decode] | None:
    """The other sites' own decoders, where they have one."""

    def of(site: SiteRuntime) -> Decode:
        def decode(codes: np.ndarray) -> np.ndarray:
            pictures = method.decode_pictures(site, what, codes)
            assert pictures is not None
            return pictures

        return decode

    able = [site for site in others if method.decode_pictures(site, what, sample) is not None]
    return {site.name: of(site) for site in able} or None
