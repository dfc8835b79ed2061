"""The attacks that reconstruct images and masks from a site's released codes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count
from typing import final

import numpy as np

from fedprivseg.attacks.base import Encode, Reconstruction, View
from fedprivseg.attacks.metrics import Truth
from fedprivseg.core.method_card import Sent, What
from fedprivseg.methods.method import CodedMethod
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.study.ground_truth import ground_truth
from fedprivseg.study.leakage.attack_session import CODE_KIND, AttackSession, Side, pictures_of
from fedprivseg.study.leakage.partial import AttackTask, PartialResult, impossible

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
    target, of = cache(lambda: _target(session, what, method)), f"{session.victim}.{what}"
    return [AttackTask(f"{of}.{kind.name}", of, partial(_attacked, session, what, target, kind())) for kind in attacks]


@final
@dataclass(frozen=True)
class _Target:
    """The site's codes of images or of masks, as all attacks on them see them.

    Attributes:
        view: of an adversary that knows everything, with the codes of all augmented views of each slice.
        first: the codes of the first view alone.
        truth: what the codes were made of.
        own: what the site's own decoder reconstructs from the first view; None if it has none.
        side: of whose slices the codes are.
    """

    method: CodedMethod
    view: View
    first: np.ndarray
    truth: Truth
    own: np.ndarray | None
    side: Side


def _attacked(
    session: AttackSession, what: What, prepared: Callable[[], _Target], attack: Reconstruction
) -> PartialResult:
    """What `attack` reconstructs, in each of its settings; from several views of a slice also their average."""
    target = prepared()
    view = replace(target.view, query=_query(target.method, session.site, what))
    if missing := view.lacks(attack.knows):
        return PartialResult(left_out=(f"{attack.title} on {what}: there is no {', '.join(missing)} in this method",))
    start = time.perf_counter()
    found = attack.carry_out(view if attack.every_view else replace(view, codes=target.first))
    size = len(target.first)
    for setting, pictures in [*found.items()]:
        if (views := len(pictures) // size) > 1:
            del found[setting]
            found[setting] = pictures[:size]
            found[f"{setting}, {views} views".removeprefix(", ")] = target.method.average_views(pictures, views)
    seconds = (time.perf_counter() - start) / len(found)
    results = {
        setting: session.result(attack, setting, what, target.side, pictures, target.truth, seconds, own=target.own)
        for setting, pictures in found.items()
    }
    worst = max(results, key=lambda setting: results[setting].leakage)
    shown = session.examples(what, target.truth, found[worst], target.own)
    return PartialResult(reconstructions=tuple(results.values()), shown=shown)


def _target(session: AttackSession, what: What, method: CodedMethod) -> _Target:
    site, streams = session.site, [sent for sent in method.sends if sent.what == what]
    victims, views, task = streams[0], method.views(streams[0]), session.scenario.task
    known = ground_truth(site, victims.side)
    attacked = len(known.people) if victims.side == "test" else max(1, min(MASK_VICTIMS, len(known.people) // 2))
    chosen = known.subjects < attacked
    codes = session.released.rows(victims.action, views * len(known.images)).astype(np.float32)
    first = codes[: len(known.images)][chosen]
    trained = next((sent for sent in streams if sent.side == "train"), None)
    able = [other for other in session.others if method.decode_pictures(other, what, codes[:1]) is not None]
    view = View(
        codes=codes[np.tile(chosen, views)],
        shape=(1 if what == "images" else len(task.structures), *known.images.shape[1:]),
        what=what,
        effort=session.effort,
        seed=session.seed(what),
        auxiliary=session.auxiliary(what),
        pairs=trained and _pairs(session, trained, after=0 if victims.side == "test" else attacked),
        foreign={other.name: partial(_decoded, method, other, what) for other in able} or None,
        architecture=lambda: method.architecture(what, task),
        device=site.device,
        progress=session.progress,
    )
    truth = Truth(
        pictures_of(known, what, task)[chosen], known.subjects[chosen], known.masks[chosen], what, task.region
    )
    own = method.decode_pictures(site, what, site.opened(CODE_KIND[what], first))
    return _Target(method, view, first, truth, own, victims.side)


def _pairs(session: AttackSession, sent: Sent, after: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Training pictures of the site with their released codes, of the subjects from number `after` on: others are attacked."""
    home = ground_truth(session.site, "train")
    rest = home.subjects >= after
    codes = session.released.rows(sent.action, len(home.images)).astype(np.float32)
    return (pictures_of(home, sent.what, session.scenario.task)[rest], codes[rest]) if rest.any() else None


def _decoded(method: CodedMethod, site: SiteRuntime, what: What, codes: np.ndarray) -> np.ndarray:
    pictures = method.decode_pictures(site, what, codes)
    assert pictures is not None, "asked of sites with a decoder alone"
    return pictures


def _query(method: CodedMethod, site: SiteRuntime, what: What) -> Encode:
    """The site's encoder with its protections; every call is a payload of its own."""
    calls = count()

    def query(pictures: np.ndarray) -> np.ndarray:
        codes = method.encode_pictures(site, what, pictures)
        return site.shield.apply(CODE_KIND[what], codes, ("query", next(calls)))[0].astype(np.float32)

    return query
